# SPDX-License-Identifier: Apache-2.0
"""Builds sigkill records of SIGKILLs that the OOM killer did not send: sender and victim.

Container, pod and unit are null here; tracer/pipeline/enrichment.py adds them.
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
"""The OOM killer marks its victim right after the signal: a SIGKILL of the kernel waits this long for the mark."""
SAME_NS = 10_000_000_000
"""A mark and a SIGKILL of the same pid within this time are of the same process, even on an overloaded host."""
REMEMBERED_MAX = 4096
"""Marks and SIGKILLs that are remembered."""


BuiltSigkill = tuple[Sigkill, tuple[Token, ...]]
"""A record, and what keeps its event in its ring buffer."""


class _Held(NamedTuple):
    deadline_ns: int
    event: wire.SigkillEvent
    tokens: tuple[Token, ...]


class SigkillBuilder:
    """Builds records.  ``boot`` names this boot in ids; ``scope``: the option --sigkill."""

    def __init__(self, source: Source, boot: str, scope: SigkillOption) -> None:
        self._source = source
        self._boot = boot
        self._scope = scope
        self._held: deque[_Held] = deque()
        """SIGKILLs without a visible sender: they may be the OOM killer's."""
        self._marked: wire.VictimEvent | None = None
        """The last marked victim: if no SIGKILL was seen, the kernel log shows whether it was killed or only marked."""
        self._oom_killed: OrderedDict[int, int] = OrderedDict()
        """Pid -> time of the mark in CLOCK_BOOTTIME, of the latest OOM victims."""
        self._previous: OrderedDict[int, int] = OrderedDict()
        """The same of processes whose SIGKILL a previous capture saw."""

    def note_oom_event(self, event: wire.Event) -> None:
        """An event of the OOM killer, whose victims have no sigkill record."""
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
        """The record, unless it is out of scope or waits; one that waits comes out of ``take_due``.

        ``is_previous``: the event is of a previous capture.  A SIGKILL that both captures saw has one record.
        """
        if is_previous:
            _remember(self._previous, event.pid, event.header.time_ns)
        elif _is_remembered(self._previous, event):
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
            if _is_remembered(self._oom_killed, held.event):
                release_all(held.tokens)
            else:
                built.append((self._record(held.event), held.tokens))
        return built

    def take_all(self) -> list[BuiltSigkill]:
        """All records that wait, as no mark follows."""
        return self.take_due(self._held[-1].deadline_ns) if self._held else []

    def _is_in_scope(self, event: wire.SigkillEvent) -> bool:
        if self._scope != "containers":
            return self._scope == "all"
        path = _cgroup_path(event.cgroup, event.flags & wire.SIGKILL_CGROUP)
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
                "cgroup": _cgroup_path(event.cgroup, event.flags & wire.SIGKILL_CGROUP),
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
        "cgroup": _cgroup_path(event.sender_cgroup, event.flags & wire.SIGKILL_SENDER_CGROUP),
        "container": None,
        "kubernetes": None,
        "systemd": None,
        "owner": None,
    }


def _cgroup_path(names: bytes, is_known: int) -> str | None:
    return wire.join_path(names) if is_known else None


def _remember(times: OrderedDict[int, int], pid: int, time_ns: int) -> None:
    times[pid] = time_ns
    times.move_to_end(pid)
    if len(times) > REMEMBERED_MAX:
        times.popitem(last=False)


def _is_remembered(times: OrderedDict[int, int], event: wire.SigkillEvent) -> bool:
    time_ns = times.get(event.pid)
    return time_ns is not None and abs(time_ns - event.header.time_ns) <= SAME_NS
