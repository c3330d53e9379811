# SPDX-License-Identifier: Apache-2.0
"""Which kills are counted together: if several owners have the requested name, each has an answer of its own.

A user may name a container like another container, a pod or a unit.  A full name cannot be imitated, and takes
precedence: an id, NAMESPACE/POD/CONTAINER, NAMESPACE/POD, a pod's uid, a unit with its suffix.
"""

import shlex
from collections.abc import Iterable, Sequence
from typing import TypedDict

from tracer.records.matching import (
    ID_MIN,
    Kind,
    is_pid,
    is_pod_name,
    is_qualified_container_name,
    owner_kinds,
    shown_container,
    shown_pod,
    shown_unit,
    workload_name,
)
from tracer.records.owner import Container, Kubernetes, owner_of
from tracer.records.same_kill import KillRecord

GroupKey = tuple[str | None, ...]
COMM_LEN = 15
_ID_LEN = 64
"""Length of random ids; shorter ids are names (LXC, nspawn), and one name may be the prefix of another."""
_PROJECT = ("com.docker.compose.project", "io.podman.compose.project")
_SERVICE = ("com.docker.compose.service", "io.podman.compose.service")


class Namesake(TypedDict):
    """Another owner with the name that the answer is about."""

    kind: Kind
    name: str
    kills: int
    ask: str
    """The NAME to pass to ``oomtrace why`` for it."""


def kinds_of(kill: KillRecord, name: str, ids: Sequence[str] = ()) -> list[Kind]:
    """The kinds under which the name matches the kill's victim; ``ids``: containers that have the name."""
    container, victim = owner_of(kill).container, kill["victim"]
    found = owner_kinds(name, kill)
    if container is not None and container["id"] in ids and "container" not in found:
        found.insert(0, "container")
    if is_pid(name) and int(name) in (victim["pid"], victim["tid"]):
        found.append("pid")
    names = {victim["comm"]}
    if kill["type"] == "oom_kill":
        program = [kill["victim"]["exe"], *(kill["victim"]["cmdline"] or [])[:1]]
        names |= {text.rpartition("/")[2] for text in program if text}
    if name and (name in names or (len(name) > COMM_LEN and name[:COMM_LEN] in names)):
        found.append("process")
    return found


def is_full(name: str, kill: KillRecord, kind: Kind) -> bool:
    """Whether the name, which matches the kill's victim as this kind, is a full name."""
    owner = owner_of(kill)
    if kind == "container":
        return is_full_container(name, owner.container, owner.kubernetes)
    if kind == "pod":
        return is_full_pod(name, owner.kubernetes)
    return kind == "unit" and owner.systemd is not None and owner.systemd["unit"] == name


def is_full_container(name: str, container: Container | None, kubernetes: Kubernetes | None) -> bool:
    if container is None:
        return False
    is_short = ID_MIN <= len(name) < len(container["id"]) == _ID_LEN and container["id"].startswith(name)
    return name == container["id"] or is_short or is_qualified_container_name(name, kubernetes)


def is_full_pod(name: str, kubernetes: Kubernetes | None) -> bool:
    return kubernetes is not None and is_pod_name(name, kubernetes) and name != kubernetes["pod_name"]


def group_key(kill: KillRecord, kind: Kind, *, inner: bool = False) -> GroupKey:
    """Key of the kills that are counted together; ``inner``: the target is nested in another owner."""
    owner = owner_of(kill)
    if kind in ("pid", "process"):
        return (kind,)
    if inner or kind != "container" or owner.container is None:
        return kind, _shown(kill, kind)
    return container_key(owner.container, owner.kubernetes)


def container_key(container: Container, pod: Kubernetes | None) -> GroupKey:
    """Stable across re-creation, which changes a container's id, a pod's uid, and the name of a Deployment's pod."""
    if pod is not None and pod["pod_name"] is not None:
        return "pod", pod["namespace"], workload_name(pod["pod_name"]), pod["container_name"] or container["name"]
    labels = container["labels"] or {}
    if container["name"] is None:
        return "container", container["id"]
    project, service = (next((labels[each] for each in of if each in labels), None) for of in (_PROJECT, _SERVICE))
    return "container", container["runtime"], container["name"], project, service


def runtime_id(kill: KillRecord, kind: Kind) -> str | None:
    """Container id or pod uid: known even if names are not."""
    container, pod = owner_of(kill).container, owner_of(kill).kubernetes
    if kind == "container":
        return None if container is None else container["id"]
    return pod["pod_uid"] if kind == "pod" and pod is not None else None


def make_namesake(kills: Sequence[KillRecord], name: str, kind: Kind, *, inner: bool = False) -> Namesake:
    """Describe another owner by its kills, oldest first."""
    kill, owner = kills[-1], owner_of(kills[-1])
    shown = name if kind in ("pid", "process") else _shown(kill, kind)
    ask = shown if inner else f"{kind}:{shown}"
    if kind == "container" and not inner and owner.container is not None:
        ask = owner.container["id"][:12]
        pod = owner.kubernetes
        if pod is not None and pod["pod_name"] is not None and pod["container_name"] is not None:
            names = {each["pod_name"] for each in map(_pod, kills) if each is not None}
            place = pod["pod_name"] if len(names) == 1 else workload_name(pod["pod_name"])
            ask = shown = f"{pod['namespace']}/{place}/{pod['container_name']}"
    if ask.startswith("-"):  # not an option
        ask = f"{kind}:{ask}"
    return {"kind": kind, "name": shown, "kills": len(kills), "ask": ask}


def namesakes_sentence(others: Iterable[Namesake]) -> str | None:
    """One line that names the other owners; None: there is none."""
    parts = []
    for each in others:
        often = "running" if not each["kills"] else "once" if each["kills"] == 1 else f"{each['kills']} times"
        parts.append(f"{each['kind']} {each['name']}: {often} (oomtrace why {shlex.quote(each['ask'])})")
    return f"Others with that name, not counted here: {'; '.join(parts)}." if parts else None


def _pod(kill: KillRecord) -> Kubernetes | None:
    return owner_of(kill).kubernetes


def _shown(kill: KillRecord, kind: Kind) -> str:
    shown = {"container": shown_container, "pod": shown_pod, "unit": shown_unit}.get(kind)
    return (shown(kill) if shown is not None else None) or "?"
