# SPDX-License-Identifier: Apache-2.0
"""A capture's ring buffers and counters: what comes, what was lost on the way, and what may go."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from tracer.base.clock import boottime_ns
from tracer.capture.kill_buffers import KillRings, release
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
from tracer.capture.ringbuf_retention import Backlog

_LOSSES = {
    "ring_buffer": (COUNTER_LOST, COUNTER_LOST_REPORTED),
    "sigkill": (COUNTER_SIGKILLS_LOST, COUNTER_SIGKILLS_LOST_REPORTED),
}
"""Stage of a ``lost`` record -> what counts the losses, and how many of them were told."""


class Loss(NamedTuple):
    stage: str
    first: int
    """How many were lost before."""
    end: int
    """And now."""
    is_old: bool
    """An earlier run may have told it."""
    told: Callable[[], None]
    """To be called once a record tells it."""


class Rings:
    """Of the programs at work; raises OSError where a map is not what it should be."""

    def __init__(self, maps: dict[str, int]) -> None:
        self._counters = ProgramCounters(maps)
        self.kills = KillRings(maps)
        self.cgroups = open_ring(maps["cgroups"])
        self.sigkills = open_ring(maps["sigkills"])
        self.sigkill_backlog = Backlog(self.sigkills.end)
        self._unseen_cgroups = self._counters.read(COUNTER_CGROUPS_LOST)
        self._asked: dict[str, int] = {}

    @property
    def backlogs(self) -> tuple[Backlog, ...]:
        """What is in the ring buffers of these must outlive the daemon."""
        return (*self.kills.backlogs, self.sigkill_backlog)

    def lost(self) -> list[Loss]:
        """What was lost since this was last asked, or since an earlier run had told it."""
        losses, now_ns, all_told = [], boottime_ns(), True
        for stage, (counter, told) in _LOSSES.items():
            count, before = self._counters.read(counter), self._asked.get(stage)
            all_told = all_told and count == self._counters.read(told)
            first = self._counters.read(told) if before is None else before
            self._asked[stage] = count
            if count > first:
                losses.append(Loss(stage, first, count, before is None, partial(self._counters.write, told, count)))
        if all_told:
            self._counters.write(COUNTER_LOSSLESS_UNTIL_NS, now_ns)
        return losses

    def has_unseen_cgroups(self) -> bool:
        """Whether new cgroups have found their ring buffer full since this was last asked."""
        before, self._unseen_cgroups = self._unseen_cgroups, self._counters.read(COUNTER_CGROUPS_LOST)
        return before != self._unseen_cgroups

    def release(self, incident_is_open: bool, sigkills_told: int, is_noted: bool) -> None:
        """Let the kernel have back the room of what is done with; all sigkills before that position are records.

        ``is_noted``: the ledger knows of all kills, so that none has to be read again.
        """
        self.kills.release(incident_is_open, is_noted)
        release(self.sigkills, self.sigkill_backlog, self.sigkill_backlog.first_needed(sigkills_told, False))


class Untold(NamedTuple):
    """What a capture has lost, and no record tells yet."""

    counts: dict[str, int]
    """By stage."""
    since_ns: int
    """Until then nothing was lost, or it was told; CLOCK_BOOTTIME."""


def untold(maps: dict[str, int], began_ns: int) -> Untold:
    """Of the capture that has these maps, and was complete at ``began_ns`` (CLOCK_BOOTTIME)."""
    counters = ProgramCounters(maps)
    counts = {stage: counters.read(counter) - counters.read(told) for stage, (counter, told) in _LOSSES.items()}
    return Untold(counts, max(began_ns, counters.read(COUNTER_LOSSLESS_UNTIL_NS)))
