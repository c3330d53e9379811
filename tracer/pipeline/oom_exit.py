# SPDX-License-Identifier: Apache-2.0
"""What became of a victim's container: told a little after the victim's end, when its runtime knows, too."""

import heapq
import itertools
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from tracer.capture.ringbuf_retention import Token
from tracer.identity.metadata_cache import MetadataCache, MetadataRequest
from tracer.identity.runtime_metadata import ContainerState
from tracer.linux import procfs
from tracer.records.model import OomExit, OomKill
from tracer.records.owner import owner_of, user_manager_uid

VICTIMS_MAX = 4096
"""Kills whose exits are yet to come."""
VERDICT_DELAY_NS = 500_000_000
"""A runtime writes down the end of a container within so long; an emulated machine takes longer, and is asked again."""
VERDICT_TIMEOUT_NS = 3_000_000_000
POLL_NS = 20_000_000
"""How soon it is looked whether the runtime's files were read."""
WAITING_MAX = 4096
"""Exits that wait; beyond, one is told as it is: neither the container's init nor its runtime is asked."""
DUE_MAX = 32
COST_FACTOR = 10
"""A container is asked about again after so many times as long as reading its files took."""
STOP_TIMEOUT_S = 1.0
"""How long the end waits for the runtimes' files."""


class _Victim(NamedTuple):
    is_init: bool
    init_pid: int
    """Of its PID namespace's init; 0: the host's."""
    init_started_ns: int
    container_id: str | None
    runtime: str | None
    user: int | None
    """Whose container it is; None: the host's."""


_Key = tuple[str, str, int | None]
"""A container: its id, its runtime, its user."""


BuiltExit = tuple[OomExit, tuple[Token, ...]]
"""A record, and what keeps its event in its ring buffer."""


class _Waiting(NamedTuple):
    exited_ns: int
    record: OomExit
    tokens: tuple[Token, ...]
    victim: _Victim


class PendingExits:
    """Completes oom_exit records; times are of any clock that the calls share.

    Another thread reads the runtimes' files, at most once in VERDICT_DELAY_NS per container: no other record waits for
    that, however long it takes.
    """

    def __init__(
        self, names: MetadataCache | None, lives: Callable[[int, int], bool | None] = procfs.is_running
    ) -> None:
        """``lives`` tells whether the process with this pid and start does; None: unknown."""
        self._names = names
        self._lives = lives
        self._victims: OrderedDict[str, _Victim] = OrderedDict()
        self._waiting: list[tuple[int, int, _Waiting]] = []
        """When each is due, their order, and what waits: a heap."""
        self._order = itertools.count()
        self._requests: dict[_Key, tuple[int, MetadataRequest]] = {}
        """When the containers of those that wait were asked about last."""

    def add_victim(self, record: OomKill, init_pid: int, init_started_ns: int) -> None:
        """A victim whose exit will come."""
        container, owner = record["container"], owner_of(record)
        user = user_manager_uid(owner)
        is_known = owner.container is not None or user is not None
        if container is not None and (container["node_container_id"] is not None or not is_known):
            container = None  # its own runtime is inside of another container, or nobody knows whose it is
        self._victims[record["id"]] = _Victim(
            bool(record["victim"]["is_container_init"]),
            init_pid,
            init_started_ns,
            container["id"] if container else None,
            container["runtime"] if container else None,
            user,
        )
        if len(self._victims) > VICTIMS_MAX:
            self._victims.popitem(last=False)

    def rename_victim(self, old_id: str, kill_id: str) -> None:
        """The exit of this victim, if it is yet to come, will have another id."""
        victim = self._victims.pop(old_id, None)
        if victim is not None:
            self._victims[kill_id] = victim

    def add_exit(self, record: OomExit, now_ns: int, tokens: tuple[Token, ...] = ()) -> list[BuiltExit]:
        """The record, if nothing more can be learned about it; one that waits comes out of ``take_due``."""
        victim = self._victims.pop(record["id"], None)
        if victim is None or (victim.init_pid == 0 and victim.container_id is None):
            return [(record, tokens)]
        if len(self._waiting) >= WAITING_MAX:
            return [(record, tokens)]
        self._wait(_Waiting(now_ns, record, tokens, victim), now_ns + VERDICT_DELAY_NS)
        return []

    def _wait(self, waiting: _Waiting, until_ns: int) -> None:
        heapq.heappush(self._waiting, (until_ns, next(self._order), waiting))

    def deadline_ns(self) -> int | None:
        """When ``take_due`` has to be called; None: no record waits."""
        return self._waiting[0][0] if self._waiting else None

    def take_due(self, now_ns: int) -> list[BuiltExit]:
        """The records that have waited long enough, DUE_MAX at most: kills must not wait for them."""
        built: list[BuiltExit] = []
        while self._waiting and self._waiting[0][0] <= now_ns and len(built) < DUE_MAX:
            each = heapq.heappop(self._waiting)[2]
            again_ns = self._complete(each, now_ns)
            if again_ns is None or now_ns >= each.exited_ns + VERDICT_TIMEOUT_NS:
                built.append((each.record, each.tokens))
            else:
                self._wait(each, min(again_ns, each.exited_ns + VERDICT_TIMEOUT_NS))
        self._forget()
        return built

    def take_all(self) -> list[BuiltExit]:
        """All records that wait, with what is known now."""
        left = [waiting for _, _, waiting in sorted(self._waiting, key=lambda each: each[:2])]
        self._waiting.clear()
        keys = {key for each in left if (key := _key(each.victim))}
        requests = {key: self._names.request_state(*key) for key in keys} if self._names is not None else {}
        until_s = time.monotonic() + STOP_TIMEOUT_S
        for request in requests.values():
            request.answered.wait(max(0.0, until_s - time.monotonic()))
        for each in left:
            self._look_at_init(each)
            key = _key(each.victim)
            if key in requests:
                _put(each.record, requests[key].state)
        self._requests.clear()
        return [(each.record, each.tokens) for each in left]

    def _complete(self, waiting: _Waiting, now_ns: int) -> int | None:
        """Fill in what can be had; when to look again, or None if that is all."""
        key = _key(waiting.victim)
        if self._names is None or key is None:
            self._look_at_init(waiting)
            return None
        requested_ns, request = self._requests.get(key, (None, None))
        if request is None or requested_ns is None:
            return self._ask(key, now_ns)
        if now_ns >= waiting.exited_ns + VERDICT_TIMEOUT_NS:  # whatever the runtime says
            self._look_at_init(waiting)
        if not request.answered.is_set():
            return now_ns + POLL_NS
        if requested_ns >= waiting.exited_ns + VERDICT_DELAY_NS:
            self._look_at_init(waiting)
            _put(waiting.record, request.state)
            verdict = request.state
            if verdict is None or not verdict["running"] or waiting.record["container_init_died"] is False:
                return None
        again_ns = requested_ns + max(VERDICT_DELAY_NS, int(COST_FACTOR * request.took_s * 1e9))
        return again_ns if again_ns > now_ns else self._ask(key, now_ns)

    def _look_at_init(self, waiting: _Waiting) -> None:
        victim = waiting.victim
        died: bool | None = victim.is_init or None
        if not died and victim.init_pid:
            lives = self._lives(victim.init_pid, victim.init_started_ns)
            died = None if lives is None else not lives
        waiting.record["container_init_died"] = died

    def _ask(self, key: _Key, now_ns: int) -> int:
        """Ask about a container; when to look for the answer."""
        assert self._names is not None
        self._requests[key] = now_ns, self._names.request_state(*key)
        return now_ns + POLL_NS

    def _forget(self) -> None:
        """What was asked about containers of which no exit waits any more."""
        if len(self._requests) > len(self._waiting):
            wanted = {_key(each.victim) for _, _, each in self._waiting}
            self._requests = {key: asked for key, asked in self._requests.items() if key in wanted}


def _key(victim: _Victim) -> _Key | None:
    return (victim.container_id, victim.runtime, victim.user) if victim.container_id and victim.runtime else None


def _put(record: OomExit, verdict: ContainerState | None) -> None:
    if verdict is not None:
        record["runtime_verdict"] = {"oom_killed": verdict["oom_killed"], "exit_code": verdict["exit_code"]}
