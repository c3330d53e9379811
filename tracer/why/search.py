# SPDX-License-Identifier: Apache-2.0
"""What a user typed -> what it names, and the kills of it, each once."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Literal, NamedTuple, TypedDict

from tracer.identity.cgroup_path import identify
from tracer.identity.runtime_metadata import Facts
from tracer.identity.runtimes import Runtimes
from tracer.linux import cgroupfs, procfs
from tracer.records.conclusions import uptime_s
from tracer.records.matching import (
    ID_MIN,
    is_container,
    is_pod,
    is_unit,
    names_container,
    names_pod,
    names_unit,
    shown_container,
    shown_pod,
    shown_unit,
)
from tracer.records.owner import owner_of
from tracer.records.same_kill import SAME_S, Kill, has_same_id, may_be_same
from tracer.why.moment import seconds, utc
from tracer.why.sources import Found

Kind = Literal["container", "pod", "unit", "pid", "process"]
KINDS: tuple[Kind, ...] = ("container", "pod", "unit", "pid", "process")
"""Where a name is several of these, the first is meant."""
_COMM_LEN = 15
_PID_DIGITS_MAX = 10


class State(TypedDict):
    """What a runtime's files say of a container now."""

    id: str
    runtime: str | None
    name: str | None
    pod_uid: str | None
    running: bool | None
    oom_killed: bool | None
    exit_code: int | None
    finished_at: str | None


class Target(NamedTuple):
    """What is asked for."""

    name: str
    states: tuple[State, ...]
    """Containers of that name, id or pod that the runtimes know."""
    running: tuple[Kind, ...]
    """As what it runs now."""
    inside: tuple[Kind, ...] = ()
    """As what something of that name runs in a container, or is a user's; it counts where nothing else has the name."""


def look_up(name: str, runtimes: Runtimes) -> Target:
    """What the runtimes and /proc say of a name now."""
    states: list[State] = []
    running: set[Kind] = set()
    inside: set[Kind] = set()
    for container_id, runtime in _container_ids(runtimes):
        found = runtimes.find(container_id, runtime, None)
        if _names(name, container_id, found):
            states.append(_state(container_id, found, runtimes))
    for path in cgroupfs.paths():
        whose = identify(path)._asdict()
        for kinds, asked in ((running, name), (inside, f"*/{name}")):
            if kinds is inside and names_container(asked, whose, ID_MIN):
                kinds.add("container")
            if names_pod(asked, whose):
                kinds.add("pod")
            if names_unit(asked, whose):
                kinds.add("unit")
    if any(state["running"] for state in states):
        running.add("container")
    if _is_pid(name) and procfs.read_start_ns(int(name)) is not None:
        running.add("pid")
    if any(_comm(pid) == name[:_COMM_LEN] for pid in procfs.pids()):
        running.add("process")
    return Target(name, tuple(states), _ordered(running), _ordered(inside))


def _ordered(kinds: set[Kind]) -> tuple[Kind, ...]:
    return tuple(kind for kind in KINDS if kind in kinds)


def may_be_of(kill: Kill, target: Target) -> bool:
    """Whether the target names this kill's victim, or what is inside of something else."""
    return kind_of(kill, target) is not None or kind_of(kill, _anywhere(target)) is not None


def _anywhere(target: Target) -> Target:
    return Target(f"*/{target.name}", (), ())


def kind_of(kill: Kill, target: Target) -> Kind | None:
    """As what the target names this kill's victim; None: it is another's."""
    name, container = target.name, owner_of(kill).container
    if container is not None and any(container["id"] == state["id"] for state in target.states):
        return "container"
    if names_container(name, kill, ID_MIN):
        return "container"
    if names_pod(name, kill):
        return "pod"
    if names_unit(name, kill):
        return "unit"
    victim = kill["victim"]
    if _is_pid(name) and int(name) in (victim["pid"], victim["tid"]):
        return "pid"
    names = {victim["comm"]}
    if kill["type"] == "oom_kill":
        program = [kill["victim"]["exe"], *(kill["victim"]["cmdline"] or [])[:1]]
        names |= {text.rpartition("/")[2] for text in program if text}
    return "process" if name and (name in names or (len(name) > _COMM_LEN and name[:_COMM_LEN] in names)) else None


def is_inner(kill: Kill, target: Target, kind: Kind) -> bool:
    """Whether the target, which is of this kind, is in a container of the host's, or a user's: OWNER/NAME."""
    owner = owner_of(kill)
    if "/" not in target.name or kind in ("pid", "process"):
        return False
    if kind == "container":
        return not is_container(target.name, owner.container, owner.kubernetes, ID_MIN)
    return not (is_pod(target.name, owner.kubernetes) if kind == "pod" else is_unit(target.name, owner.systemd))


def given_first(found: list[Found], target: Target, boot_id: str | None) -> tuple[list[Found], Target]:
    """Kills in sources that the user named come alone, with what other sources have of the same kills: a log may be of
    another host, where the same name means something else.

    So do containers; ``boot_id`` is that of this boot, and what runs now counts only for its kills.
    """
    given = defaultdict(list)
    for each in found:
        if each.is_given and may_be_of(each.kill, target):
            given[each.kill["victim"]["tid"]].append(each)
    if not given:
        return found, target
    kept = [
        each
        for each in found
        if each.is_given or any(_is_same(each.kill, one.kill) for one in given[each.kill["victim"]["tid"]])
    ]
    ids = {container["id"] for each in kept if (container := owner_of(each.kill).container) is not None}
    is_here = any(each.kill["host"]["boot_id"] == boot_id for each in kept)
    states = tuple(state for state in target.states if state["id"] in ids)
    if not is_here:
        target = target._replace(running=(), inside=())
    return kept, target._replace(states=states)


def matching(found: list[Found], target: Target) -> tuple[Kind | None, list[Found], Target]:
    """As what the target was found, and its kills, each once, the earliest first; those without a time come before.

    Where nothing of the host's has that name, it is what was killed last inside of something: the target then has its
    name in full, so that nothing is said of one that the host may have had.
    """
    kind, kills = _matching(found, target)
    if kind is not None or target.running:
        return kind or next(iter(target.running)), kills, target
    anywhere = _anywhere(target)
    kind, kills = _matching(found, anywhere)
    if kind is None:
        return next(iter(target.inside), None), [], target._replace(running=target.inside)
    named = _full_name(kills[-1].kill, kind)
    kills = [each for each in kills if _full_name(each.kill, kind) == named]
    return kind, kills, Target(named, (), tuple(each for each in target.inside if each == kind))


def _full_name(kill: Kill, kind: Kind) -> str:
    name = {"container": shown_container, "pod": shown_pod, "unit": shown_unit}[kind](kill)
    assert name is not None
    return name


def _matching(found: list[Found], target: Target) -> tuple[Kind | None, list[Found]]:
    """What the host has of that name comes before what somebody made inside of something, and an id before names."""
    outer: dict[Kind, list[Found]] = {}
    inner: dict[Kind, list[Found]] = {}
    for each in found:
        kind = kind_of(each.kill, target)
        if kind is not None:
            (inner if is_inner(each.kill, target, kind) else outer).setdefault(kind, []).append(each)
    if target.states:
        outer.setdefault("container", [])  # it is meant, though nobody was killed in it
    by_kind = outer if outer or target.running else inner
    for kind in KINDS:
        if kind in by_kind:
            kills = by_kind[kind]
            by_id = [each for each in kills if kind == "container" and _is_id(target.name, each.kill)]
            return kind, _once(by_id or kills)
    return None, []


def _is_id(name: str, kill: Kill) -> bool:
    """Whether a name is the id of its container, or how that begins."""
    container = owner_of(kill).container
    return container is not None and len(name) >= ID_MIN and container["id"].startswith(name)


def _once(found: list[Found]) -> list[Found]:
    """What several sources tell of the same kill: that which tells most, with the breakdown that another has."""
    kept: dict[tuple[str, int], list[Found]] = {}
    for each in sorted(found, key=lambda each: (each.kill["type"] == "oom_kill" and _rank(each), each.exit is None)):
        others = kept.setdefault((each.kill["type"], each.kill["victim"]["tid"]), [])
        twin = next((other for other in others if _is_same(each.kill, other.kill)), None)
        if twin is None:
            others.append(each)
        elif each.kill["type"] == "oom_kill" and twin.kill["type"] == "oom_kill":
            limit, other = twin.kill["limit"], each.kill["limit"]
            if limit is None:
                twin.kill["limit"] = other
            elif other is not None and limit["breakdown"] is None:
                limit["breakdown"] = other["breakdown"]
            if twin.kill["candidates"] is None:
                twin.kill["candidates"] = each.kill["candidates"]
    return sorted((each for others in kept.values() for each in others), key=_moment)


def _moment(found: Found) -> tuple[str, float]:
    """Those without a time come first, as they are since boot."""
    return found.kill["time"] or "", 0.0 if found.kill["time"] is not None else uptime_s(found.kill) or 0.0


def _rank(found: Found) -> int:
    kill = found.kill
    return ("bpf", "bpf_tracepoints", "kernel_log").index(kill["source"])


def _is_same(kill: Kill, other: Kill) -> bool:
    at, other_at = seconds(kill["time"]), seconds(other["time"])
    near = at is not None and other_at is not None and abs(at - other_at) <= SAME_S
    return (near or has_same_id(kill, other)) and may_be_same(kill, other)


def _container_ids(runtimes: Runtimes) -> Iterator[tuple[str, str | None]]:
    """Containers of which there are files or cgroups, each once."""
    seen = set()
    for container_id, runtime in runtimes.known():
        if container_id not in seen:
            seen.add(container_id)
            yield container_id, runtime
    for path in cgroupfs.paths():
        container = owner_of(identify(path)._asdict()).container
        if container is not None and container["id"] not in seen:
            seen.add(container["id"])
            yield container["id"], container["runtime"]


def _names(name: str, container_id: str, found: Facts) -> bool:
    whose = (
        {
            "id": container_id,
            "runtime": found.get("runtime"),
            "name": found.get("name"),
            "image": None,
            "labels": None,
            "node_container_id": None,
            "ip_addresses": None,
        },
        {
            "pod_name": found.get("pod_name"),
            "namespace": found.get("namespace"),
            "pod_uid": found.get("pod_uid"),
            "container_name": found.get("container_name"),
            "qos_class": None,
        },
    )
    return is_container(name, *whose, ID_MIN)  # type: ignore[arg-type]


def _state(container_id: str, found: Facts, runtimes: Runtimes) -> State:
    runtime = found.get("runtime")
    verdict = None if runtime is None else runtimes.verdict(container_id, runtime)
    return {
        "id": container_id,
        "runtime": runtime,
        "name": found.get("name"),
        "pod_uid": found.get("pod_uid"),
        "running": None if verdict is None else verdict["running"],
        "oom_killed": None if verdict is None else verdict["oom_killed"],
        "exit_code": None if verdict is None else verdict["exit_code"],
        "finished_at": None if verdict is None else utc(verdict.get("finished_at")),
    }


def _comm(pid: int) -> str | None:
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return file.read().decode("utf-8", "backslashreplace").removesuffix("\n")
    except OSError:
        return None


def _is_pid(name: str) -> bool:
    return name.isdecimal() and len(name) <= _PID_DIGITS_MAX
