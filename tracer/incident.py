# SPDX-License-Identifier: Apache-2.0
"""Events -> kills: every victim joined to its incident.

The kernel runs one OOM killer at a time (oom_lock), and the ring buffer keeps the order, so an incident is whole when
its end is read.  An end that was lost must not keep its victims: the next incident, or a short silence, ends it, too.
"""

from collections.abc import Iterator
from typing import NamedTuple

from tracer import wire

QUIET_NS = 20_000_000
"""After this long without an event an incident is over, whatever may be missing."""


class Kill(NamedTuple):
    """One victim with all that is known of its incident."""

    victim: wire.VictimEvent
    incident: wire.IncidentEvent | None
    victims: int | None
    sharers: tuple[wire.SharerEvent, ...]
    levels: tuple[wire.Counters, ...]
    log: tuple[bytes, ...]


class _Open:
    """What has been read of an incident so far."""

    def __init__(self, incident_ns: int) -> None:
        self.incident_ns = incident_ns
        self.victims: list[wire.VictimEvent] = []
        self.sharers: list[wire.SharerEvent] = []
        self.levels: tuple[wire.Counters, ...] = ()
        self.log: list[bytes] = []
        self.incident: wire.IncidentEvent | None = None
        self.touched_ns = 0

    def finished(self) -> bool:
        """Whether nothing more can come."""
        if self.incident is None:
            return False
        if self.incident.flags & wire.INCIDENT_OC:
            return True
        # Without kprobes nothing marks the end: members of a group and sharers of the memory may follow.
        last = self.victims[-1] if self.victims else None
        return last is not None and not (last.flags & wire.VICTIM_GROUP or last.mm_users > last.threads)

    def kills(self) -> Iterator[Kill]:
        whole = self.incident is not None
        for victim in self.victims:
            yield Kill(
                victim,
                self.incident,
                len(self.victims) if whole else None,
                tuple(sharer for sharer in self.sharers if sharer.victim_pid == victim.pid),
                self.levels,
                tuple(self.log),
            )


class Incidents:
    """Joins events; feed them in the order of the ring buffer."""

    def __init__(self) -> None:
        self._open: _Open | None = None

    def pending(self) -> bool:
        """Whether ``flush`` has to be called after a silence of QUIET_NS."""
        return self._open is not None

    def feed(self, event: wire.Event, now_ns: int) -> Iterator[Kill]:
        """The kills that ``event`` completes; ``now_ns`` is any clock that ``flush`` shares."""
        incident_ns = event.header.incident_ns
        # The beginning of its incident was not seen, so nothing can be joined to it.
        if isinstance(event, wire.VictimEvent) and incident_ns == event.header.time_ns:
            yield Kill(event, None, None, (), (), ())
            return
        if self._open is not None and self._open.incident_ns != incident_ns:
            yield from self.end()
        if self._open is None:
            if isinstance(event, wire.SharerEvent):  # too late: its victim's record is written
                return
            self._open = _Open(incident_ns)
        current = self._open
        current.touched_ns = now_ns
        match event:
            case wire.VictimEvent():
                current.victims.append(event)
            case wire.SharerEvent():
                if all(sharer.pid != event.pid for sharer in current.sharers):
                    current.sharers.append(event)
            case wire.LevelsEvent():
                current.levels = event.levels
            case wire.LogEvent():
                current.log.append(event.text)
            case wire.IncidentEvent():
                current.incident = event
        if current.finished():
            yield from self.end()

    def flush(self, now_ns: int) -> Iterator[Kill]:
        """The kills of an incident that has been silent for QUIET_NS."""
        if self._open is not None and now_ns - self._open.touched_ns >= QUIET_NS:
            yield from self.end()

    def end(self) -> Iterator[Kill]:
        """The kills of the open incident, whatever it lacks."""
        current, self._open = self._open, None
        if current is not None:
            yield from current.kills()
