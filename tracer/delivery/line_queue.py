# SPDX-License-Identifier: Apache-2.0
"""Unacknowledged lines in memory, and the number of lines dropped between them.

A full queue drops new lines, not old ones: the first kills of an incident are the most informative.
"""

import time
from collections import deque

MAX_BYTES = 4 << 20
FULL_BYTES = MAX_BYTES - (64 << 10)
SPARE_BYTES = 64 << 10
"""Reserved for the lines that report dropped lines."""


class LineQueue:
    """Not thread-safe."""

    def __init__(self) -> None:
        self.acknowledged = 0
        """Number of lines, from the first one put, that have left the queue or were dropped or skipped."""
        self.dropped = 0
        self.dropped_since_ns: int | None = None
        """Wall-clock time at which the latest run of consecutive drops began."""
        self._items: deque[bytes | int] = deque()
        """Lines; an integer after a line is the number of lines dropped or skipped there."""
        self._bytes = 0
        self._is_dropping = False

    @property
    def is_full(self) -> bool:
        """Whether the next line may be dropped."""
        return self._bytes >= FULL_BYTES

    @property
    def lines(self) -> int:
        """Number of lines in the queue."""
        return sum(isinstance(item, bytes) for item in self._items)

    def has_room(self, line: bytes, spare: bool = False) -> bool:
        """Whether the line fits; with ``spare``, the reserved room counts as well."""
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
        """Count a line that is not queued: it is acknowledged together with the lines before it."""
        if not self._items:
            self.acknowledged += 1
        elif isinstance(self._items[-1], int):
            self._items[-1] += 1
        else:
            self._items.append(1)

    def first(self, count: int = 1) -> list[bytes]:
        """The oldest lines, ``count`` at most, up to the first gap; an empty list if the queue is empty."""
        lines: list[bytes] = []
        for item in self._items:
            if isinstance(item, int) or len(lines) == count:
                break
            lines.append(item)
        return lines

    def acknowledge(self, count: int = 1) -> None:
        """Remove the oldest lines, and count what was dropped or skipped directly after each."""
        for _ in range(count):
            line = self._items.popleft()
            assert isinstance(line, bytes)
            self._bytes -= len(line)
            self.acknowledged += 1
            while self._items and isinstance(self._items[0], int):
                self.acknowledged += self._items[0]
                self._items.popleft()
