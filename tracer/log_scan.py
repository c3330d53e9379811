# SPDX-License-Identifier: Apache-2.0
"""A log, block by block -> what it reports of OOM kills.

Most of a log is nobody's business: while no report is open it is searched for the few words of which each report has
one, and what lies between is never split into lines.  Takes constant memory, and never raises, whatever it is fed.
"""

from collections.abc import Callable

from tracer.log_format import LineFormats, Origin, Sourced
from tracer.log_journal import EXPORT, LONGEST_BYTES, Export
from tracer.log_time import Calendar
from tracer.oom_incident import Report
from tracer.oom_lines import LogLine
from tracer.oom_report import WORDS, Reports

Emit = Callable[[Report, Origin], None]
Heard = Callable[[LogLine, Origin], None]

_SPELLED = (*WORDS, *(b",".join(b"%d" % byte for byte in word.strip()) for word in WORDS))
"""In the journal's JSON a text that is no UTF-8 is a list of numbers."""
_LINES_BEFORE = 16
"""A name in a record may hold newlines, and in ``dmesg -J`` the time stands some lines before the text."""
_STRETCH_BYTES = 16384
_SAMPLE_LINES = 256
_MOST_HOSTS = 64


class HostReports:
    """Lines of many hosts and boots, mixed as a central log has them -> reports.

    ``heard`` is given each line that belongs to a report, or stands within one, after the reports that it completes.
    """

    def __init__(self, emit: Emit, heard: Heard | None = None) -> None:
        self._emit = emit
        self._heard = heard
        self._open: dict[Origin, Reports] = {}

    @property
    def idle(self) -> bool:
        """Whether no report is open."""
        return not self._open

    def feed(self, sourced: Sourced) -> None:
        """Take a line."""
        line, origin = sourced
        reports = self._open.get(origin)
        if reports is None:
            text = line.text
            if not (WORDS[0] in text or WORDS[1] in text or WORDS[2] in text):
                return
            if len(self._open) >= _MOST_HOSTS:
                self._end(next(iter(self._open)))
            reports = self._open[origin] = Reports()
        for report in reports.feed(line):
            self._emit(report, origin)
        if self._heard is not None:
            self._heard(line, origin)
        if reports.idle:
            del self._open[origin]

    def end(self) -> None:
        """The log ends here, or nothing was added to it for a while."""
        for origin in list(self._open):
            self._end(origin)

    def _end(self, origin: Origin) -> None:
        for report in self._open.pop(origin).end():
            self._emit(report, origin)


class LogScan:
    """Reads one log."""

    def __init__(self, calendar: Calendar, emit: Emit, heard: Heard | None = None) -> None:
        self._formats = LineFormats(calendar)
        self._reports = HostReports(emit, heard)
        self._export: Export | None = None
        self._begun = self._overlong = False
        self._rest = b""
        """A last line without its end, and in front of it lines that were passed over, and may belong to it."""

    @property
    def recognized(self) -> int:
        """How many lines or entries were seen to be of a log; those that were passed over are not counted."""
        return self._export.recognized if self._export is not None else self._formats.recognized

    def feed(self, block: bytes) -> None:
        """What comes next in the log."""
        if self._overlong:
            block = block.partition(b"\n")[2]
            if not block:
                return
            self._overlong = False
        data = self._rest + block if self._rest else block
        if not self._begun:
            if b"\n" not in data and len(data) < LONGEST_BYTES:
                self._rest = data
                return
            self._begin(data)
        if self._export is not None:
            found, at = self._export.feed(data)
            for line, host, boot_id in found:
                self._reports.feed((line, Origin(host, boot_id)))
            self._rest = data[at:]
            return
        end = data.rfind(b"\n") + 1
        if len(data) - end > LONGEST_BYTES:
            self._overlong, self._rest = True, b""
            self._lines(data, end)
        else:
            self._rest = data[self._lines(data, end) :]

    def pause(self) -> None:
        """Nothing was added for a while: what is open will not go on."""
        self._flush()
        self._reports.end()

    def end(self) -> None:
        """The log is over; a last line without its end may be cut, and counts for nothing."""
        if not self._begun and self._rest:
            self._begin(self._rest)
        self.pause()
        self._rest, self._overlong = b"", False

    def _begin(self, data: bytes) -> None:
        self._begun = True
        if EXPORT.match(data) is not None:
            self._export = Export()
            return
        for line in data[: 64 * _STRETCH_BYTES].split(b"\n", _SAMPLE_LINES)[:_SAMPLE_LINES]:
            self._formats.feed(line)
        self._formats.flush()

    def _lines(self, data: bytes, end: int) -> int:
        """Read whole lines, up to ``end``; gives from where on they are to be kept."""
        places = [-1] * len(_SPELLED)
        feed, reports, at = self._formats.feed, self._reports, 0
        while at < end:
            if reports.idle and not _may_begin(self._formats.pending):
                begin = _next(data, at, end, places)
                if begin > at:
                    self._flush()
                if begin >= end:
                    return max(at, _lines_before(data, at, end))
                at = begin
            stop = data.find(b"\n", min(at + _STRETCH_BYTES, end - 1), end)
            for raw in data[at:stop].split(b"\n"):
                sourced = feed(raw)
                if sourced is not None:
                    reports.feed(sourced)
            at = stop + 1
        return at

    def _flush(self) -> None:
        sourced = self._formats.flush()
        if sourced is not None:
            self._reports.feed(sourced)


def _may_begin(sourced: Sourced | None) -> bool:
    return sourced is not None and any(word in sourced[0].text for word in WORDS)


def _next(data: bytes, at: int, end: int, places: list[int]) -> int:
    """Where, from ``at`` on, the lines begin in which the next report may; ``places`` are those of earlier calls."""
    for number, place in enumerate(places):
        if place < at:
            found = data.find(_SPELLED[number], at, end)
            places[number] = end if found < 0 else found
    hit = min(places)
    return end if hit >= end else _lines_before(data, at, hit)


def _lines_before(data: bytes, least: int, place: int) -> int:
    begin = place
    for _ in range(_LINES_BEFORE):
        begin = data.rfind(b"\n", max(least, place - _STRETCH_BYTES), max(least, begin - 1)) + 1
        if begin <= least:
            return least
    return begin
