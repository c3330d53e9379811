# SPDX-License-Identifier: Apache-2.0
"""What a kill was for: whose limit, or what else ran out."""

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
"""``limit_below``: of a cgroup in what is asked for; ``cgroup_limit``: of a known cgroup, and how that relates to what
is asked for is unknown; ``some_limit``: of an unknown memory cgroup; ``host_or_nodes``: no memory cgroup's limit;
``oom``: what ran out is unknown; ``not_oom``: no OOM kill, but whether somebody else sent SIGKILL is unknown."""
OOM: frozenset[Cause] = frozenset(
    {
        *("own_limit", "limit_above", "limit_below", "cgroup_limit", "some_limit"),
        *("host", "nodes", "host_or_nodes", "sysrq", "oom"),
    }
)


def cause_of(kill: KillRecord, kind: Kind, is_inner: bool = False) -> Cause:
    """What the kill was for, seen from what is asked for; ``is_inner``: that is in a container, or a user's."""
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
        return _of_limit(kill, limit["cgroup"], kind, is_inner)
    if scope == "memcg":
        return "some_limit"
    return "host_or_nodes" if is_host_or_nodes(kill) else "oom"


def _of_limit(kill: OomKill, path: str, kind: Kind, is_inner: bool) -> Cause:
    own = kill["victim"]["cgroup"]
    whose, is_top = parse_cgroup_path(path), _is_top(path)
    victims = Identity(kill["container"], kill["kubernetes"], kill["systemd"])
    if not is_inner and kind not in ("pid", "process"):
        whose, victims = owner_of(whose._asdict()), owner_of(kill)
    container, systemd = whose.container, whose.systemd
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
        return "own_limit" if is_top else "limit_below"
    pod, pod_of_limit = victims.kubernetes, whose.kubernetes
    if kind == "pod" and pod is not None and pod_of_limit is not None and pod["pod_uid"] == pod_of_limit["pod_uid"]:
        return "limit_below" if in_container else "own_limit"
    if kind == "unit" and is_units:
        return "own_limit"
    if kind in ("pid", "process") and (path == own or is_units or (in_container and is_top)):
        return "own_limit"
    if own is None:
        # A group kill's other victims: what they are in is known, not where in it.
        known = victims.container is not None or victims.systemd is not None
        return "limit_above" if known and not in_container else "cgroup_limit"
    return "limit_above" if is_below(own, path) else "cgroup_limit"


def _is_top(path: str) -> bool:
    """Whether it is a container's own cgroup, not one below."""
    parent, _, name = path.rstrip("/").rpartition("/")
    if name in CONTAINER_ROOTS:
        return _is_top(parent)
    container, above = parse_cgroup_path(path).container, parse_cgroup_path(parent).container
    return container is not None and (above is None or above["id"] != container["id"])
