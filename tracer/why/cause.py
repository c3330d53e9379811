# SPDX-License-Identifier: Apache-2.0
"""Cause of a kill: the limit that was hit, or the resource that ran out."""

from typing import Literal

from tracer.identity.cgroup_path import CONTAINER_ROOTS, parse_cgroup_path
from tracer.records.conclusions import is_host_or_nodes
from tracer.records.matching import Kind, is_below
from tracer.records.model import OomKill
from tracer.records.owner import Identity, owner_of
from tracer.records.same_kill import KillRecord

Cause = Literal[
    "own_limit", "limit_above", "limit_below", "cgroup_limit", "some_limit", "host", "nodes", "host_or_nodes", "sysrq",
    "oom", "sigkill", "exited", "not_oom", "running", "unknown",
]  # fmt: skip
"""``limit_above``, ``limit_below``: the limit of a cgroup above or below the target; ``cgroup_limit``: of a known
cgroup whose relation to the target is unknown; ``some_limit``: of an unknown memory cgroup; ``host_or_nodes``: not the
limit of a memory cgroup; ``oom``: what ran out is unknown; ``not_oom``: no OOM kill, other SIGKILLs unknown."""
OOM: frozenset[Cause] = frozenset(
    {
        *("own_limit", "limit_above", "limit_below", "cgroup_limit", "some_limit"),
        *("host", "nodes", "host_or_nodes", "sysrq", "oom"),
    }
)


def cause_of(kill: KillRecord, kind: Kind, is_inner: bool = False) -> Cause:
    """The cause relative to the target of this kind; ``is_inner``: it is nested in a container, or of a user."""
    if kill["type"] == "sigkill":
        return "sigkill"
    scope, limit = kill["incident"]["scope"], kill["limit"]
    if scope == "host":
        return "host"
    if scope == "cpuset" or scope == "mempolicy":
        return "nodes"
    if scope == "sysrq":
        return "sysrq"
    if limit is not None and limit["cgroup"] is not None:
        return _limit_cause(kill, limit["cgroup"], kind, is_inner)
    if scope == "memcg":
        return "some_limit"
    return "host_or_nodes" if is_host_or_nodes(kill) else "oom"


def _limit_cause(kill: OomKill, path: str, kind: Kind, is_inner: bool) -> Cause:
    own = kill["victim"]["cgroup"]
    limit_identity, is_root = parse_cgroup_path(path), _is_container_root(path)
    victims = Identity(kill["container"], kill["kubernetes"], kill["systemd"])
    if not is_inner and kind not in ("pid", "process"):
        limit_identity, victims = owner_of(limit_identity._asdict()), owner_of(kill)
    container, systemd = limit_identity.container, limit_identity.systemd
    in_container = (
        container is not None and victims.container is not None and container["id"] == victims.container["id"]
    )
    is_units = (
        systemd is not None
        and victims.systemd is not None
        and systemd["unit"] is not None
        and systemd["unit"] == victims.systemd["unit"]
        and in_container == (victims.container is not None)
    )
    if kind == "container" and in_container:
        return "own_limit" if is_root else "limit_below"
    pod, pod_of_limit = victims.kubernetes, limit_identity.kubernetes
    if kind == "pod" and pod is not None and pod_of_limit is not None and pod["pod_uid"] == pod_of_limit["pod_uid"]:
        return "limit_below" if in_container else "own_limit"
    if kind == "unit" and is_units:
        return "own_limit"
    if kind in ("pid", "process") and (path == own or is_units or (in_container and is_root)):
        return "own_limit"
    if own is None:
        # Another victim of a group kill: its container or unit is known, its cgroup is not.
        known = victims.container is not None or victims.systemd is not None
        return "limit_above" if known and not in_container else "cgroup_limit"
    return "limit_above" if is_below(own, path) else "cgroup_limit"


def _is_container_root(path: str) -> bool:
    """Whether the path is a container's own cgroup, not a descendant."""
    parent, _, name = path.rstrip("/").rpartition("/")
    if name in CONTAINER_ROOTS:
        return _is_container_root(parent)
    container, above = parse_cgroup_path(path).container, parse_cgroup_path(parent).container
    return container is not None and (above is None or above["id"] != container["id"])
