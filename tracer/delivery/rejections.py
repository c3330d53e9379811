# SPDX-License-Identifier: Apache-2.0
"""Lines that the other side refuses: sent one by one, and set aside where the line itself is at fault."""

import errno
from collections.abc import Callable

from tracer.base.log import warn
from tracer.delivery.sinks import RejectedError

DOUBTED_MAX = 32
"""Where so many lines are refused one after the other, it is not known whether they are at fault."""


class Rejections:
    """Of one output; ``set_aside`` keeps lines, if it can, in ``place``."""

    def __init__(self, uri: str, place: str, set_aside: Callable[[list[bytes]], bool]) -> None:
        self.rejected = 0
        """Lines that the other side will never take."""
        self._uri, self._place, self._keep = uri, place, set_aside
        self._alone = 0
        """So many lines are delivered one by one, because one of them is rejected."""
        self._doubted: list[RejectedError] = []
        """Why the oldest lines were refused, each on its own: it is their fault if the next one is taken."""

    def wanted(self, batch_lines: int) -> int:
        """How many lines there have to be, those included, of a batch of so many."""
        return min(len(self._doubted) + 1, DOUBTED_MAX) if self._alone or self._doubted else batch_lines

    def to_send(self, lines: list[bytes]) -> list[bytes]:
        """Those behind the ones in doubt.

        Raises OSError where there are none.
        """
        if self._doubted and len(lines) == len(self._doubted):
            raise OSError(errno.EPROTO, str(self._doubted[0]))
        return lines[len(self._doubted) :]

    def refused(self, lines: list[bytes], error: RejectedError) -> int:
        """The lines behind those in doubt were refused; how many, from the first on, are done with."""
        if len(lines) - len(self._doubted) > 1 and not error.among:
            self._alone = len(lines)
        elif self._doubted or not error.is_certain:
            self._doubted.append(error)
        else:
            lines = lines[: error.among or 1]
            self._set_aside(lines, error)
            return len(lines)
        return 0

    def taken(self, lines: list[bytes]) -> int:
        """A line behind those in doubt was taken: it is their own fault, and they are done with; how many they are."""
        count = len(self._doubted)
        for line, error in zip(lines, self._doubted, strict=False):
            self._set_aside([line], error)
        self._doubted.clear()
        return count

    def acknowledged(self, count: int) -> None:
        """So many of the oldest lines are done with."""
        self._alone = max(0, self._alone - count)

    def forget(self) -> None:
        """No line was taken: nobody knows whose fault it is."""
        self._doubted.clear()

    def _set_aside(self, lines: list[bytes], error: RejectedError) -> None:
        self.rejected += error.count
        is_kept = self._keep(lines)
        if self.rejected == error.count:
            what = f"{error.count} of {len(lines)} records, not told which" if error.among else "a record"
            kept = f"kept in {self._place} (1 MiB at most)" if is_kept else "lost"
            warn(f"{self._uri} rejects {what}: {error}; it is {kept}; all that follow are counted, too")
