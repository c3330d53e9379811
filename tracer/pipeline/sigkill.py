# SPDX-License-Identifier: Apache-2.0
"""SIGKILLs that are not the OOM killer's -> sigkill records: who sent them, and to whom.

Container, pod and unit are still null here; they come from tracer/identity/enrich.py.
"""

from collections import OrderedDict, deque
from typing import NamedTuple

from tracer.base.clock import boottime_ns, boottime_to_rfc3339
from tracer.capture import wire
from tracer.capture.ringbuf_retention import Token, release_all
from tracer.config.options import SigkillOption
from tracer.identity import cgroup_path
from tracer.pipeline.incidents import KILLED
from tracer.pipeline.oom_kill import DELAYED_NS
from tracer.records.model import HOST_PLACEHOLDER, SCHEMA, Sigkill, SigkillSender, Source

HOLD_NS = 1_000_000_000
"""The OOM killer marks its victim right after the signal; so long is waited for the mark where the kernel kills."""
SAME_NS = 10_000_000_000
"""A mark and a SIGKILL that are no further apart are of the same process, even on a host that hardly moves."""
REMEMBERED_MAX = 4096


BuiltSigkill = tuple[Sigkill, tuple[Token, ...]]
"""A record, and what keeps its event in its ring buffer."""


class _Held(NamedTuple):
    deadline_ns: int
    event: wire.SigkillEvent
    tokens: tuple[Token, ...]


class SigkillBuilder:
    """Builds records; ``boot`` names this boot in the ids, ``source`` what saw the kills, ``scope`` whose are told."""

    def __init__(self, source: Source, boot: str, scope: SigkillOption) -> None:
        self._source = source
        self._boot = boot
        self._scope = scope
        self._held: deque[_Held] = deque()
        """Of nobody who was seen: they may turn out to be the OOM killer's."""
        self._marked: wire.VictimEvent | None = None
        """The last one: without a SIGKILL that was seen it is the kernel log that tells a kill from a mark."""
        self._oom_killed: OrderedDict[int, int] = OrderedDict()
        """Pid -> when it was marked, of those that the OOM killer killed last; CLOCK_BOOTTIME."""
        self._previous: OrderedDict[int, int] = OrderedDict()
        """The same of those whose SIGKILL a previous capture saw."""

    def note_oom_event(self, event: wire.Event) -> None:
        """An event of the OOM killer: whom it kills has no sigkill record."""
        match event:
            case wire.VictimEvent():
                self._marked = event
                if not event.flags & wire.VICTIM_MARKED:
                    _remember(self._oom_killed, event.pid or event.tid, event.header.time_ns)
            case wire.LogEvent() if self._marked and event.header.incident_ns == self._marked.header.incident_ns:
                if KILLED in event.text:
                    _remember(self._oom_killed, self._marked.pid or self._marked.tid, self._marked.header.time_ns)
            case wire.SharedMmEvent():
                _remember(self._oom_killed, event.pid, event.header.time_ns)

    def feed(
        self, event: wire.SigkillEvent, now_ns: int, tokens: tuple[Token, ...] = (), *, is_previous: bool = False
    ) -> list[BuiltSigkill]:
        """The record, if there is to be one and it need not wait; one that waits comes out of ``take_due``.

        ``is_previous``: a previous capture has seen it.  What this capture has seen as well has one record.
        """
        if is_previous:
            _remember(self._previous, event.pid, event.header.time_ns)
        elif _is_known(self._previous, event):
            release_all(tokens)
            return []
        if not self._is_in_scope(event):
            release_all(tokens)
            return []
        if event.flags & wire.SIGKILL_FROM_KERNEL:
            self._held.append(_Held(now_ns + HOLD_NS, event, tokens))
            return []
        return [(self._record(event), tokens)]

    def deadline_ns(self) -> int | None:
        """When ``take_due`` has to be called; None: no record waits."""
        return self._held[0].deadline_ns if self._held else None

    def take_due(self, now_ns: int) -> list[BuiltSigkill]:
        """The records that have waited long enough, without those of the OOM killer's victims."""
        built: list[BuiltSigkill] = []
        while self._held and self._held[0].deadline_ns <= now_ns:
            held = self._held.popleft()
            if _is_known(self._oom_killed, held.event):
                release_all(held.tokens)
            else:
                built.append((self._record(held.event), held.tokens))
        return built

    def take_all(self) -> list[BuiltSigkill]:
        """All records that wait: no mark comes any more."""
        return self.take_due(self._held[-1].deadline_ns) if self._held else []

    def _is_in_scope(self, event: wire.SigkillEvent) -> bool:
        if self._scope != "containers":
            return self._scope == "all"
        path = _path(event.cgroup, event.flags & wire.SIGKILL_CGROUP)
        return path is not None and cgroup_path.parse_cgroup_path(path).container is not None

    def _record(self, event: wire.SigkillEvent) -> Sigkill:
        truncated = []
        for flag, name in (
            (wire.SIGKILL_CGROUP_TRUNCATED, "victim.cgroup"),
            (wire.SIGKILL_SENDER_TRUNCATED, "sender.cgroup"),
        ):
            if event.flags & flag:
                truncated.append(name)
        return {
            "schema": SCHEMA,
            "type": "sigkill",
            "id": f"{self._boot}-{event.header.time_ns:x}-{event.pid}",
            "time": boottime_to_rfc3339(event.header.time_ns),
            "seq": 0,
            "host": HOST_PLACEHOLDER,
            "source": self._source,
            "delayed": boottime_ns() - event.header.time_ns > DELAYED_NS,
            "victim": {
                "pid": event.pid,
                "tid": event.tid,
                "comm": wire.decode_text(event.comm),
                "uid": event.uid,
                "cgroup": _path(event.cgroup, event.flags & wire.SIGKILL_CGROUP),
                "is_container_init": event.namespace_level > 0 and event.namespace_pid == 1,
            },
            "sender": None if event.flags & wire.SIGKILL_FROM_KERNEL else _sender(event),
            "from_kernel": None if event.flags & wire.SIGKILL_UNSEEN else bool(event.flags & wire.SIGKILL_FROM_KERNEL),
            "container": None,
            "kubernetes": None,
            "systemd": None,
            "owner": None,
            "truncated": truncated,
        }


def _sender(event: wire.SigkillEvent) -> SigkillSender:
    return {
        "pid": event.sender_pid,
        "tid": event.header.tid,
        "comm": wire.decode_text(event.sender_comm),
        "uid": event.sender_uid,
        "cgroup": _path(event.sender_cgroup, event.flags & wire.SIGKILL_SENDER_CGROUP),
        "container": None,
        "kubernetes": None,
        "systemd": None,
        "owner": None,
    }


def _path(names: bytes, is_known: int) -> str | None:
    return wire.join_path(names) if is_known else None


def _remember(known: OrderedDict[int, int], pid: int, time_ns: int) -> None:
    known[pid] = time_ns
    known.move_to_end(pid)
    if len(known) > REMEMBERED_MAX:
        known.popitem(last=False)


def _is_known(known: OrderedDict[int, int], event: wire.SigkillEvent) -> bool:
    time_ns = known.get(event.pid)
    return time_ns is not None and abs(time_ns - event.header.time_ns) <= SAME_NS
