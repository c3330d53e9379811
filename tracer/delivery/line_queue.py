# SPDX-License-Identifier: Apache-2.0
"""Lines in memory that are not acknowledged yet, and how many were dropped between them.

When it is full new lines are dropped, not old ones: the first kills of an incident tell most.
"""

import time
from collections import deque

MAX_BYTES = 4 << 20
FULL_BYTES = MAX_BYTES - (64 << 10)
SPARE_BYTES = 64 << 10
"""Room for lines that say how many others were dropped."""


class LineQueue:
    """Not for several threads at once."""

    def __init__(self) -> None:
        self.acknowledged = 0
        """How many of the lines put so far, from the first on, have left it, or were dropped."""
        self.dropped = 0
        self.dropped_since_ns: int | None = None
        """Wall-clock time of the first of those that were dropped last, one after the other."""
        self._items: deque[bytes | int] = deque()
        """Lines, and behind a line how many were dropped or skipped."""
        self._bytes = 0
        self._is_dropping = False

    @property
    def is_full(self) -> bool:
        """Whether a line that is put now may be dropped."""
        return self._bytes >= FULL_BYTES

    @property
    def lines(self) -> int:
        """How many are in it."""
        return sum(isinstance(item, bytes) for item in self._items)

    def has_room(self, line: bytes, spare: bool = False) -> bool:
        """Whether it can be put; ``spare``: also into the room that is left for such lines when it is full."""
        return not self._items or self._bytes + len(line) <= MAX_BYTES + (SPARE_BYTES if spare else 0)

    def put(self, line: bytes, spare: bool = False) -> None:
        if self.has_room(line, spare):
            self._items.append(line)
            self._bytes += len(line)
            self._is_dropping = False
            return
        self.dropped += 1
        if not self._is_dropping:
            self._is_dropping = True
            self.dropped_since_ns = time.time_ns()
        self.skip()

    def skip(self) -> None:
        """Count a line that is not wanted here: it is acknowledged with those before it."""
        if not self._items:
            self.acknowledged += 1
        elif isinstance(self._items[-1], int):
            self._items[-1] += 1
        else:
            self._items.append(1)

    def first(self, count: int = 1) -> list[bytes]:
        """The oldest lines, at most ``count``, no others being left out between them; none: it is empty."""
        lines: list[bytes] = []
        for item in self._items:
            if isinstance(item, int) or len(lines) == count:
                break
            lines.append(item)
        return lines

    def acknowledge(self, count: int = 1) -> None:
        """So many of the oldest lines leave; what was dropped waits for the lines before it only."""
        for _ in range(count):
            line = self._items.popleft()
            assert isinstance(line, bytes)
            self._bytes -= len(line)
            self.acknowledged += 1
            while self._items and isinstance(self._items[0], int):
                self.acknowledged += self._items[0]
                self._items.popleft()
