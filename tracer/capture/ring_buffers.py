# SPDX-License-Identifier: Apache-2.0
"""A capture's ring buffers and counters: events, losses, and the release of events."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from tracer.base.clock import boottime_ns
from tracer.capture import wire
from tracer.capture.kill_buffers import Event, KillRings, ReadEvent, decode_or_error
from tracer.capture.programs import (
    COUNTER_CGROUPS_LOST,
    COUNTER_LOSSLESS_UNTIL_NS,
    COUNTER_LOST,
    COUNTER_LOST_REPORTED,
    COUNTER_SIGKILLS_LOST,
    COUNTER_SIGKILLS_LOST_REPORTED,
    ProgramCounters,
    open_ring,
)
from tracer.capture.ringbuf_retention import RetainedRing

_LOSSES = {
    "ring_buffer": (COUNTER_LOST, COUNTER_LOST_REPORTED),
    "sigkill": (COUNTER_SIGKILLS_LOST, COUNTER_SIGKILLS_LOST_REPORTED),
}
"""Stage of a ``lost`` record -> the counter of losses, and the counter of those that a record reports."""


class Loss(NamedTuple):
    """Events that found their ring buffer full, and that no record reports yet."""

    stage: str
    first: int
    """The programs' count before the first of them."""
    end: int
    """The programs' count after the last of them."""
    may_be_reported: bool
    """An earlier run may have written a record of them."""
    mark_reported: Callable[[], None]
    """To be called once all outputs have acknowledged their record: no later run reports them."""

    @property
    def events(self) -> int:
        """How many were lost."""
        return self.end - self.first


class Rings:
    """The ring buffers of the running programs.

    Raises OSError if a map is not of the expected type.
    """

    def __init__(self, maps: dict[str, int]) -> None:
        self._counters = ProgramCounters(maps)
        self.kills = KillRings(maps)
        self._cgroups = open_ring(maps["cgroups"])
        self._sigkills = RetainedRing(open_ring(maps["sigkills"]))
        self._unseen_cgroups = self._counters.read(COUNTER_CGROUPS_LOST)
        self._counted: dict[str, int] = {}
        """Stage -> the count when ``losses`` was called last."""

    def sigkills(self) -> list[ReadEvent]:
        """All unread SIGKILLs."""
        return [(decode_or_error(data, wire.decode_event), token) for data, token in self._sigkills.read()]

    def cgroups(self) -> list[Event]:
        """All unread events of new cgroups; they are released at once, as they make no record."""
        found = [decode_or_error(data, wire.decode_event) for _, data in self._cgroups.read()]
        self._cgroups.release(self._cgroups.position)
        return found

    def losses(self) -> list[Loss]:
        """Losses since the last call; at the first call, since the last loss that an earlier run has reported."""
        losses, now_ns, all_reported = [], boottime_ns(), True
        for stage, (counter, reported) in _LOSSES.items():
            count, before = self._counters.read(counter), self._counted.get(stage)
            all_reported = all_reported and count == self._counters.read(reported)
            first = self._counters.read(reported) if before is None else before
            self._counted[stage] = count
            if count > first:
                mark = partial(self._counters.write, reported, count)
                losses.append(Loss(stage, first, count, before is None, mark))
        if all_reported:
            self._counters.write(COUNTER_LOSSLESS_UNTIL_NS, now_ns)
        return losses

    def has_unseen_cgroups(self) -> bool:
        """Whether new cgroups have found their ring buffer full since the last call."""
        before, self._unseen_cgroups = self._unseen_cgroups, self._counters.read(COUNTER_CGROUPS_LOST)
        return before != self._unseen_cgroups

    def release(self, acknowledged: int, *, is_saved: bool) -> None:
        """As ``RetainedRing.release``, for all; the ledger has no SIGKILLs."""
        self.kills.release(acknowledged, is_saved=is_saved)
        self._sigkills.release(acknowledged)

    def awaits_outputs(self, acknowledged: int) -> bool:
        """As ``Retention.awaits_outputs``, for any of them."""
        return self.kills.awaits_outputs(acknowledged) or self._sigkills.retention.awaits_outputs(acknowledged)


class Unreported(NamedTuple):
    """What a capture has lost, and no record reports yet."""

    counts: dict[str, int]
    """By stage."""
    lossless_until_ns: int
    """Until then no event was lost without a report; CLOCK_BOOTTIME."""


def unreported(maps: dict[str, int], began_ns: int) -> Unreported:
    """The losses of the capture with these maps, which was complete at ``began_ns`` (CLOCK_BOOTTIME)."""
    counters = ProgramCounters(maps)
    counts = {stage: counters.read(counter) - counters.read(reported) for stage, (counter, reported) in _LOSSES.items()}
    return Unreported(counts, max(began_ns, counters.read(COUNTER_LOSSLESS_UNTIL_NS)))


def previous_events(maps: dict[str, int]) -> Iterator[Event]:
    """All events of a previous capture with this version's layout: its kills in their order, then its SIGKILLs.

    The caller removes its maps once the records are acknowledged.
    """
    for batch in KillRings(maps).batches():
        yield from (event for event, _ in batch)
    yield from (decode_or_error(data, wire.decode_event) for _, data in open_ring(maps["sigkills"]).read())


def unread_events(maps: dict[str, int]) -> int:
    """Number of events in a previous capture whose layout this version cannot decode."""
    return len(open_ring(maps["events"]).read())
