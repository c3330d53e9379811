# SPDX-License-Identifier: Apache-2.0
"""Joins events to kills: each victim with its incident, and each exit after its kill.

The kernel runs one OOM killer at a time (oom_lock) and the ring buffer keeps the order, so an incident is complete when
its end is read.  A missing end must not hold its victims back: the next incident, or a timeout, ends it as well.
"""

from collections.abc import Iterator
from typing import NamedTuple

from tracer.capture import brief, wire
from tracer.capture.ringbuf_retention import Token, release_all

QUIET_NS = 100_000_000
"""Without kprobes nothing marks the end of a group kill: it ends after this time without an event."""
END_WAIT_NS = 1_000_000_000
"""With kprobes an end event follows, unless it is lost; on a busy host the trigger may be preempted for long."""

KILLED = b": Killed process"
"""In the kernel's log line of a killed process; a process that was only marked has a line with other words."""


class JoinedKill(NamedTuple):
    """One victim with its incident."""

    victim: wire.VictimEvent
    incident: wire.IncidentEvent | None
    victims: int | None
    shared_mm: tuple[wire.SharedMmEvent, ...]
    memcg_chain: tuple[wire.MemcgCounters, ...]
    log: tuple[bytes, ...]


class Joined(NamedTuple):
    """A complete item, and the tokens of the events that its record needs."""

    item: JoinedKill | wire.ExitEvent | wire.KilledAgainEvent
    tokens: tuple[Token, ...] = ()


class _OpenIncident:
    """The events of an incident that were read so far."""

    def __init__(self, incident_ns: int) -> None:
        self.incident_ns = incident_ns
        self.victims: list[wire.VictimEvent] = []
        self.reported: set[int] = set()
        """Indexes of victims that the kernel log reports as killed, in tracepoint mode."""
        self.shared_mm: dict[int, wire.SharedMmEvent] = {}
        """By pid, as a container decides how many there are."""
        self.memcg_chain: tuple[wire.MemcgCounters, ...] = ()
        self.log: list[bytes] = []
        self.exits: list[Joined] = []
        """Victims that have exited already; their exits come after their kills."""
        self.tokens: list[Token] = []
        """The first token of each ring buffer; it covers the later ones."""
        self.incident: wire.IncidentEvent | None = None
        self.ended = False
        self.updated_ns = 0

    def add(self, event: wire.Event, token: Token | None) -> None:
        if isinstance(event, wire.ExitEvent):
            self.exits.append(Joined(event, _tokens(token)))
        else:
            self._join(event)
            self._keep(token)

    def _keep(self, token: Token | None) -> None:
        if token is None:
            return
        if any(token.is_covered_by(first) for first in self.tokens):
            token.release()
        else:
            self.tokens.append(token)

    def _join(self, event: wire.Event) -> None:
        match event:
            case wire.VictimEvent():
                self.victims.append(event)
            case wire.SharedMmEvent():
                self.shared_mm.setdefault(event.pid, event)
            case wire.MemcgChainEvent():
                self.memcg_chain = event.memcg_chain
            case wire.LogEvent():
                if self.reported:
                    self.log.pop()  # each victim of a group kill has this line: keep one
                self.log.append(event.text)
                if self.victims and KILLED in event.text:
                    self.reported.add(len(self.victims) - 1)
            case wire.IncidentEvent():
                self.incident = event
            case wire.EndEvent():
                self.ended = True

    def finished(self) -> bool:
        """Whether no further event of the incident can follow."""
        if self.ended:
            return True
        if not self.victims:
            return False
        last = self.victims[-1]
        if not _is_complete(last) and (
            len(self.victims) - 1 not in self.reported or (self.incident is None and last.brief is None)
        ):
            return False
        # Without kprobes nothing marks the end: group members and shared_mm processes may follow.
        return not (last.flags & wire.VICTIM_GROUP or last.mm_users > last.threads)

    def timeout_ns(self) -> int | None:
        """How long to wait for the next event; None: without a timeout, as there is no victim yet."""
        if not self.victims:
            return None
        marked_end = self.incident is not None and self.incident.flags & wire.INCIDENT_OC
        marked_end = marked_end or _is_complete(self.victims[-1])
        return END_WAIT_NS if marked_end else QUIET_NS

    def kills(self) -> Iterator[Joined]:
        """The kills, with the tokens; without a kill the tokens are released.  To be called once."""
        killed = [
            victim
            for number, victim in enumerate(self.victims)
            if number in self.reported or not victim.flags & wire.VICTIM_MARKED
        ]
        for token in self.tokens:
            token.add_holders(len(killed) - 1)
        shared_mm: dict[int, list[wire.SharedMmEvent]] = {}
        for process in self.shared_mm.values():
            shared_mm.setdefault(process.victim_pid, []).append(process)
        log, tokens = tuple(self.log), tuple(self.tokens)
        for victim in killed:
            own = tuple(shared_mm.get(victim.pid or victim.tid, ()))
            yield Joined(JoinedKill(victim, self.incident, len(killed), own, self.memcg_chain, log), tokens)


def _is_complete(victim: wire.VictimEvent) -> bool:
    """Whether the victim was sent in brief, with kprobes: no other event of its incident follows."""
    return victim.brief is not None and bool(victim.brief.flags & brief.BRIEF_OC)


def _tokens(token: Token | None) -> tuple[Token, ...]:
    return () if token is None else (token,)


class Incidents:
    """Joins events, which must be fed in the order of the ring buffer.

    Times are of any clock that the calls share.
    """

    def __init__(self) -> None:
        self._open: _OpenIncident | None = None

    @property
    def is_open(self) -> bool:
        """Whether an incident was read in part, with victims or without."""
        return self._open is not None

    def deadline_ns(self) -> int | None:
        """When ``flush`` has to be called; None: no victim waits for the end of its incident."""
        timeout_ns = None if self._open is None else self._open.timeout_ns()
        return None if self._open is None or timeout_ns is None else self._open.updated_ns + timeout_ns

    def feed(self, event: wire.Event, now_ns: int, token: Token | None = None) -> Iterator[Joined]:
        """The items that ``event`` completes; ``token`` keeps it in its ring buffer."""
        incident_ns = event.header.incident_ns
        if isinstance(event, wire.ExitEvent) and (self._open is None or self._open.incident_ns != incident_ns):
            yield Joined(event, _tokens(token))
            return
        if isinstance(event, wire.KilledAgainEvent):
            yield Joined(event, _tokens(token))
            return
        # The begin of the incident was not seen, so nothing can be joined to the victim.
        if isinstance(event, wire.VictimEvent) and incident_ns == event.header.time_ns:
            yield Joined(JoinedKill(event, None, None, (), (), ()), _tokens(token))
            return
        if self._open is not None and self._open.incident_ns != incident_ns:
            yield from self.end()
        if self._open is None:
            if isinstance(event, (wire.SharedMmEvent, wire.EndEvent)):  # too late, or the incident had no victim
                release_all(_tokens(token))
                return
            self._open = _OpenIncident(incident_ns)
        current = self._open
        current.updated_ns = now_ns
        current.add(event, token)
        if current.finished():
            yield from self.end()

    def flush(self, now_ns: int) -> Iterator[Joined]:
        """The kills and exits of an incident whose deadline has passed."""
        deadline_ns = self.deadline_ns()
        if deadline_ns is not None and now_ns >= deadline_ns:
            yield from self.end()

    def end(self) -> Iterator[Joined]:
        """The kills and exits of the open incident, even if it is incomplete."""
        current, self._open = self._open, None
        if current is not None:
            yield from current.kills()
            yield from current.exits
