# SPDX-License-Identifier: Apache-2.0
"""Docker's own record of a container: DATA_ROOT/containers/ID/config.v2.json (moby, container/container.go).

Written when the container is created, before it starts; gone about 100 ms after the end of one with ``--rm``.
"""

from typing import Any

from tracer import facts, files
from tracer.facts import Facts, Verdict


def find(root: str, container_id: str) -> Facts | None:
    """Name, image and labels; None where Docker has no such container.

    Raises UnreadableError.
    """
    config = _read(root, container_id)
    if config is None:
        return None
    inner = facts.child(config, "Config")
    labels = facts.child(inner, "Labels")
    name = config.get("Name")
    found: Facts = {"runtime": "docker"}
    facts.put(found, name=name.removeprefix("/") if isinstance(name, str) else None, image=inner.get("Image"))
    facts.put_labels(found, labels)
    facts.put_kubernetes(found, labels)  # dockershim and cri-dockerd
    return found


def verdict(root: str, container_id: str) -> Verdict | None:
    """How it ended, as ``docker inspect`` would say.

    Raises UnreadableError.
    """
    config = _read(root, container_id)
    if config is None:
        return None
    state = facts.child(config, "State")
    return facts.verdict(
        bool(state.get("Running")), state.get("OOMKilled"), state.get("ExitCode"), state.get("FinishedAt")
    )


def _read(root: str, container_id: str) -> dict[str, Any] | None:
    name = f"containers/{container_id}/config.v2.json"
    data = files.read(root, name)
    return None if data is None else facts.parse(data, f"{root}/{name}")
