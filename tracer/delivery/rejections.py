# SPDX-License-Identifier: Apache-2.0
"""Rejected lines: sent one at a time, and set aside if the line itself is at fault."""

import errno
from collections.abc import Callable

from tracer.base.log import warn
from tracer.delivery.sinks import RejectedError

SUSPECTS_MAX = 32
"""If so many lines are rejected in a row, the server may be at fault rather than the lines."""


class Rejections:
    """Rejected lines of one output.

    A suspect is a line that was rejected by an error that is not certain.  Suspects are at fault if the line after them
    is accepted.  ``set_aside`` stores lines in ``place``, and returns whether it could.
    """

    def __init__(self, uri: str, place: str, set_aside: Callable[[list[bytes]], bool]) -> None:
        self.rejected = 0
        """Number of lines that the server will never accept."""
        self._uri, self._place, self._set_aside_lines = uri, place, set_aside
        self._single_lines = 0
        """Number of lines to send one at a time, because one of them was rejected."""
        self._suspects: list[RejectedError] = []
        """Why each of the oldest lines was rejected."""

    def batch_size(self, batch_lines: int) -> int:
        """Number of lines to fetch, suspects included; ``batch_lines`` is the sink's own batch size."""
        is_single = self._single_lines or self._suspects
        return min(len(self._suspects) + 1, SUSPECTS_MAX) if is_single else batch_lines

    def without_suspects(self, lines: list[bytes]) -> list[bytes]:
        """The lines to send.

        Raises OSError if all of them are suspects.
        """
        if self._suspects and len(lines) == len(self._suspects):
            raise OSError(errno.EPROTO, str(self._suspects[0]))
        return lines[len(self._suspects) :]

    def on_rejected(self, lines: list[bytes], error: RejectedError) -> int:
        """Handle a rejection of the lines after the suspects; return how many of ``lines`` are done."""
        if len(lines) - len(self._suspects) > 1 and not error.among:
            self._single_lines = len(lines)
        elif self._suspects or not error.is_certain:
            self._suspects.append(error)
        else:
            lines = lines[: error.among or 1]
            self._set_aside(lines, error)
            return len(lines)
        return 0

    def on_accepted(self, lines: list[bytes]) -> int:
        """A line after the suspects was accepted, so the suspects are at fault; return how many they are."""
        count = len(self._suspects)
        for line, error in zip(lines, self._suspects, strict=False):
            self._set_aside([line], error)
        self._suspects.clear()
        return count

    def on_acknowledged(self, count: int) -> None:
        """The oldest ``count`` lines are done."""
        self._single_lines = max(0, self._single_lines - count)

    def clear_suspects(self) -> None:
        """No line was accepted, so it is unknown what is at fault."""
        self._suspects.clear()

    def _set_aside(self, lines: list[bytes], error: RejectedError) -> None:
        self.rejected += error.count
        is_kept = self._set_aside_lines(lines)
        if self.rejected == error.count:
            what = f"{error.count} of {len(lines)} records (which ones is unknown)" if error.among else "a record"
            kept = f"kept in {self._place} (1 MiB at most)" if is_kept else "lost"
            warn(f"{self._uri} rejects {what}: {error}; rejected records are {kept}; further ones are counted silently")
