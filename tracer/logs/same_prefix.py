# SPDX-License-Identifier: Apache-2.0
"""A fast path for the lines of a report that have the same prefix as the line before.

The kernel prints most of a report within one second, so the prefixes of its lines differ in the digits of fractions
only.  Such lines need not be parsed one by one.  The prefix comes from what formats.py has matched; that both paths
give the same reports is held by a property test (test_together_and_alone in tests/unit/logs/test_formats.py).
"""

import re

from tracer.logs.oom_incident import LoggedIncident
from tracer.logs.oom_report import STATISTIC

_LONGEST_BYTES = 4096
_UPTIME = re.compile(rb"\[ *\d{1,12}\.")
_BACKSLASH = 92
_MAY_CONTINUE = (b"", b" ")
"""The first byte of the next line, if the line before may be continued there, or may be cut."""


class LinePrefix:
    """The prefix of a line, which lines of the same second share but for the digits of fractions."""

    def __init__(self, line: bytes, fractions: list[tuple[int, int]], end: int, has_uptime: bool) -> None:
        """``fractions`` are the spans of digits that vary, in order; the text of the line begins at ``end``.

        ``has_uptime``: printk's time is a part of the prefix; else lines with an uptime behind it do not share it.
        """
        self.length, self.has_uptime = end, has_uptime
        self.rest = list[tuple[int, int, bytes]]()
        """The begin and end of each fraction, last first, and the bytes that follow it."""
        for begin, to in reversed(fractions):
            self.rest.append((begin, to, line[to:end]))
            end = begin
        self.first = line[:end]
        """The bytes in front of the first fraction."""

    def text_of(self, line: bytes) -> bytes | None:
        """The text of a line with this prefix; None if the prefix differs, or the line may need unescaping."""
        if not line.startswith(self.first) or line.find(_BACKSLASH) >= 0 or len(line) > _LONGEST_BYTES:
            return None
        for begin, end, piece in self.rest:
            if not line[begin:end].isdigit() or not line.startswith(piece, end):
                return None
        if line.endswith(b"\r") or not (self.has_uptime or _UPTIME.match(line, self.length) is None):
            return None
        return line[self.length :]

    def rows_of(self, lines: bytes) -> list[bytes]:
        """The texts of complete lines if all of them have this prefix, and a bracket after it; else none."""
        first, length = self.first, len(self.first)
        if lines.find(_BACKSLASH) >= 0 or lines.find(b"\r") >= 0 or not lines.startswith(first):
            return []
        rows = lines[length:-1].split(b"\n" + first)
        if len(rows) != lines.count(b"\n") or max(map(len, rows)) > _LONGEST_BYTES:
            return []
        for begin, end, piece in self.rest:
            fractions = [row[begin - length : end - length] for row in rows]
            pieces = {row[end - length : end - length + len(piece)] for row in rows}
            if pieces != {piece} or not b"".join(fractions).isdigit():
                return []
        texts = [row[self.length - length :] for row in rows]
        are_rows = {text[:1] for text in texts} == {b"["} and (self.has_uptime or not any(map(_UPTIME.match, texts)))
        return texts if are_rows else []


class SamePrefixReader:
    """Adds lines with the same prefix to the only open report."""

    def __init__(self, prefix: LinePrefix, incident: LoggedIncident) -> None:
        self.prefix, self.incident = prefix, incident

    def add(self, data: bytes, begin: int, stop: int) -> bool:
        """Add the line from ``begin`` to ``stop``; False: the line has to be parsed and fed."""
        if data[stop + 1 : stop + 2] in _MAY_CONTINUE:
            return False
        text = self.prefix.text_of(data[begin:stop])
        return text is not None and text[:1] != b" " and self.incident.add(text)

    def add_statistics(self, data: bytes, at: int, stop: int) -> int:
        """Add the statistics in the lines from ``at`` on, up to a line that has to be parsed; gives the begin of that.

        There is none of `DETAIL_KEYWORDS` before ``stop``.
        """
        for found in STATISTIC.finditer(data, at, stop):
            if found.start() < at:
                continue
            begin, end = data.rfind(b"\n", at, found.start()) + 1 or at, data.find(b"\n", found.end())
            text = None if data[end + 1 : end + 2] in _MAY_CONTINUE else self.prefix.text_of(data[begin:end])
            if text is None or not self.incident.add_statistic(text):
                return at
            at = end + 1
        stop = data.rfind(b"\n", at, stop) + 1
        return at if data[stop : stop + 1] in _MAY_CONTINUE else max(at, stop)

    def add_rows(self, data: bytes, at: int, stop: int) -> int:
        """Add the lines from ``at`` on if all of them are rows of the table of tasks; gives the begin of the next line.

        There is none of `DETAIL_KEYWORDS` before ``stop``; the table's header has one of them.
        """
        stop = data.rfind(b"\n", at, stop) + 1
        if data[stop : stop + 1] in _MAY_CONTINUE:
            stop = data.rfind(b"\n", at, max(at, stop - 1)) + 1
        rows = self.prefix.rows_of(data[at:stop])
        self.incident.tasks.extend(rows)
        return stop if rows else at
