# SPDX-License-Identifier: Apache-2.0
"""The NAME that a user typed -> the container, pod, unit or process it refers to, and its kills without duplicates."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypedDict

from tracer.identity.cgroup_path import parse_cgroup_path
from tracer.identity.runtime_metadata import ContainerMetadata
from tracer.identity.runtimes import Runtimes
from tracer.linux import cgroupfs, procfs
from tracer.records.conclusions import uptime_s
from tracer.records.matching import (
    ID_MIN,
    KINDS,
    Kind,
    is_container_name,
    is_pid,
    is_pod_name,
    is_unit_name,
    owner_kinds,
    shown_container,
    shown_pod,
    shown_unit,
    split_kind,
)
from tracer.records.owner import Container, Kubernetes, owner_of
from tracer.records.same_kill import CLOCK_TOLERANCE_S, KillRecord, has_same_id, may_be_same_kill
from tracer.records.unix_time import unix_seconds
from tracer.why import grouping
from tracer.why.grouping import Namesake
from tracer.why.sources import FoundKill
from tracer.why.timestamps import to_rfc3339


class _ContainerStatus(TypedDict):
    id: str
    runtime: str | None
    name: str | None
    pod_uid: str | None
    running: bool | None
    oom_killed: bool | None
    exit_code: int | None
    finished_at: str | None


class ContainerStatus(_ContainerStatus, total=False):
    """State of a container, read from its runtime's files."""

    key: grouping.GroupKey
    """Group that its kills are counted in."""
    full: bool
    """Whether the target name is the full name of the container."""


class Target(NamedTuple):
    """What NAME refers to."""

    name: str
    states: tuple[ContainerStatus, ...]
    """Containers with this name or id, or in this pod, that the runtimes know."""
    running: tuple[Kind, ...]
    """Kinds under which it is running."""
    inside: tuple[Kind, ...] = ()
    """Kinds of nested owners with this name: in a container, or of a user.  They count only if none other matches."""
    kind: Kind | None = None
    """The KIND of KIND:NAME."""
    full: tuple[Kind, ...] = ()
    """Kinds of which it is the full name of something running."""
    others: tuple[Namesake, ...] = ()
    """Other owners with the same name."""

    @property
    def ids(self) -> list[str]:
        return [state["id"] for state in self.states]


def find_target(text: str, runtimes: Runtimes) -> Target:
    """Look up NAME or KIND:NAME among running cgroups and processes and in the runtimes' files."""
    name, only = split_kind(text)
    states: list[ContainerStatus] = []
    running: set[Kind] = set()
    inside: set[Kind] = set()
    full: set[Kind] = set()
    for container_id, runtime in _container_ids(runtimes) if only in (None, "container") else ():
        found = runtimes.fetch_metadata(container_id, runtime, None)
        state = _find_state(name, container_id, found, runtimes)
        if state is not None:
            states.append(state)
    for path in cgroupfs.list_cgroups():
        identity = parse_cgroup_path(path)._asdict()
        running |= set(owner_kinds(name, identity)) - {"container"}  # that comes from the runtime's files
        inside |= set(owner_kinds(f"*/{name}", identity))
        owner = owner_of(identity)
        full |= {"pod"} if grouping.is_full_pod(name, owner.kubernetes) else set()
        full |= {"unit"} if owner.systemd is not None and owner.systemd["unit"] == name else set()
    if any(state["full"] for state in states):
        full.add("container")
    asked_kinds = set(KINDS) if only is None else {only}
    full &= asked_kinds
    if full:  # a container's user cannot choose a full name: it takes precedence
        states = [state for state in states if state["full"]]
        running &= full
    if any(state["running"] for state in states):
        running.add("container")
    if not full and is_pid(name) and procfs.read_start_ns(int(name)) is not None:
        running.add("pid")
    if not full and any(_read_comm(pid) == name[: grouping.COMM_LEN] for pid in procfs.list_pids()):
        running.add("process")
    running, inside = running & asked_kinds, inside & asked_kinds
    return Target(name, tuple(states), _ordered(running), _ordered(inside), only, _ordered(full))


def _ordered(kinds: set[Kind]) -> tuple[Kind, ...]:
    return tuple(kind for kind in KINDS if kind in kinds)


def may_match(kill: KillRecord, target: Target) -> bool:
    """Whether the kill's victim has the target's name, as an owner or nested inside one."""
    return first_kind(kill, target) is not None or first_kind(kill, _nested(target)) is not None


def _nested(target: Target) -> Target:
    return Target(f"*/{target.name}", (), (), kind=target.kind)


def first_kind(kill: KillRecord, target: Target) -> Kind | None:
    """The first kind under which the target matches the kill's victim; None: no match."""
    return next(iter(_kinds_of(kill, target)), None)


def _kinds_of(kill: KillRecord, target: Target) -> list[Kind]:
    kinds = grouping.kinds_of(kill, target.name, target.ids)
    return [kind for kind in kinds if target.kind in (None, kind)]


def is_inner(kill: KillRecord, target: Target, kind: Kind) -> bool:
    """Whether the target of this kind is OWNER/NAME: nested in a container, or of a user."""
    owner = owner_of(kill)
    if "/" not in target.name or kind in ("pid", "process"):
        return False
    if kind == "container":
        return not is_container_name(target.name, owner.container, owner.kubernetes, ID_MIN)
    return not (
        is_pod_name(target.name, owner.kubernetes) if kind == "pod" else is_unit_name(target.name, owner.systemd)
    )


def prefer_given_sources(found: list[FoundKill], target: Target, boot_id: str | None) -> tuple[list[FoundKill], Target]:
    """If sources given on the command line have matching kills, drop all other kills and their containers.

    A log may come from another host, where the same name means something else.  Records of the same kills in other
    sources are kept.  What is running now counts only if one of the kills is of the boot ``boot_id``, this one.
    """
    given = defaultdict(list)
    for each in found:
        if each.is_given and may_match(each.kill, target):
            given[each.kill["victim"]["tid"]].append(each)
    if not given:
        return found, target
    kept = [
        each
        for each in found
        if each.is_given or any(_is_same_kill(each.kill, one.kill) for one in given[each.kill["victim"]["tid"]])
    ]
    ids = {container["id"] for each in kept if (container := owner_of(each.kill).container) is not None}
    is_here = any(each.kill["host"]["boot_id"] == boot_id for each in kept)
    states = tuple(state for state in target.states if state["id"] in ids)
    if not is_here:
        target = target._replace(running=(), inside=())
    return kept, target._replace(states=states)


def select_kills(found: list[FoundKill], target: Target) -> tuple[Kind | None, list[FoundKill], Target]:
    """The kind that the target matches, its kills without duplicates in order of time (undated ones first), the target.

    Of several owners with the name, the one with the newest kill is selected; the target lists the others.  If the host
    has no such owner, the nested one that was killed last is selected.  The target then gets its full name, because the
    bare name may have been one of the host's.
    """
    kind, kills, chosen = _select(found, target)
    if kind is not None:
        return kind, kills, chosen
    if target.running:
        kind = target.running[0]
        return kind, [], target._replace(others=tuple(_running_others(target, kind, [], ())))
    anywhere = _nested(target)
    kind, kills, chosen = _select(found, anywhere)
    if kind is None:
        return next(iter(target.inside), None), [], target._replace(running=target.inside)
    named = _display_name(kills[-1].kill, kind)
    inside = tuple(each for each in target.inside if each == kind)
    return kind, kills, Target(named, (), inside, others=chosen.others)


def _display_name(kill: KillRecord, kind: Kind) -> str:
    name = {"container": shown_container, "pod": shown_pod, "unit": shown_unit}[kind](kill)
    assert name is not None
    return name


class _Group(NamedTuple):
    """Kills that are counted together."""

    kind: Kind
    key: grouping.GroupKey
    is_inner: bool
    kills: list[FoundKill]


def _select(found: list[FoundKill], target: Target) -> tuple[Kind | None, list[FoundKill], Target]:
    """``select_kills()`` for one form of the name.  Full names precede others, and outer owners precede nested ones."""
    kinds = [(each, kind) for each in _deduplicate(found, target) for kind in _kinds_of(each.kill, target)]
    outer = [(each, kind) for each, kind in kinds if not is_inner(each.kill, target, kind)]
    full = [(each, kind) for each, kind in outer if grouping.is_full(target.name, each.kill, kind)]
    if full or target.full:
        target = target if target.full else target._replace(states=(), running=())
        outer = full
    has_outer = bool(outer or target.running or target.states)
    groups = _group_kills(outer if has_outer else kinds, is_inner=not has_outer)
    present = {group.kind for group in groups} | ({"container"} if target.states else set())
    kind = next((kind for kind in KINDS if kind in present), None)
    if kind is None:
        return None, [], target
    newest = max(
        (group for group in groups if group.kind == kind), key=lambda group: _sort_key(group.kills[-1]), default=None
    )
    kills = newest.kills if newest is not None else []
    own, rest = _split_states(target.states, newest) if kind == "container" else ((), target.states)
    others = [*_namesakes_with_kills(groups, newest, target), *_running_others(target, kind, groups, rest)]
    return kind, kills, target._replace(states=own, others=tuple(others))


def _group_kills(kinds: list[tuple[FoundKill, Kind]], is_inner: bool) -> list[_Group]:
    """Group kills; one that has only an id, as in a kernel log, joins the group in which this id has a name."""
    keyed = [
        (
            each,
            kind,
            grouping.group_key(each.kill, kind, inner=is_inner),
            None if is_inner else grouping.runtime_id(each.kill, kind),
        )
        for each, kind in kinds
    ]
    named: dict[tuple[Kind, str | None], grouping.GroupKey] = {
        (kind, of): key for _, kind, key, of in keyed if of is not None and of not in key
    }
    groups: dict[grouping.GroupKey, _Group] = {}
    for each, kind, key, of in keyed:
        key_of_all = named.get((kind, of), key)
        groups.setdefault(key_of_all, _Group(kind, key_of_all, is_inner, [])).kills.append(each)
    return list(groups.values())


def _split_states(
    states: tuple[ContainerStatus, ...], group: _Group | None
) -> tuple[tuple[ContainerStatus, ...], tuple[ContainerStatus, ...]]:
    """The states of the group and the rest; without a group, of the container that runs or ended last and the rest."""
    if group is None:
        last = max(states, key=lambda state: (state["running"] is True, state["finished_at"] or ""))
        own = [state for state in states if state is last or state.get("key") == last.get("key", "none")]
    else:
        ids = {grouping.runtime_id(each.kill, "container") for each in group.kills}
        pods = {grouping.runtime_id(each.kill, "pod") for each in group.kills} - {None}
        own = [
            state
            for state in states
            if state["id"] in ids or state["pod_uid"] in pods or state.get("key", group.key) == group.key
        ]
    return tuple(own), tuple(state for state in states if state not in own)


def _namesakes_with_kills(groups: Iterable[_Group], chosen: _Group | None, target: Target) -> Iterator[Namesake]:
    """Other owners that kills of the same name belong to; process names do not identify an owner."""
    counted = {id(each) for each in chosen.kills} if chosen is not None else set()
    for group in groups:
        is_owner = group.kind not in ("pid", "process")
        if is_owner and group is not chosen and not {id(each) for each in group.kills} <= counted:
            yield grouping.make_namesake(
                [each.kill for each in group.kills], target.name, group.kind, inner=group.is_inner
            )


def _running_others(
    target: Target, kind: Kind, groups: list[_Group], states: Iterable[ContainerStatus]
) -> Iterator[Namesake]:
    """Running owners of that name without a kill on record."""
    keys = {group.key for group in groups}
    ids = {grouping.runtime_id(each.kill, "container") for group in groups for each in group.kills}
    for state in states:
        if state["id"] not in ids and state.get("key") not in keys and state["running"]:
            name = state["name"] or target.name
            yield {"kind": "container", "name": name, "kills": 0, "ask": state["id"][:12]}
    for each in target.running:
        if each in ("pod", "unit") and each != kind and not any(group.kind == each for group in groups):
            yield {"kind": each, "name": target.name, "kills": 0, "ask": f"{each}:{target.name}"}


def _deduplicate(found: list[FoundKill], target: Target) -> list[FoundKill]:
    """Merge records of the same kill: the most detailed one, with limit and candidates from others if it has none."""
    kept: dict[tuple[str, int], list[FoundKill]] = {}
    matching = (each for each in found if _kinds_of(each.kill, target))
    for each in sorted(matching, key=lambda each: (each.kill["type"] == "oom_kill" and _rank(each), each.exit is None)):
        others = kept.setdefault((each.kill["type"], each.kill["victim"]["tid"]), [])
        best = next((other for other in others if _is_same_kill(each.kill, other.kill)), None)
        if best is None:
            others.append(each)
        elif each.kill["type"] == "oom_kill" and best.kill["type"] == "oom_kill":
            limit, other = best.kill["limit"], each.kill["limit"]
            if limit is None:
                best.kill["limit"] = other
            elif other is not None and limit["breakdown"] is None:
                limit["breakdown"] = other["breakdown"]
            if best.kill["candidates"] is None:
                best.kill["candidates"] = each.kill["candidates"]
    return sorted((each for others in kept.values() for each in others), key=_sort_key)


def _sort_key(found: FoundKill) -> tuple[str, float]:
    """Sort key: undated kills first, by uptime."""
    return found.kill["time"] or "", 0.0 if found.kill["time"] is not None else uptime_s(found.kill) or 0.0


def _rank(found: FoundKill) -> int:
    kill = found.kill
    return ("bpf", "bpf_tracepoints", "kernel_log").index(kill["source"])


def _is_same_kill(kill: KillRecord, other: KillRecord) -> bool:
    at, other_at = unix_seconds(kill["time"]), unix_seconds(other["time"])
    near = at is not None and other_at is not None and abs(at - other_at) <= CLOCK_TOLERANCE_S
    return (near or has_same_id(kill, other)) and may_be_same_kill(kill, other)


def _container_ids(runtimes: Runtimes) -> Iterator[tuple[str, str | None]]:
    """Ids and runtimes of all containers that have metadata files or a cgroup."""
    seen = set()
    for container_id, runtime in runtimes.list_containers():
        if container_id not in seen:
            seen.add(container_id)
            yield container_id, runtime
    for path in cgroupfs.list_cgroups():
        container = owner_of(parse_cgroup_path(path)._asdict()).container
        if container is not None and container["id"] not in seen:
            seen.add(container["id"])
            yield container["id"], container["runtime"]


def _find_state(name: str, container_id: str, found: ContainerMetadata, runtimes: Runtimes) -> ContainerStatus | None:
    """State of a container; None if it does not have the name."""
    container: Container = {
        "id": container_id,
        "runtime": found.get("runtime"),
        "name": found.get("name"),
        "image": None,
        "labels": found.get("labels"),
        "node_container_id": None,
        "ip_addresses": None,
    }
    pod: Kubernetes = {
        "pod_name": found.get("pod_name"),
        "namespace": found.get("namespace"),
        "pod_uid": found.get("pod_uid"),
        "container_name": found.get("container_name"),
        "qos_class": None,
    }
    if not is_container_name(name, container, pod, ID_MIN):
        return None
    state = _state(container_id, found, runtimes)
    in_pod = pod if container["runtime"] != "docker" else None  # as in records: the cgroup path shows no pod
    state["key"] = grouping.container_key(container, in_pod)
    state["full"] = grouping.is_full_container(name, container, in_pod)
    return state


def _state(container_id: str, found: ContainerMetadata, runtimes: Runtimes) -> ContainerStatus:
    runtime = found.get("runtime")
    verdict = None if runtime is None else runtimes.fetch_state(container_id, runtime)
    return {
        "id": container_id,
        "runtime": runtime,
        "name": found.get("name"),
        "pod_uid": found.get("pod_uid"),
        "running": None if verdict is None else verdict["running"],
        "oom_killed": None if verdict is None else verdict["oom_killed"],
        "exit_code": None if verdict is None else verdict["exit_code"],
        "finished_at": None if verdict is None else to_rfc3339(verdict.get("finished_at")),
    }


def _read_comm(pid: int) -> str | None:
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return file.read().decode("utf-8", "backslashreplace").removesuffix("\n")
    except OSError:
        return None
