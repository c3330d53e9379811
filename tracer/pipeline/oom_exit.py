# SPDX-License-Identifier: Apache-2.0
"""oom_exit records: completed shortly after the exit, when the container's runtime has noted the container's end."""

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
"""Victims without an exit that are remembered."""
VERDICT_DELAY_NS = 500_000_000
"""A runtime notes the end of a container within this time; on an emulated machine later, and is read again."""
VERDICT_TIMEOUT_NS = 3_000_000_000
"""Afterwards the record is written without the runtime's verdict."""
POLL_NS = 20_000_000
"""How often to check whether the runtime's files were read."""
WAITING_MAX = 4096
"""Exits that wait; further ones are written at once, without looking at the container's init and runtime."""
DUE_MAX = 32
COST_FACTOR = 10
"""A container's files are read again after this many times the duration of the last read."""
STOP_TIMEOUT_S = 1.0
"""How long the stop waits for the runtimes' files."""


class _Victim(NamedTuple):
    is_init: bool
    init_pid: int
    """The init of its PID namespace; 0: the host's."""
    init_started_ns: int
    container_id: str | None
    runtime: str | None
    user: int | None
    """Uid of the user whose runtime runs the container; None: the host's."""


_Key = tuple[str, str, int | None]
"""A container: id, runtime, user."""


BuiltExit = tuple[OomExit, tuple[Token, ...]]
"""A record, and what keeps its event in its ring buffer."""


class _Waiting(NamedTuple):
    exited_ns: int
    record: OomExit
    tokens: tuple[Token, ...]
    victim: _Victim


class PendingExits:
    """Completes oom_exit records.  Times are of any clock that the calls share.

    Another thread reads the runtimes' files, at most once in VERDICT_DELAY_NS per container: no other record waits for
    that, however long it takes.
    """

    def __init__(
        self, names: MetadataCache | None, lives: Callable[[int, int], bool | None] = procfs.is_running
    ) -> None:
        """``lives``: whether the process with this pid and start time is alive; None: unknown."""
        self._names = names
        self._lives = lives
        self._victims: OrderedDict[str, _Victim] = OrderedDict()
        self._waiting: list[tuple[int, int, _Waiting]] = []
        """A heap of deadline, order and exit."""
        self._order = itertools.count()
        self._requests: dict[_Key, tuple[int, MetadataRequest]] = {}
        """The latest request per container of a waiting exit, and its time."""

    def add_victim(self, record: OomKill, init_pid: int, init_started_ns: int) -> None:
        """A victim whose exit will follow."""
        container, owner = record["container"], owner_of(record)
        user = user_manager_uid(owner)
        is_known = owner.container is not None or user is not None
        if container is not None and (container["node_container_id"] is not None or not is_known):
            container = None  # its runtime is inside another container, or its owner is unknown
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
        """Give the exit of this victim, if it is yet to come, another id."""
        victim = self._victims.pop(old_id, None)
        if victim is not None:
            self._victims[kill_id] = victim

    def add_exit(self, record: OomExit, now_ns: int, tokens: tuple[Token, ...] = ()) -> list[BuiltExit]:
        """The record if it is complete; otherwise it comes out of ``take_due``."""
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
        self._prune_requests()
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
                _set_verdict(each.record, requests[key].state)
        self._requests.clear()
        return [(each.record, each.tokens) for each in left]

    def _complete(self, waiting: _Waiting, now_ns: int) -> int | None:
        """Complete the record as far as possible; when to try again, or None if it is complete."""
        key = _key(waiting.victim)
        if self._names is None or key is None:
            self._look_at_init(waiting)
            return None
        requested_ns, request = self._requests.get(key, (None, None))
        if request is None or requested_ns is None:
            return self._request(key, now_ns)
        if now_ns >= waiting.exited_ns + VERDICT_TIMEOUT_NS:  # even if the runtime has not answered
            self._look_at_init(waiting)
        if not request.answered.is_set():
            return now_ns + POLL_NS
        if requested_ns >= waiting.exited_ns + VERDICT_DELAY_NS:
            self._look_at_init(waiting)
            _set_verdict(waiting.record, request.state)
            state = request.state
            if state is None or not state["running"] or waiting.record["container_init_died"] is False:
                return None
        again_ns = requested_ns + max(VERDICT_DELAY_NS, int(COST_FACTOR * request.took_s * 1e9))
        return again_ns if again_ns > now_ns else self._request(key, now_ns)

    def _look_at_init(self, waiting: _Waiting) -> None:
        victim = waiting.victim
        died: bool | None = victim.is_init or None
        if not died and victim.init_pid:
            lives = self._lives(victim.init_pid, victim.init_started_ns)
            died = None if lives is None else not lives
        waiting.record["container_init_died"] = died

    def _request(self, key: _Key, now_ns: int) -> int:
        """Request the container's state; returns when to check for it."""
        assert self._names is not None
        self._requests[key] = now_ns, self._names.request_state(*key)
        return now_ns + POLL_NS

    def _prune_requests(self) -> None:
        """Drop the requests for containers without a waiting exit."""
        if len(self._requests) > len(self._waiting):
            waiting = {_key(each.victim) for _, _, each in self._waiting}
            self._requests = {key: request for key, request in self._requests.items() if key in waiting}


def _key(victim: _Victim) -> _Key | None:
    return (victim.container_id, victim.runtime, victim.user) if victim.container_id and victim.runtime else None


def _set_verdict(record: OomExit, state: ContainerState | None) -> None:
    if state is not None:
        record["runtime_verdict"] = {"oom_killed": state["oom_killed"], "exit_code": state["exit_code"]}
