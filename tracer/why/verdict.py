# SPDX-License-Identifier: Apache-2.0
"""Evidence -> verdict: what killed the target, by which limit; that nothing killed it; or that this is unknown.

The absence of a record proves something only for a time in which kills were recorded.
"""

from collections.abc import Sequence
from typing import Literal, TypedDict

from tracer.records.conclusions import uptime_s
from tracer.records.matching import Kind
from tracer.records.owner import owner_of
from tracer.records.same_kill import KillRecord
from tracer.records.unix_time import unix_seconds
from tracer.why import killer
from tracer.why.cause import OOM, Cause, cause_of
from tracer.why.choice import VictimChoice, victim_choice
from tracer.why.coverage import Coverage, coverage_at, covers
from tracer.why.history import History, summarize_history
from tracer.why.killer import KillerKind
from tracer.why.memory import LimitMemory, memory_at_limit
from tracer.why.search import ContainerStatus, Target, is_inner
from tracer.why.sources import FoundKill

SIGKILLED = 137
"""128 + SIGKILL."""
_NEAR_S = 30.0
"""The longest time from a kill to the end of the container that its runtime noted."""
_SAME_END_S = 5.0
"""Kills in one container within this time have one cause."""
_STOP_S = 120.0
"""Upper bound of TimeoutStopSec (default 90 s), after which systemd kills the rest of a unit."""


class RuntimeStatus(TypedDict):
    """Status that the container's runtime reports, and whether it is right."""

    runtime: str | None
    oom_killed: bool | None
    exit_code: int | None
    running: bool | None
    agrees: bool | None
    """None: the runtime reports nothing, or there is nothing to compare with."""
    note: Literal["child", "init", "earlier", "unrecorded"] | None
    """The reason: the victim was not the container's init, or it was; an earlier kill; a kill without a record."""


class Verdict(TypedDict):
    name: str
    kind: Kind
    cause: Cause
    time: str | None
    """Time of the kill or, without one, of the end."""
    uptime_s: float | None
    """Seconds since boot, of a kill in a log without dates."""
    ended: bool | None
    """Whether the target ended (for a container, as a whole); None: not on record."""
    exited_after: bool
    """The container's init was not killed, but exited by itself right after a process in the container was killed."""
    running_now: bool
    exit_code: int | None
    kill: KillRecord | None
    killer: KillerKind | None
    memory: LimitMemory | None
    choice: VictimChoice | None
    """Why the kernel selected this process."""
    runtime: RuntimeStatus | None
    history: History
    earlier: int
    """OOM kills before an end that has another cause."""
    oom_since: str | None
    """Start of the uninterrupted time, around the end, in which OOM kills were recorded; null: none."""
    oom_until: str | None
    """Its end; null: now."""
    sigkill_since: str | None
    sigkill_until: str | None
    missing: int
    """Kills that are counted, but have no record."""


def judge(
    target: Target,
    kind: Kind,
    found: Sequence[FoundKill],
    coverages: Sequence[Coverage],
    missing: int,
    exit_code: int | None,
    now_s: float,
) -> Verdict:
    """Judge what ended the target.

    ``found``: its kills, oldest first; ``missing``: number of kills without a record; ``exit_code``: as given by the
    user; ``now_s``: Unix time.
    """
    state = _state_of(target, found)
    finished_s = unix_seconds(state["finished_at"]) if state is not None and state["running"] is False else None
    code = exit_code if exit_code is not None else state["exit_code"] if state is not None else None
    chosen, exited_after = _choose(kind, found, state, finished_s, code)
    if chosen is not None and state is not None and _container_id(chosen) not in (None, state["id"]):
        state = next((each for each in target.states if each["id"] == _container_id(chosen)), None)
        finished_s, code = None, exit_code if exit_code is not None or state is None else state["exit_code"]
    scopes = ("all", "containers") if kind in ("container", "pod") else ("all",)
    oom_coverage = coverage_at(finished_s, coverages)
    sigkill_coverage = coverage_at(finished_s, [each for each in coverages if each.sigkills in scopes])
    oom_kills = [kill for kill in (each.kill for each in found) if kill["type"] == "oom_kill"]
    verdict: Verdict = {
        "name": target.name,
        "kind": kind,
        "cause": "unknown",
        "time": chosen.kill["time"] if chosen is not None else state["finished_at"] if state is not None else None,
        "uptime_s": None if chosen is None or chosen.kill["time"] is not None else uptime_s(chosen.kill),
        "ended": None,
        "exited_after": exited_after,
        "running_now": kind in target.running,
        "exit_code": code,
        "kill": None if chosen is None else chosen.kill,
        "killer": None,
        "memory": None,
        "choice": None,
        "runtime": None,
        "history": summarize_history(oom_kills, now_s),
        "earlier": 0,
        "oom_since": None if oom_coverage is None else oom_coverage.since,
        "oom_until": None if oom_coverage is None else oom_coverage.until,
        "sigkill_since": None if sigkill_coverage is None else sigkill_coverage.since,
        "sigkill_until": None if sigkill_coverage is None else sigkill_coverage.until,
        "missing": missing,
    }
    if chosen is not None:
        verdict["cause"] = cause_of(chosen.kill, kind, is_inner(chosen.kill, target, kind))
        verdict["ended"] = _has_ended(chosen, kind, finished_s)
        if chosen.kill["type"] == "oom_kill":
            verdict["memory"], verdict["choice"] = memory_at_limit(chosen.kill), victim_choice(chosen.kill)
        else:
            verdict["killer"] = killer.killer_kind(chosen.kill)
            verdict["earlier"] = len(oom_kills)
    else:
        verdict["cause"] = _cause_without_kill(state, kind, target, code, finished_s, oom_coverage, sigkill_coverage)
        verdict["ended"] = None if verdict["cause"] == "running" else True
        verdict["earlier"] = len(oom_kills)
    verdict["runtime"] = _runtime_status(verdict, state, chosen, bool(oom_kills))
    return verdict


def _state_of(target: Target, found: Sequence[FoundKill]) -> ContainerStatus | None:
    """State of the container: if the last kill's pod has several, the one that runs, or the last that ended."""
    killed_id = _container_id(found[-1]) if found else None
    kubernetes = owner_of(found[-1].kill).kubernetes if found else None
    pod = kubernetes["pod_uid"] if kubernetes is not None else None

    def priority(state: ContainerStatus) -> tuple[bool, bool, str, bool]:
        is_in_pod = pod is None or state["id"] == killed_id or state["pod_uid"] == pod
        return is_in_pod, state["running"] is True, state["finished_at"] or "", state["id"] == killed_id

    return max(target.states, key=priority, default=None)


def _choose(
    kind: Kind, found: Sequence[FoundKill], state: ContainerStatus | None, finished_s: float | None, code: int | None
) -> tuple[FoundKill | None, bool]:
    """The kill that the verdict is about, and whether the container exited by itself after it."""
    if state is not None and finished_s is not None:
        return _choose_at_end(found, state["id"], finished_s, code)
    if not found:
        return None, False
    if kind in ("pid", "process"):
        return found[-1], False
    chosen = _choose_latest(kind, found)
    return chosen, kind in ("container", "pod") and not _is_end(chosen) and _init_died(chosen)


def _choose_at_end(
    found: Sequence[FoundKill], container_id: str, finished_s: float, code: int | None
) -> tuple[FoundKill | None, bool]:
    """As ``_choose()``, for a container that ended at ``finished_s`` with this exit code."""
    near = [each for each in found if _container_id(each) == container_id and _is_near(each, finished_s, _NEAR_S)]
    ends = [each for each in near if _is_end(each)]
    if ends:
        return _first_cause(ends), False
    oom_kills = [each for each in near if each.kill["type"] == "oom_kill"]
    if not oom_kills:
        return None, False
    last = oom_kills[-1]
    # A log does not say whether the victim was the container's init: exit code 137 suggests that it was.
    return last, last.kill["victim"]["is_container_init"] is False or code != SIGKILLED


def _choose_latest(kind: Kind, found: Sequence[FoundKill]) -> FoundKill:
    """The cause among the last kill and those shortly before it in the same container."""
    last = found[-1]
    within = _SAME_END_S
    if last.kill["type"] == "sigkill" and kind == "unit" and killer.killer_kind(last.kill) == "systemd":
        within = _STOP_S  # OOMPolicy=stop: systemd ends the rest of the unit
    at = _time_s(last) or 0
    together = [
        each
        for each in found
        if each is last or (_is_near(each, at, within) and _container_id(each) == _container_id(last))
    ]
    return _first_cause([each for each in together if _is_end(each)] or together)


def _container_id(found: FoundKill) -> str | None:
    container = owner_of(found.kill).container
    return None if container is None else container["id"]


def _time_s(found: FoundKill) -> float | None:
    """Unix time or, for a log without dates, uptime in seconds, which is far from any Unix time."""
    moment = unix_seconds(found.kill["time"])
    return uptime_s(found.kill) if moment is None else moment


def _is_near(found: FoundKill, at: float, within: float) -> bool:
    moment = _time_s(found)
    return moment is not None and abs(moment - at) <= within


def _first_cause(found: Sequence[FoundKill]) -> FoundKill:
    """The OOM kill, if there is one: runtimes send SIGKILL after it."""
    return next((each for each in found if each.kill["type"] == "oom_kill"), found[0])


def _is_end(found: FoundKill) -> bool:
    """Whether the kill ended the whole container, because the victim was its init."""
    is_init = found.kill["victim"]["is_container_init"]
    return _init_died(found) if is_init is None else is_init


def _init_died(found: FoundKill) -> bool:
    """Whether the init was gone soon after; it may have exited by itself, like a shell whose command was killed."""
    return found.exit is not None and found.exit["container_init_died"] is True


def _has_ended(chosen: FoundKill, kind: Kind, finished_s: float | None) -> bool | None:
    """``finished_s``: end of the container that the kill was chosen for.  An init may also exit after a child died."""
    if kind in ("pid", "process") or _is_end(chosen) or _init_died(chosen) or finished_s is not None:
        return True
    return False if chosen.exit is not None and chosen.exit["container_init_died"] is False else None


def _cause_without_kill(
    state: ContainerStatus | None,
    kind: Kind,
    target: Target,
    code: int | None,
    finished_s: float | None,
    oom_coverage: Coverage | None,
    sigkill_coverage: Coverage | None,
) -> Cause:
    if kind in target.running and (state is None or state["running"] is not False):
        return "running"
    if code is not None and code != SIGKILLED:
        return "exited"
    if finished_s is None or code is None or not covers(oom_coverage, finished_s):
        return "unknown"
    return "exited" if covers(sigkill_coverage, finished_s) else "not_oom"


def _runtime_status(
    verdict: Verdict, state: ContainerStatus | None, chosen: FoundKill | None, any_oom: bool
) -> RuntimeStatus | None:
    """Status in the runtime's files now or, if they are gone, as recorded when the victim exited."""
    at_exit = chosen.exit["runtime_verdict"] if chosen is not None and chosen.exit is not None else None
    container = owner_of(chosen.kill).container if chosen is not None else None
    status: RuntimeStatus
    if state is not None and (container is None or container["id"] == state["id"]):
        status = {
            "runtime": state["runtime"],
            "oom_killed": state["oom_killed"],
            "exit_code": state["exit_code"],
            "running": state["running"],
            "agrees": None,
            "note": None,
        }
    elif at_exit is not None:
        status = {
            "runtime": container["runtime"] if container is not None else None,
            "oom_killed": at_exit["oom_killed"],
            "exit_code": at_exit["exit_code"],
            "running": None,
            "agrees": None,
            "note": None,
        }
    else:
        return None
    killed = status["oom_killed"]
    if killed is None:
        return status
    if verdict["cause"] in OOM:
        of_init = chosen is not None and _is_end(chosen)
        status["agrees"] = killed
        status["note"] = None if killed and of_init else "init" if of_init else "child"
    elif killed and any_oom:
        status["agrees"], status["note"] = False, "earlier"
    elif killed:
        status["agrees"], status["note"] = False, "unrecorded"
    elif verdict["cause"] in ("sigkill", "exited", "not_oom"):
        status["agrees"] = True
    return status
