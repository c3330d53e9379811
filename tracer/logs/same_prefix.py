# SPDX-License-Identifier: Apache-2.0
"""The lines after one of a report that begin as it does: most of a report is printed within one second.

They need not be read one by one as if each were of another log.
"""

import re

from tracer.logs.oom_incident import LoggedIncident
from tracer.logs.oom_report import STATISTIC

_LONGEST = 4096
_UPTIME = re.compile(rb"\[ *\d{1,12}\.")
_BACKSLASH = 92
_ENDS = (b"", b" ")
"""What follows a line that may go on, or be cut."""


class LinePrefix:
    """What stands in front of a line's text; in front of others of its second, too, but for the digits of fractions."""

    def __init__(self, line: bytes, fractions: list[tuple[int, int]], end: int, has_uptime: bool) -> None:
        """That of a line, whose text begins at ``end``.

        ``has_uptime``: printk's time is in it; else it is that of lines with one, too, but not all of theirs.
        """
        self.length, self.has_uptime = end, has_uptime
        self.rest = list[tuple[int, int, bytes]]()
        """Where each fraction begins and ends in the line, and what follows it."""
        for begin, to in reversed(fractions):
            self.rest.append((begin, to, line[to:end]))
            end = begin
        self.first = line[:end]
        """Up to the first fraction."""

    def text_of(self, line: bytes) -> bytes | None:
        """The text of a line that begins so; None, too, where it has to be unescaped."""
        if not line.startswith(self.first) or line.find(_BACKSLASH) >= 0 or len(line) > _LONGEST:
            return None
        for begin, end, piece in self.rest:
            if not line[begin:end].isdigit() or not line.startswith(piece, end):
                return None
        if line.endswith(b"\r") or not (self.has_uptime or _UPTIME.match(line, self.length) is None):
            return None
        return line[self.length :]

    def rows_of(self, lines: bytes) -> list[bytes]:
        """The texts of whole lines if all of them begin so, and their texts with a bracket; else none."""
        first, length = self.first, len(self.first)
        if lines.find(_BACKSLASH) >= 0 or lines.find(b"\r") >= 0 or not lines.startswith(first):
            return []
        found = lines[length:-1].split(b"\n" + first)
        if len(found) != lines.count(b"\n") or max(map(len, found)) > _LONGEST:
            return []
        for begin, end, piece in self.rest:
            fractions = [line[begin - length : end - length] for line in found]
            pieces = {line[end - length : end - length + len(piece)] for line in found}
            if pieces != {piece} or not b"".join(fractions).isdigit():
                return []
        texts = [line[self.length - length :] for line in found]
        is_row = {text[:1] for text in texts} == {b"["} and (self.has_uptime or not any(map(_UPTIME.match, texts)))
        return texts if is_row else []


class SamePrefixReader:
    """Takes those lines for the only report that is open."""

    def __init__(self, prefix: LinePrefix, incident: LoggedIncident) -> None:
        self.prefix, self.incident = prefix, incident

    def add(self, data: bytes, begin: int, stop: int) -> bool:
        """Take the line from ``begin`` to ``stop``; False: it has to be read and fed as others are."""
        if data[stop + 1 : stop + 2] in _ENDS:
            return False
        text = self.prefix.text_of(data[begin:stop])
        return text is not None and text[:1] != b" " and self.incident.add(text)

    def add_statistics(self, data: bytes, at: int, stop: int) -> int:
        """Take the statistics of the lines from ``at`` on, up to one that has to be read; gives where the next begins.

        Before ``stop`` there is nothing of `DETAILS`.
        """
        for found in STATISTIC.finditer(data, at, stop):
            if found.start() < at:
                continue
            begin, end = data.rfind(b"\n", at, found.start()) + 1 or at, data.find(b"\n", found.end())
            text = None if data[end + 1 : end + 2] in _ENDS else self.prefix.text_of(data[begin:end])
            if text is None or not self.incident.add_statistic(text):
                return at
            at = end + 1
        stop = data.rfind(b"\n", at, stop) + 1
        return at if data[stop : stop + 1] in _ENDS else max(at, stop)

    def add_rows(self, data: bytes, at: int, stop: int) -> int:
        """Take the lines from ``at`` on if all of them are rows of the table of tasks; gives where the next begins.

        Before ``stop`` there is nothing of `DETAILS`, which the table's header has, too.
        """
        stop = data.rfind(b"\n", at, stop) + 1
        if data[stop : stop + 1] in _ENDS:
            stop = data.rfind(b"\n", at, max(at, stop - 1)) + 1
        rows = self.prefix.rows_of(data[at:stop])
        self.incident.tasks.extend(rows)
        return stop if rows else at
