# SPDX-License-Identifier: Apache-2.0
"""Evidence -> what became of somebody: killed by whom and for what, or not at all, or not known.

What nobody watched is not known: that no kill is on record means something only for a time in which somebody did.
"""

from collections.abc import Sequence
from typing import Literal, TypedDict

from tracer.records.conclusions import uptime_s
from tracer.records.matching import Kind
from tracer.records.owner import owner_of
from tracer.records.same_kill import KillRecord
from tracer.why import killer
from tracer.why.cause import OOM, Cause, cause_of
from tracer.why.choice import VictimChoice, victim_choice
from tracer.why.coverage import Coverage, coverage_at, covers
from tracer.why.history import History, summarize_history
from tracer.why.killer import KillerKind
from tracer.why.memory import LimitMemory, memory_at_limit
from tracer.why.search import ContainerState, Target, is_inner
from tracer.why.sources import FoundKill
from tracer.why.timestamps import unix_seconds

SIGKILLED = 137
"""128 + SIGKILL."""
_NEAR_S = 30.0
"""A runtime notes the end of a container so soon."""
_SAME_END_S = 5.0
"""What dies so soon after another dies of the same."""
_STOP_S = 120.0
"""So long systemd waits at most, by default and with room, until it kills what is left of a unit."""


class RuntimeStatus(TypedDict):
    """What the container's runtime says, and whether it is right."""

    runtime: str | None
    oom_killed: bool | None
    exit_code: int | None
    running: bool | None
    agrees: bool | None
    """None: it does not say, or nothing is known to compare with."""
    note: Literal["child", "init", "earlier", "unrecorded"] | None
    """Why it says so: the victim was not the container's init, or it was; an earlier kill; a kill without a record."""


class Verdict(TypedDict):
    name: str
    kind: Kind
    cause: Cause
    time: str | None
    """Of the kill or, without one, of the end."""
    uptime_s: float | None
    """Of a kill without a time: since boot, as its log has it."""
    ended: bool | None
    """Whether it is gone, of a container the whole container; None: not on record."""
    exited_after: bool
    """The container's init was not killed: it ended by itself, right after a process in it was."""
    running_now: bool
    exit_code: int | None
    kill: KillRecord | None
    killer: KillerKind | None
    memory: LimitMemory | None
    choice: VictimChoice | None
    """Why the kernel chose this process."""
    runtime: RuntimeStatus | None
    history: History
    earlier: int
    """OOM kills before that end, where it came of something else."""
    oom_since: str | None
    """Since when OOM kills are on record, without a break, of the time that counts; null: they are not."""
    oom_until: str | None
    """Until when; null: until now."""
    sigkill_since: str | None
    sigkill_until: str | None
    missing: int
    """Kills that are known to have no record."""


def judge(
    target: Target,
    kind: Kind,
    found: Sequence[FoundKill],
    coverages: Sequence[Coverage],
    missing: int,
    exit_code: int | None,
    now_s: float,
) -> Verdict:
    """``found``: the kills of what the target names, the earliest first; ``missing``: so many are known to have no
    record; ``exit_code``: what the user knows of it.
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
        verdict["ended"] = _ended(chosen, kind, finished_s)
        if chosen.kill["type"] == "oom_kill":
            verdict["memory"], verdict["choice"] = memory_at_limit(chosen.kill), victim_choice(chosen.kill)
        else:
            verdict["killer"] = killer.killer_kind(chosen.kill)
            verdict["earlier"] = len(oom_kills)
    else:
        verdict["cause"] = _cause_without_kill(state, kind, target, code, finished_s, oom_coverage, sigkill_coverage)
        verdict["ended"] = None if verdict["cause"] == "running" else True
        verdict["earlier"] = len(oom_kills)
    verdict["runtime"] = _runtime(verdict, state, chosen, bool(oom_kills))
    return verdict


def _state_of(target: Target, found: Sequence[FoundKill]) -> ContainerState | None:
    """Of the container that is asked for: of several in the last kill's pod one that runs, or the last that ended."""
    killed_id = _container_id(found[-1]) if found else None
    kubernetes = owner_of(found[-1].kill).kubernetes if found else None
    pod = kubernetes["pod_uid"] if kubernetes is not None else None

    def worth(state: ContainerState) -> tuple[bool, bool, str, bool]:
        is_there = pod is None or state["id"] == killed_id or state["pod_uid"] == pod
        return is_there, state["running"] is True, state["finished_at"] or "", state["id"] == killed_id

    return max(target.states, key=worth, default=None)


def _choose(
    kind: Kind, found: Sequence[FoundKill], state: ContainerState | None, finished_s: float | None, code: int | None
) -> tuple[FoundKill | None, bool]:
    """The kill that is asked for, if there was one, and whether the container ended by itself after it."""
    if state is not None and finished_s is not None:
        own = [each for each in found if _container_id(each) == state["id"]]
        near = [each for each in own if _is_near(each, finished_s, _NEAR_S)]
        ends = [each for each in near if _is_end(each)]
        if ends:
            return _first_cause(ends), False
        near = [each for each in near if each.kill["type"] == "oom_kill"]
        # A log does not tell whether the victim was the container's init: then 137 speaks for that.
        by_itself = bool(near) and (near[-1].kill["victim"]["is_container_init"] is False or code != SIGKILLED)
        return (near[-1] if near else None), by_itself
    if not found:
        return None, False
    last = found[-1]
    if kind in ("pid", "process"):
        return last, False
    within = _SAME_END_S
    if last.kill["type"] == "sigkill" and kind == "unit" and killer.killer_kind(last.kill) == "systemd":
        within = _STOP_S  # OOMPolicy=stop: it ends what the OOM killer has left
    at = _at(last) or 0
    same = [
        each
        for each in found
        if each is last or (_is_near(each, at, within) and _container_id(each) == _container_id(last))
    ]
    chosen = _first_cause([each for each in same if _is_end(each)] or same)
    return chosen, kind in ("container", "pod") and not _is_end(chosen) and _init_died(chosen)


def _container_id(found: FoundKill) -> str | None:
    container = owner_of(found.kill).container
    return None if container is None else container["id"]


def _at(found: FoundKill) -> float | None:
    """In seconds since 1970 or, of a log without dates, since boot: far from all that have dates."""
    moment = unix_seconds(found.kill["time"])
    return uptime_s(found.kill) if moment is None else moment


def _is_near(found: FoundKill, at: float, within: float) -> bool:
    moment = _at(found)
    return moment is not None and abs(moment - at) <= within


def _first_cause(found: Sequence[FoundKill]) -> FoundKill:
    """Runtimes send SIGKILL after the dead: an OOM kill comes before that."""
    return next((each for each in found if each.kill["type"] == "oom_kill"), found[0])


def _is_end(found: FoundKill) -> bool:
    """Whether it killed the container's init, and so the whole container."""
    is_init = found.kill["victim"]["is_container_init"]
    return _init_died(found) if is_init is None else is_init


def _init_died(found: FoundKill) -> bool:
    """Whether that one was gone soon after; it may have ended by itself, as a shell does whose command was killed."""
    return found.exit is not None and found.exit["container_init_died"] is True


def _ended(chosen: FoundKill, kind: Kind, finished_s: float | None) -> bool | None:
    """``finished_s``: of the container for whose end the kill was chosen.  The init may end by a child's death, too."""
    if kind in ("pid", "process") or _is_end(chosen) or _init_died(chosen) or finished_s is not None:
        return True
    return False if chosen.exit is not None and chosen.exit["container_init_died"] is False else None


def _cause_without_kill(
    state: ContainerState | None,
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


def _runtime(
    verdict: Verdict, state: ContainerState | None, chosen: FoundKill | None, any_oom: bool
) -> RuntimeStatus | None:
    """What its files say now; where they are gone, what they said when the victim was."""
    then = chosen.exit["runtime_verdict"] if chosen is not None and chosen.exit is not None else None
    container = owner_of(chosen.kill).container if chosen is not None else None
    says: RuntimeStatus
    if state is not None and (container is None or container["id"] == state["id"]):
        says = {
            "runtime": state["runtime"],
            "oom_killed": state["oom_killed"],
            "exit_code": state["exit_code"],
            "running": state["running"],
            "agrees": None,
            "note": None,
        }
    elif then is not None:
        says = {
            "runtime": container["runtime"] if container is not None else None,
            "oom_killed": then["oom_killed"],
            "exit_code": then["exit_code"],
            "running": None,
            "agrees": None,
            "note": None,
        }
    else:
        return None
    killed = says["oom_killed"]
    if killed is None:
        return says
    if verdict["cause"] in OOM:
        of_init = chosen is not None and _is_end(chosen)
        says["agrees"] = killed
        says["note"] = None if killed and of_init else "init" if of_init else "child"
    elif killed and any_oom:
        says["agrees"], says["note"] = False, "earlier"
    elif killed:
        says["agrees"], says["note"] = False, "unrecorded"
    elif verdict["cause"] in ("sigkill", "exited", "not_oom"):
        says["agrees"] = True
    return says
