# SPDX-License-Identifier: Apache-2.0
"""Docker's own record of a container: DATA_ROOT/containers/ID/config.v2.json (moby, container/container.go).

Written when the container is created, before it starts; gone about 100 ms after the end of one with ``--rm``.
"""

from tracer import facts, files
from tracer.facts import Facts, Verdict


def find(root: str, container_id: str) -> Facts | None:
    """Name, image and labels; None where Docker has no such container.

    Raises UnreadableError.
    """
    found = _read(root, container_id)
    return None if found is None else found[0].copy()


def verdict(root: str, container_id: str) -> Verdict | None:
    """How it ended, as ``docker inspect`` would say.

    Raises UnreadableError.
    """
    found = _read(root, container_id)
    return None if found is None else found[1].copy()


def _read(root: str, container_id: str) -> tuple[Facts, Verdict] | None:
    return files.read_once(root, f"containers/{container_id}/config.v2.json", _take)


def _take(data: bytes, source: str) -> tuple[Facts, Verdict]:
    config = facts.parse(data, source)
    inner = facts.child(config, "Config")
    labels = facts.child(inner, "Labels")
    name = config.get("Name")
    found: Facts = {"runtime": "docker"}
    facts.put(found, name=name.removeprefix("/") if isinstance(name, str) else None, image=inner.get("Image"))
    facts.put_labels(found, labels)
    facts.put_kubernetes(found, labels)  # dockershim and cri-dockerd
    state = facts.child(config, "State")
    ended = state.get("OOMKilled"), state.get("ExitCode"), state.get("FinishedAt")
    return found, facts.verdict(bool(state.get("Running")), *ended)
