# SPDX-License-Identifier: Apache-2.0
"""containerd's bundles, its database, and what the CRI plugin keeps of a container's end.

A bundle, STATE/io.containerd.runtime.v2.task/NAMESPACE/ID/config.json, is an OCI runtime specification, written before
the container starts and gone 50 ms after its end.  The CRI plugin tells names and pod in annotations (containerd,
pkg/cri/annotations).  The database (core/metadata/buckets.go) has the rest until the container is removed.
"""

from typing import Any

from tracer.identity import boltdb, runtime_metadata
from tracer.identity.boltdb import Bucket
from tracer.identity.runtime_metadata import ContainerMetadata, ContainerState
from tracer.linux import safe_files
from tracer.linux.safe_files import UnreadableError

_TASKS = "io.containerd.runtime.v2.task"
_MOBY = "moby"
"""Docker's own namespace: there is nothing in it that Docker does not tell better."""
_DATABASE = "io.containerd.metadata.v1.bolt/meta.db"
_LABELS_MAX_BYTES = 4 * runtime_metadata.LABELS_MAX_BYTES
"""More than can be kept, however many bytes a character takes."""
_ANY_VALUE = 2 << 3 | 2
"""Field 2, with a length before it; so has field 1, the type's name."""
_CRI = "io.kubernetes.cri."
_ANNOTATIONS = {
    "pod_name": "sandbox-name",
    "namespace": "sandbox-namespace",
    "pod_uid": "sandbox-uid",
    "container_name": "container-name",
    "image": "image-name",
}


def fetch_from_bundle(state: str, container_id: str) -> ContainerMetadata | None:
    """Name, image and pod; None where there is no such bundle.

    Raises UnreadableError.
    """
    spaces = sorted(safe_files.list_directory(state, _TASKS), key=lambda space: (space != "k8s.io", space))
    for space in spaces:
        name = f"{_TASKS}/{space}/{container_id}/config.json"
        data = None if space == _MOBY else safe_files.read_file(state, name)
        if data is not None:
            return _facts(
                runtime_metadata.get_object(runtime_metadata.parse_json_object(data, f"{state}/{name}"), "annotations"),
                container_id,
            )
    return None


def _facts(annotations: dict[str, Any], container_id: str) -> ContainerMetadata:
    found: ContainerMetadata = {"runtime": "containerd"}
    if f"{_CRI}sandbox-id" not in annotations:
        runtime_metadata.set_strings(found, name=container_id)
        return found
    runtime_metadata.set_strings(found, **{field: annotations.get(_CRI + name) for field, name in _ANNOTATIONS.items()})
    runtime_metadata.set_strings(found, name=annotations.get(f"{_CRI}container-name"))
    return found


def fetch_from_database(root: str, container_id: str) -> ContainerMetadata | None:
    """Name, image and labels as a client gave them, until the container is removed; None where it is not known.

    Raises UnreadableError.
    """
    return boltdb.query_database(root, _DATABASE, lambda database: _look_up(database, container_id))


def _look_up(database: Bucket, container_id: str) -> ContainerMetadata | None:
    """v1/NAMESPACE/containers/ID has `image`, `labels` and `extensions`."""
    spaces = database.bucket(b"v1")
    path = (b"containers", container_id.encode(errors="replace"))
    found = [space.bucket(*path) for name, space in spaces.buckets() if name != _MOBY.encode()] if spaces else []
    containers = [container for container in found if container is not None]
    if len(containers) != 1:  # clients choose their ids, and two namespaces may have the same
        return None
    return _stored(containers[0], container_id)


def _stored(container: Bucket, container_id: str) -> ContainerMetadata | None:
    found: ContainerMetadata = {"runtime": "containerd"}
    runtime_metadata.set_strings(found, image=_text(container.value(b"image")))
    extensions = container.bucket(b"extensions")
    if extensions is not None and extensions.value(b"io.cri-containerd.sandbox.metadata") is not None:
        return None  # a pod's pause container, which has no name
    metadata = extensions.value(b"io.cri-containerd.container.metadata") if extensions is not None else None
    if metadata is None:
        runtime_metadata.set_strings(found, name=container_id)
        runtime_metadata.set_labels(found, _labels(container))
        return found
    # The labels beside it are mixed with those of the image, which the CRI does not tell.
    config = runtime_metadata.get_object(
        runtime_metadata.get_object(
            runtime_metadata.parse_json_object(_any_value(metadata), "CRI metadata"), "Metadata"
        ),
        "Config",
    )
    labels = runtime_metadata.get_object(config, "labels")
    runtime_metadata.set_strings(found, name=runtime_metadata.get_object(config, "metadata").get("name"))
    runtime_metadata.set_labels(found, labels)
    runtime_metadata.set_kubernetes(found, labels)
    return found


def _labels(container: Bucket) -> dict[str, str | None]:
    labels: dict[str, str | None] = {}
    bucket = container.bucket(b"labels")
    room = _LABELS_MAX_BYTES
    for key, value in bucket.values() if bucket is not None else ():
        labels[key.decode(errors="replace")] = value.decode(errors="replace")
        room -= len(key) + len(value)
        if room < 0:
            break
    return labels


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")


def _any_value(data: bytes) -> bytes:
    """The value of a protobuf Any (google/protobuf/any.proto).

    Raises UnreadableError.
    """
    at = 0
    while at < len(data):
        field = data[at]
        size, at = _varint(data, at + 1)
        if field == _ANY_VALUE:
            return data[at : at + size]
        at += size
    raise UnreadableError("CRI metadata: no value")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number, and where the next thing begins."""
    value = 0
    for position, byte in enumerate(data[at : at + 5]):
        value |= (byte & 0x7F) << 7 * position
        if byte < 0x80:
            return value, at + position + 1
    raise UnreadableError("CRI metadata: no length")


def fetch_state(root: str, container_id: str) -> ContainerState | None:
    """How a CRI container ended: ROOT/io.containerd.grpc.v1.cri/containers/ID/status.

    Raises UnreadableError.
    """
    for plugin in ("io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime"):  # before containerd 2, and since
        name = f"{plugin}/containers/{container_id}/status"
        data = safe_files.read_file(root, name)
        if data is None:
            continue
        status = runtime_metadata.parse_json_object(data, f"{root}/{name}")
        running = not status.get("FinishedAt")
        reason = status.get("Reason")
        killed = reason == "OOMKilled" if reason or not running else None
        return runtime_metadata.make_state(running, killed, status.get("ExitCode"), status.get("FinishedAt"))
    return None
