# SPDX-License-Identifier: Apache-2.0
"""Docker's configuration of a container: DATA_ROOT/containers/ID/config.v2.json (moby, container/container.go).

Docker writes it when it creates the container, before the start, and removes it about 100 ms after the end of a
container with ``--rm``.
"""

from tracer.identity import runtime_metadata
from tracer.identity.runtime_metadata import ContainerMetadata, ContainerState
from tracer.linux import safe_files


def fetch_metadata(root: str, container_id: str) -> ContainerMetadata | None:
    """Name, image and labels; None: Docker has no such container.

    Raises UnreadableError.
    """
    parsed = _read(root, container_id)
    return None if parsed is None else parsed[0].copy()


def fetch_state(root: str, container_id: str) -> ContainerState | None:
    """Its state, as in ``docker inspect``; None: Docker has no such container.

    Raises UnreadableError.
    """
    parsed = _read(root, container_id)
    return None if parsed is None else parsed[1].copy()


def _read(root: str, container_id: str) -> tuple[ContainerMetadata, ContainerState] | None:
    return safe_files.read_cached(root, f"containers/{container_id}/config.v2.json", _parse)


def _parse(data: bytes, source: str) -> tuple[ContainerMetadata, ContainerState]:
    config = runtime_metadata.parse_json_object(data, source)
    container_config = runtime_metadata.get_object(config, "Config")
    labels = runtime_metadata.get_object(container_config, "Labels")
    name = config.get("Name")
    metadata: ContainerMetadata = {"runtime": "docker"}
    runtime_metadata.set_strings(
        metadata, name=name.removeprefix("/") if isinstance(name, str) else None, image=container_config.get("Image")
    )
    runtime_metadata.set_labels(metadata, labels)
    runtime_metadata.set_kubernetes(metadata, labels)  # dockershim and cri-dockerd
    state = runtime_metadata.get_object(config, "State")
    end = state.get("OOMKilled"), state.get("ExitCode"), state.get("FinishedAt")
    return metadata, runtime_metadata.make_state(bool(state.get("Running")), *end)
