# SPDX-License-Identifier: Apache-2.0
"""SIGKILLs that are not the OOM killer's -> sigkill records: who sent them, and to whom.

Container, pod and unit are still null here; they come from tracer/identity/enrich.py.
"""

from collections import OrderedDict, deque
from typing import NamedTuple

from tracer.base.clock import boottime_ns, boottime_to_rfc3339
from tracer.capture import wire
from tracer.config.options import SigkillOption
from tracer.identity import cgroup_path
from tracer.pipeline.incidents import KILLED
from tracer.pipeline.oom_kill import DELAYED_NS
from tracer.records.model import HOST_PLACEHOLDER, SCHEMA, Sigkill, SigkillSender, Source

HOLD_NS = 1_000_000_000
"""The OOM killer marks its victim right after the signal; so long is waited for the mark where the kernel kills."""
SAME_NS = 10_000_000_000
"""A mark and a SIGKILL that are no further apart are of the same process, even on a host that hardly moves."""
KNOWN_MAX = 4096


class _Held(NamedTuple):
    due_ns: int
    event: wire.SigkillEvent
    position: int | None


class Sigkills:
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
        self._inherited: OrderedDict[int, int] = OrderedDict()
        """The same of those whose SIGKILL an older capture saw."""

    def note(self, event: wire.Event) -> None:
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

    def feed(self, event: wire.SigkillEvent, position: int | None, now_ns: int) -> list[tuple[Sigkill, int | None]]:
        """The record, if it is to be told, and the event's position in the ring buffer; or it comes out of ``due``.

        Without a position it is an older capture's; what a newer one saw as well is told once.
        """
        if position is None:
            _remember(self._inherited, event.pid, event.header.time_ns)
        elif _is_known(self._inherited, event):
            return []
        if not self._is_wanted(event):
            return []
        if event.flags & wire.SIGKILL_FROM_KERNEL:
            self._held.append(_Held(now_ns + HOLD_NS, event, position))
            return []
        return [(self._record(event), position)]

    def next_ns(self) -> int | None:
        """When ``due`` has to be called; None: there is no need."""
        return self._held[0].due_ns if self._held else None

    def due(self, now_ns: int) -> list[tuple[Sigkill, int | None]]:
        """The records whose time has come, with the positions of their events."""
        told = []
        while self._held and self._held[0].due_ns <= now_ns:
            each = self._held.popleft()
            if not _is_known(self._oom_killed, each.event):
                told.append((self._record(each.event), each.position))
        return told

    def end(self) -> list[tuple[Sigkill, int | None]]:
        """All records that are left: no mark comes any more."""
        return self.due(self._held[-1].due_ns) if self._held else []

    def first_needed(self, cursor: int) -> int:
        """Everything before this position in the ring buffer is told; ``cursor`` is how far was read."""
        return next((held.position for held in self._held if held.position is not None), cursor)

    def _is_wanted(self, event: wire.SigkillEvent) -> bool:
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
    if len(known) > KNOWN_MAX:
        known.popitem(last=False)


def _is_known(known: OrderedDict[int, int], event: wire.SigkillEvent) -> bool:
    time_ns = known.get(event.pid)
    return time_ns is not None and abs(time_ns - event.header.time_ns) <= SAME_NS
