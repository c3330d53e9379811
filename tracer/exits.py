# SPDX-License-Identifier: Apache-2.0
"""What became of a victim's container: told a little after the victim's end, when its runtime knows, too."""

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import NamedTuple

from tracer import process
from tracer.event import OomExit, OomKill
from tracer.names import Names

VICTIMS_MAX = 4096
"""Kills whose exits are yet to come."""
SETTLE_NS = 500_000_000
"""A runtime writes down the end of a container within so long; an emulated machine takes longer, and is asked again."""
GIVE_UP_NS = 3_000_000_000


class _Victim(NamedTuple):
    is_init: bool
    init_pid: int
    """Of its PID namespace's init; 0: the host's."""
    init_started_ns: int
    container_id: str | None
    runtime: str | None


class _Waiting(NamedTuple):
    due_ns: int
    last_ns: int
    record: OomExit
    victim: _Victim


class Exits:
    """Completes oom_exit records; times are of any clock that the calls share."""

    def __init__(self, names: Names | None, lives: Callable[[int, int], bool | None] = process.lives) -> None:
        """``lives`` tells whether the process with this pid and start does; None: unknown."""
        self._names = names
        self._lives = lives
        self._victims: OrderedDict[str, _Victim] = OrderedDict()
        self._waiting: deque[_Waiting] = deque()
        """The first one is due first: all wait for the same time."""

    def killed(self, record: OomKill, init_pid: int, init_started_ns: int) -> None:
        """A victim whose exit will come."""
        container = record["container"]
        if container is not None and container["node_container_id"] is not None:
            container = None  # its own runtime is inside of another container
        self._victims[record["id"]] = _Victim(
            bool(record["victim"]["is_container_init"]),
            init_pid,
            init_started_ns,
            container["id"] if container else None,
            container["runtime"] if container else None,
        )
        if len(self._victims) > VICTIMS_MAX:
            self._victims.popitem(last=False)

    def rename(self, old_id: str, kill_id: str) -> None:
        """The exit of this victim, if it is yet to come, will have another id."""
        victim = self._victims.pop(old_id, None)
        if victim is not None:
            self._victims[kill_id] = victim

    def exited(self, record: OomExit, now_ns: int) -> OomExit | None:
        """The record, if nothing more can be learned about it; else it comes out of ``due`` later."""
        victim = self._victims.pop(record["id"], None)
        if victim is None or (victim.init_pid == 0 and victim.container_id is None):
            return record
        self._waiting.append(_Waiting(now_ns + SETTLE_NS, now_ns + GIVE_UP_NS, record, victim))
        return None

    def next_ns(self) -> int | None:
        """When ``due`` has to be called; None: there is no need."""
        return self._waiting[0].due_ns if self._waiting else None

    def due(self, now_ns: int) -> list[OomExit]:
        """The records whose time has come."""
        told = []
        while self._waiting and self._waiting[0].due_ns <= now_ns:
            each = self._waiting.popleft()
            if self._complete(each) or now_ns >= each.last_ns:
                told.append(each.record)
            else:
                self._waiting.append(each._replace(due_ns=now_ns + SETTLE_NS))
        return told

    def end(self) -> list[OomExit]:
        """All records that are left, with what can be had now."""
        left = list(self._waiting)
        self._waiting.clear()
        for each in left:
            self._complete(each)
        return [each.record for each in left]

    def _complete(self, waiting: _Waiting) -> bool:
        """Fill in what can be had; whether that is all."""
        record, victim = waiting.record, waiting.victim
        died: bool | None = victim.is_init or None
        if not died and victim.init_pid:
            lives = self._lives(victim.init_pid, victim.init_started_ns)
            died = None if lives is None else not lives
        record["container_init_died"] = died
        if self._names is None or victim.container_id is None or victim.runtime is None:
            return True
        verdict = self._names.verdict(victim.container_id, victim.runtime)
        if verdict is None:
            return True
        record["runtime_verdict"] = {"oom_killed": verdict["oom_killed"], "exit_code": verdict["exit_code"]}
        return died is False or not verdict["running"]
