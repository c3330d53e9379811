# SPDX-License-Identifier: Apache-2.0
"""Where lines go: one module for each kind of output, and what all of them have in common."""

from collections.abc import Sequence
from typing import Protocol

from tracer.records.record_id import RecordId


class RejectedError(Exception):
    """Whoever takes the lines has looked at the first of them, and will not take it however often it comes.

    With ``among``: ``count`` of the first so many will never be taken, nobody knows which, and the others were.
    Not ``is_certain``: what answers may refuse every line, as a proxy with an error does; the line itself is at fault
    only if another one is taken.
    """

    def __init__(self, reason: str, count: int = 1, among: int = 0, *, is_certain: bool = True) -> None:
        super().__init__(reason)
        self.count, self.among, self.is_certain = count, among, is_certain


class Sink(Protocol):
    """What delivers lines, from one thread.  It may block: nobody but its own output waits for it."""

    uri: str
    """For everybody's eyes."""
    batch_lines: int
    """How many lines it wants at once: 1 where each is delivered on its own, more where a batch is one request."""
    dead: bool
    """Whether it can never deliver again; told after ``write`` has raised."""

    def write(self, lines: Sequence[bytes]) -> int:
        """Deliver lines; how many, from the first on, at least one.

        Not one at a time, because a request over a network carries many and may be taken in part.  What is not
        delivered comes again, as the first lines of the next call.

        Raises OSError where none could be delivered, RejectedError where the first never will be.  An OSError may have
        ``retry_after_s``: for so long the other side asks to be left alone.
        """

    def recent(self) -> set[RecordId]:
        """Records that it has already, as far as it can tell; from any thread."""

    def reopen(self) -> None:
        """Go on in what has the name now: the file may have been renamed.

        Raises TracerError where that cannot be opened; then nothing changes.
        """

    def close(self) -> None: ...


class RemoteSink:
    """A sink that cannot be asked what it has; it connects anew when it is told to go on in what has the name now."""

    dead = False

    def recent(self) -> set[RecordId]:
        return set()

    def reopen(self) -> None:
        self.close()

    def close(self) -> None:
        raise NotImplementedError
