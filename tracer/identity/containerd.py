# SPDX-License-Identifier: Apache-2.0
"""containerd's bundles, its database, and the CRI plugin's status files.

A bundle, STATE/io.containerd.runtime.v2.task/NAMESPACE/ID/config.json, is an OCI runtime specification, written before
the container starts and removed within 50 ms of its end.  The CRI plugin adds names and pod as annotations (containerd,
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
"""Docker's namespace: Docker's own files have more."""
_DATABASE = "io.containerd.metadata.v1.bolt/meta.db"
_LABELS_MAX_BYTES = 4 * runtime_metadata.LABELS_MAX_BYTES
"""Enough for all labels that are kept: a character takes at most four bytes."""
_ANY_VALUE = 2 << 3 | 2
"""Field 2, length-delimited, as is field 1, the name of the type."""
_CRI = "io.kubernetes.cri."
_ANNOTATIONS = {
    "pod_name": "sandbox-name",
    "namespace": "sandbox-namespace",
    "pod_uid": "sandbox-uid",
    "container_name": "container-name",
    "image": "image-name",
}


def fetch_from_bundle(state: str, container_id: str) -> ContainerMetadata | None:
    """Name, image and pod; None: there is no such bundle.

    Raises UnreadableError.
    """
    namespaces = sorted(
        safe_files.list_directory(state, _TASKS), key=lambda namespace: (namespace != "k8s.io", namespace)
    )
    for namespace in namespaces:
        name = f"{_TASKS}/{namespace}/{container_id}/config.json"
        data = None if namespace == _MOBY else safe_files.read_file(state, name)
        if data is not None:
            return _from_annotations(
                runtime_metadata.get_object(runtime_metadata.parse_json_object(data, f"{state}/{name}"), "annotations"),
                container_id,
            )
    return None


def _from_annotations(annotations: dict[str, Any], container_id: str) -> ContainerMetadata:
    metadata: ContainerMetadata = {"runtime": "containerd"}
    if f"{_CRI}sandbox-id" not in annotations:
        runtime_metadata.set_strings(metadata, name=container_id)
        return metadata
    runtime_metadata.set_strings(
        metadata, **{field: annotations.get(_CRI + name) for field, name in _ANNOTATIONS.items()}
    )
    runtime_metadata.set_strings(metadata, name=annotations.get(f"{_CRI}container-name"))
    return metadata


def fetch_from_database(root: str, container_id: str) -> ContainerMetadata | None:
    """Name, image and labels from the database; None: it has no such container, or several.

    Raises UnreadableError.
    """
    return boltdb.query_database(root, _DATABASE, lambda database: _read_database(database, container_id))


def _read_database(database: Bucket, container_id: str) -> ContainerMetadata | None:
    """Read v1/NAMESPACE/containers/ID with its `image`, `labels` and `extensions`."""
    namespaces = database.bucket(b"v1")
    path = (b"containers", container_id.encode(errors="replace"))
    records = (
        [namespace.bucket(*path) for name, namespace in namespaces.buckets() if name != _MOBY.encode()]
        if namespaces
        else []
    )
    containers = [container for container in records if container is not None]
    if len(containers) != 1:  # clients choose the ids, so two namespaces may have the same
        return None
    return _from_record(containers[0], container_id)


def _from_record(container: Bucket, container_id: str) -> ContainerMetadata | None:
    metadata: ContainerMetadata = {"runtime": "containerd"}
    runtime_metadata.set_strings(metadata, image=_text(container.value(b"image")))
    extensions = container.bucket(b"extensions")
    if extensions is not None and extensions.value(b"io.cri-containerd.sandbox.metadata") is not None:
        return None  # a pod's pause container, which has no name
    cri = extensions.value(b"io.cri-containerd.container.metadata") if extensions is not None else None
    if cri is None:
        runtime_metadata.set_strings(metadata, name=container_id)
        runtime_metadata.set_labels(metadata, _labels(container))
        return metadata
    # The record's own labels also contain the image's, which the CRI does not report.
    config = runtime_metadata.get_object(
        runtime_metadata.get_object(runtime_metadata.parse_json_object(_any_value(cri), "CRI metadata"), "Metadata"),
        "Config",
    )
    labels = runtime_metadata.get_object(config, "labels")
    runtime_metadata.set_strings(metadata, name=runtime_metadata.get_object(config, "metadata").get("name"))
    runtime_metadata.set_labels(metadata, labels)
    runtime_metadata.set_kubernetes(metadata, labels)
    return metadata


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
    """Decode a varint at ``at``; also the offset after it.

    Raises UnreadableError.
    """
    value = 0
    for position, byte in enumerate(data[at : at + 5]):
        value |= (byte & 0x7F) << 7 * position
        if byte < 0x80:
            return value, at + position + 1
    raise UnreadableError("CRI metadata: invalid length")


def fetch_state(root: str, container_id: str) -> ContainerState | None:
    """State of a CRI container from ROOT/io.containerd.grpc.v1.cri/containers/ID/status; None: there is no such file.

    Raises UnreadableError.
    """
    for plugin in ("io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime"):  # before and since containerd 2
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
