# SPDX-License-Identifier: Apache-2.0
"""Which events must stay in a ring buffer: those whose records no output has taken yet.

The ring buffer outlives the daemon: what is let go of too late is read again after a crash, what too early is lost.
"""

from collections import deque
from typing import NamedTuple


class Backlog:
    """Positions in a ring buffer.

    What is in it before ``old_until`` was there when this run began.
    """

    def __init__(self, old_until: int = 0) -> None:
        self.old_until = old_until
        self._incidents: dict[int, int] = {}
        """Where they begin: the one that was last heard of, and the one before, which is told when that begins."""
        self._exits: dict[str, int] = {}
        """Exits that no record tells yet; the oldest first."""
        self._lines: deque[tuple[int, int]] = deque()
        """Numbers of lines and where their events begin, both growing: an earlier line that needs less is covered."""

    def read(self, incident_ns: int, position: int) -> None:
        """An event of this incident was read at ``position``."""
        if incident_ns not in self._incidents:
            self._incidents = dict([*list(self._incidents.items())[-1:], (incident_ns, position)])

    def read_exit(self, kill_id: str, position: int) -> None:
        """The end of this victim was read."""
        self._exits.setdefault(kill_id, position)

    def incident(self, incident_ns: int) -> int | None:
        """Where this incident begins."""
        return self._incidents.get(incident_ns)

    def take_exit(self, kill_id: str) -> int | None:
        """Where the end of this victim is, whose record is now to be written."""
        return self._exits.pop(kill_id, None)

    def written(self, line: int, position: int | None) -> None:
        """Line number ``line``, larger than all before, tells what was read from ``position`` on."""
        if position is None:
            return
        while self._lines and self._lines[-1][1] >= position:
            self._lines.pop()
        self._lines.append((line, position))

    def settled(self, lines: int) -> None:
        """All lines with smaller numbers have been taken."""
        while self._lines and self._lines[0][0] < lines:
            self._lines.popleft()

    def released(self, position: int) -> None:
        """What was before is no more, for whatever line: none that is stuck may pile them up."""
        while self._lines and self._lines[0][1] < position:
            self._lines.popleft()

    def waits(self) -> bool:
        """Whether there are lines that were not taken yet."""
        return bool(self._lines)

    def first_needed(self, cursor: int, incident_is_open: bool) -> int:
        """Everything before this position may go; ``cursor`` is how far was read."""
        needed = [cursor]
        if incident_is_open and self._incidents:
            needed.append(next(reversed(self._incidents.values())))
        if self._exits:
            needed.append(next(iter(self._exits.values())))
        if self._lines:
            needed.append(self._lines[0][1])
        return min(needed)


class Place(NamedTuple):
    """Where an event is."""

    backlog: Backlog
    position: int

    @property
    def is_old(self) -> bool:
        """Whether it was there when this run began."""
        return self.position < self.backlog.old_until
