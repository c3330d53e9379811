# SPDX-License-Identifier: Apache-2.0
"""Docker's own record of a container: DATA_ROOT/containers/ID/config.v2.json (moby, container/container.go).

Written when the container is created, before it starts; gone about 100 ms after the end of one with ``--rm``.
"""

from tracer.identity import runtime_metadata
from tracer.identity.runtime_metadata import ContainerMetadata, ContainerState
from tracer.linux import safe_files


def fetch_metadata(root: str, container_id: str) -> ContainerMetadata | None:
    """Name, image and labels; None where Docker has no such container.

    Raises UnreadableError.
    """
    found = _read(root, container_id)
    return None if found is None else found[0].copy()


def fetch_state(root: str, container_id: str) -> ContainerState | None:
    """How it ended, as ``docker inspect`` would say.

    Raises UnreadableError.
    """
    found = _read(root, container_id)
    return None if found is None else found[1].copy()


def _read(root: str, container_id: str) -> tuple[ContainerMetadata, ContainerState] | None:
    return safe_files.read_cached(root, f"containers/{container_id}/config.v2.json", _take)


def _take(data: bytes, source: str) -> tuple[ContainerMetadata, ContainerState]:
    config = runtime_metadata.parse_json_object(data, source)
    inner = runtime_metadata.get_object(config, "Config")
    labels = runtime_metadata.get_object(inner, "Labels")
    name = config.get("Name")
    found: ContainerMetadata = {"runtime": "docker"}
    runtime_metadata.set_strings(
        found, name=name.removeprefix("/") if isinstance(name, str) else None, image=inner.get("Image")
    )
    runtime_metadata.set_labels(found, labels)
    runtime_metadata.set_kubernetes(found, labels)  # dockershim and cri-dockerd
    state = runtime_metadata.get_object(config, "State")
    ended = state.get("OOMKilled"), state.get("ExitCode"), state.get("FinishedAt")
    return found, runtime_metadata.make_state(bool(state.get("Running")), *ended)
