# SPDX-License-Identifier: Apache-2.0
"""Which events a ring buffer must keep: those whose records are not yet acknowledged by every output.

The ring buffer outlives the daemon.  An event that is released too late is read again by the next run, and its record
is recognized by its id; an event that is released too early is lost if the daemon is killed.
"""

from collections import deque
from collections.abc import Iterable

from tracer.capture.ringbuf import Ring


class Token:
    """Keeps one event in its ring buffer.  Made where the event is read, it travels with the event.

    A token has one holder at first: the stage that has the event.  Each holder gives it up exactly once: by
    ``release()`` if the event needs no further record (excluded, merged, a duplicate, malformed), or by
    ``release_after()`` with the line that holds its record.
    """

    __slots__ = ("_holders", "_lines", "_retention", "position")

    def __init__(self, retention: "Retention", position: int) -> None:
        self.position = position
        self._retention = retention
        self._holders = 1
        self._lines = 0

    @property
    def precedes_run(self) -> bool:
        """Whether the event was there when this run began: an earlier run may have written its record."""
        return self.position < self._retention.end_at_start

    def add_holders(self, count: int) -> None:
        """So many more records need the event."""
        self._holders += count

    def release(self) -> None:
        """One holder needs the event no more."""
        self._holders -= 1

    def release_after(self, lines: int) -> None:
        """One holder needs the event until so many lines of the stream are acknowledged."""
        self._holders -= 1
        self._lines = max(self._lines, lines)
        self._retention.last_written = self

    def is_covered_by(self, other: "Token") -> bool:
        """Whether the event stays anyway as long as ``other`` does: ring buffers are released from their beginning."""
        return self._retention is other._retention and other.position <= self.position

    def is_released(self, acknowledged: int) -> bool:
        """Whether nothing needs the event any more; ``acknowledged``: lines that every output has acknowledged."""
        return self._holders <= 0 and self._lines <= acknowledged

    def awaits_outputs(self, acknowledged: int) -> bool:
        """Whether it is written in a line that is not acknowledged, and was not dropped by ``Retention.expire``."""
        return self._lines > acknowledged and self.position >= self._retention.expired_until


def release_all(tokens: Iterable[Token]) -> None:
    """Release each of them, for one holder."""
    for token in tokens:
        token.release()


class Retention:
    """The tokens of one ring buffer; ``end_at_start`` is its end when this run began."""

    def __init__(self, end_at_start: int = 0) -> None:
        self.end_at_start = end_at_start
        self.expired_until = 0
        """Tokens before this position were dropped."""
        self.last_written: Token | None = None
        """The one that was given the last line."""
        self._tokens: deque[Token] = deque()
        """In the order of their positions, from the first one on that is not released."""

    def issue(self, position: int) -> Token:
        """A token for the event at ``position``, which is behind all before."""
        token = Token(self, position)
        self._tokens.append(token)
        return token

    def first_needed(self, cursor: int, acknowledged: int) -> int:
        """The ring buffer may be released up to this position; ``cursor`` is how far it was read."""
        while self._tokens and self._tokens[0].is_released(acknowledged):
            self._tokens.popleft()
        return self._tokens[0].position if self._tokens else cursor

    def expire(self, position: int) -> None:
        """Drop the tokens before ``position``: an output that never acknowledges must not accumulate them."""
        self.expired_until = max(self.expired_until, position)
        while self._tokens and self._tokens[0].position < position:
            self._tokens.popleft()

    def awaits_outputs(self, acknowledged: int) -> bool:
        """Whether an event stays only because its line is not acknowledged."""
        return self.last_written is not None and self.last_written.awaits_outputs(acknowledged)


class RetainedRing:
    """A ring buffer with the tokens of its events."""

    def __init__(self, ring: Ring) -> None:
        self.ring = ring
        self.retention = Retention(ring.end)

    def read(self, most: int | None = None) -> list[tuple[bytes, Token]]:
        """As ``Ring.read``."""
        return [(data, self.retention.issue(position)) for position, data in self.ring.read(most)]

    def release(self, acknowledged: int, *, is_saved: bool = True) -> None:
        """Give the kernel back the room of events whose tokens are released.

        ``acknowledged``: lines that every output has acknowledged.  ``is_saved``: the ledger on disk has all kills.
        Until then nothing is released.  To be called only when all events that were read have been handled: an output
        that acknowledges nothing must not take the room of new events, so the older half is released in any case.
        """
        needed = self.retention.first_needed(self.ring.position, acknowledged) if is_saved else 0
        needed = max(needed, self.ring.position - self.ring.size_bytes // 2)
        self.ring.release(needed)
        self.retention.expire(needed)
