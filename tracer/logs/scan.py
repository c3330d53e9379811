# SPDX-License-Identifier: Apache-2.0
"""A log, block by block -> what it reports of OOM kills.

Most of a log is nobody's business: it is searched for the few words of which each line that counts has one, and what
lies between is never split into lines, nor decoded.  Takes constant memory, and never raises, whatever it is fed.
"""

from collections.abc import Callable

from tracer.logs.formats import Origin, Sourced
from tracer.logs.host_reports import Emit, Heard, HostReports
from tracer.logs.journal import EXPORT, LONGEST_BYTES, Export
from tracer.logs.line_reader import LineReader
from tracer.logs.oom_details import Awaited
from tracer.logs.oom_report import DETAIL_KEYWORDS, KEYWORDS, STATISTIC, TRACE_WORD, has_keyword, may_begin_report
from tracer.logs.remarks import OTHER_WORDS, LogPosition, Remarks
from tracer.logs.same_prefix import SamePrefixReader
from tracer.logs.terminal import Terminal, terminal_of, whole_part
from tracer.logs.times import Calendar
from tracer.logs.word_search import (
    LOOK_BACK_BYTES,
    SPACED,
    STRETCH_BYTES,
    WordSearch,
    lines_before,
    passed_over,
    with_spelled,
)

Begin = Callable[[Origin], None]

_BOOT = b"Linux version "
"""Begins the first line that a kernel prints."""
_SAMPLE_LINES = 256
_WINDOW_BYTES = 65536
"""In which it is learnt what stands in front of the lines of a report."""
_OTHERS_BYTES = 4 << 20
"""In so much of a log it is looked for kills by other killers, and for panics without a report."""
_PATIENCE_BYTES = 4 << 20
"""After so much in which nothing counts, nothing more is waited for."""


class LogScan:
    """Reads one log."""

    def __init__(
        self,
        calendar: Calendar,
        emit: Emit,
        begin: Begin | None = None,
        heard: Heard | None = None,
        reports: HostReports | None = None,
        counts_lines: bool = True,
    ) -> None:
        """``begin`` is told when a host boots, of which nobody has to hear else.

        ``reports`` are of the log of which this one is the next part: they take what is read, and are not ended here.
        ``counts_lines``: else remarks tell offsets alone, which is faster.
        """
        self._boots = begin
        self._begin_words = KEYWORDS if begin is None else (*KEYWORDS, _BOOT)
        self._count_words = DETAIL_KEYWORDS if begin is None else (*DETAIL_KEYWORDS, _BOOT)
        self._is_spaced = False
        """Whether there are blanks in its JSON."""
        self._formats = LineReader(calendar)
        self._reports = reports or HostReports(emit, heard)
        self._goes_on = reports is not None
        self._reports.doubts = self
        self.remarks = Remarks()
        self._counts_lines = counts_lines
        self._fed_bytes = self._fed_newlines = 0
        self._data, self._at = b"", 0
        """Where the line is that was read last."""
        self._export: Export | None = None
        self._terminal = Terminal()
        self.begun = self._overlong = False
        self._rest = b""
        """What was not read yet: a last line, which lacks its end or may go on, and what may belong to it."""
        self._before = memoryview(b"")
        """What stands in front of the rest, as far as is looked back, and was passed over since a line was read."""
        self._begins, self._counts = WordSearch(self._begin_words), WordSearch(self._count_words)
        self._passed = 0
        self.fed = 0
        """How many lines counted, or may have."""

    @property
    def recognized(self) -> int:
        """How many lines or entries were seen to be of a log; those that were passed over are not counted."""
        return self._export.recognized if self._export is not None else self._formats.recognized

    @property
    def idle(self) -> bool:
        """Whether no report is open."""
        return self._reports.awaits == "words"

    def feed(self, block: bytes) -> None:
        """What comes next in the log."""
        self._passed += len(block)
        self._fed_bytes += len(block)
        if self._counts_lines:
            self._fed_newlines += block.count(b"\n")
        if self._passed > _PATIENCE_BYTES:
            self._reports.end()
        if self._overlong:
            _, newline, block = block.partition(b"\n")
            if not newline:
                return
            self._overlong = False
        data = self._rest + block if self._rest else block
        if self._export is None and b"\n" not in block and len(data) < LONGEST_BYTES:
            self._rest = data
            return
        if not self.recognized:
            self._begin(data)
        if self._terminal.changes:
            data = self._terminal.clean(data)
        if self._export is not None:
            self._rest = data[self._entries(self._export, data) :]
            return
        data = self._look_back(data)
        end = data.rfind(b"\n") + 1
        if self._terminal.broken_width:  # the last line may go on
            end = data.rfind(b"\n", 0, end - 1) + 1
        if len(data) - end > LONGEST_BYTES:
            self._lines(data, end, whole=True)
            self._overlong, self._rest, self._before = True, b"", memoryview(b"")
        else:
            self._rest = data[self._lines(data, end) :]

    def pause(self) -> None:
        """Nothing was added for a while: what is open will not go on."""
        self._read_rest()
        self._reports.end()

    def _read_rest(self) -> None:
        if self.begun and self._export is None:
            data = self._look_back(self._rest)
            end = data.rfind(b"\n") + 1
            self._lines(data, end, whole=True)
            self._rest = data[end:]

    def end(self) -> None:
        """The log is over; a last line without its end may be cut, and counts for nothing."""
        if not self.recognized and self._rest:
            self._begin(self._rest)
            if self._terminal.changes:
                self._rest = self._terminal.clean(self._rest)
        self._read_rest()
        if not self._goes_on:
            self._reports.end()
        self._rest, self._overlong = b"", False

    def _begin(self, data: bytes) -> None:
        if self._export is not None:
            return
        if not self.begun and EXPORT.match(data) is not None:
            self.begun, self._export = True, Export()
            return
        if not self.begun:
            self._terminal = terminal_of(data[: 64 * STRETCH_BYTES])
            if self._terminal.is_colored and not self._counts_lines:  # offsets do not tell lines
                self._counts_lines, self._fed_newlines = True, data.count(b"\n")
        self.begun = True
        if self._terminal.changes:
            data = self._terminal.clean(data)
        sample = data[: 64 * STRETCH_BYTES].split(b"\n", _SAMPLE_LINES)[:_SAMPLE_LINES]
        self._is_spaced = self._is_spaced or any(map(SPACED.match, sample))
        for line in sample:
            self._formats.read(line)

    def _look_back(self, data: bytes) -> bytes:
        """The data, with what stands in front of them where that may be of a report that begins in them."""
        self._seek_words(data)
        if not self._before or not self.idle or self._begins.next(data, 0, len(data)) >= LOOK_BACK_BYTES:
            return data
        before, self._before = bytes(self._before), memoryview(b"")
        self._seek_words(before + data)
        return before + data

    def _entries(self, export: Export, data: bytes) -> int:
        self._begins, self._counts = WordSearch(self._begin_words), WordSearch(self._count_words)
        at = 0
        for line, host, boot_id in export.read(data, self._next_entry):
            if not self.idle:
                at = export.at
            elif may_begin_report(line.text):
                end = data.rfind(b"\n\n", at, export.at - 2)
                self._before = passed_over(self._before, data, at, at if end < 0 else end + 2)
                self._entries_before()
                at = export.at
            self.fed, self._passed = self.fed + 1, 0
            self._take((line, Origin(host, boot_id)))
        self._before = passed_over(self._before, data, at, export.at)
        return export.at

    def _entries_before(self) -> None:
        """Read what was passed over and may be of a report that the next entry belongs to."""
        before, self._before = bytes(self._before), memoryview(b"")
        if len(before) == LOOK_BACK_BYTES:  # it begins within an entry
            before = before[before.find(b"\n\n") + 2 :]
        counts, self._counts = self._counts, WordSearch(self._count_words)
        for line, host, boot_id in Export().read(before, self._next_detail):
            self._take((line, Origin(host, boot_id)))
        self._counts = counts

    def _lines(self, data: bytes, end: int, whole: bool = False) -> int:
        """Read lines, up to ``end``; gives from where on they are to be kept, unless they are ``whole``."""
        formats, reports, at = self._formats, self._reports, 0
        self._data = data
        read, find, seek = formats.read, data.find, self._next
        take = reports.feed if self._boots is None else self._take
        alike: SamePrefixReader | None = None
        learnt_to, cut_width = 0, self._terminal.cut_width or -1
        awaited = reports.awaits
        while at < end:
            hit = seek(data, at, end, awaited)
            if hit >= end:
                kept = end if whole else max(at, lines_before(data, at, end))
                self._before = passed_over(self._before, data, at, kept)
                return kept
            begin = data.rfind(b"\n", at, hit) + 1
            if begin <= at:
                begin = at
            elif data[begin] == 32:
                begin = lines_before(data, at, hit)
            stop = find(b"\n", begin, end)
            before, at = at, stop + 1
            if alike is not None and alike.add(data, begin, stop):
                awaited = alike.incident.awaits
                if awaited in ("all", "statistics"):
                    add_more = alike.add_rows if awaited == "all" else alike.add_statistics
                    at = add_more(data, at, min(self._counts.next(data, at, end), at + STRETCH_BYTES))
                continue
            if (sourced := read(data[begin:stop])) is None:
                if not (
                    formats.is_unknown and formats.may_learn and begin >= learnt_to and has_keyword(data[begin:stop])
                ):
                    self._at = begin
                    self.remarks.pass_over(data[begin:stop], formats.is_unknown, self._place)
                    continue
                learnt_to = begin + _WINDOW_BYTES
                if learnt_to > end and not whole:
                    self._before = passed_over(self._before, data, before, begin)
                    return begin
                lines = data[max(0, begin - _WINDOW_BYTES // 8) : learnt_to].split(b"\n")
                if not formats.learn(lines[bool(begin) :]) or (sourced := read(data[begin:stop])) is None:
                    self._at = begin
                    self.remarks.pass_over(data[begin:stop], formats.is_unknown, self._place)
                    continue
            if formats.indent and (at >= end or data[at] == 32):
                begun, at = at, formats.more(data, at, end)
                if at >= end and not whole and end - begin < LONGEST_BYTES:
                    self._before = passed_over(self._before, data, before, begin)
                    return begin
                if at > begun:
                    sourced = formats.join(sourced, data[begun:at])
            if stop - begin == cut_width:
                sourced = sourced[0]._replace(text=whole_part(sourced[0].text)), sourced[1]
            self.fed, self._passed = self.fed + 1, 0
            self._at = begin
            take(sourced)
            alike = self._alike()
            awaited = reports.awaits if alike is None else alike.incident.awaits
        self._before = passed_over(self._before, data, at, at)
        return at

    def _place(self) -> LogPosition:
        """Of the line that was read last."""
        if self._export is not None or self._terminal.broken_width:  # the lines there are no longer those of the log
            return LogPosition(-1, None)
        line = self._fed_newlines - self._data.count(b"\n", self._at) + 1 if self._counts_lines else None
        return LogPosition(self._fed_bytes - len(self._data) + self._at, line)

    def refuse(self, text: bytes) -> None:
        """As `Doubts`."""
        self.remarks.refuse(text, self._place)

    def panic(self, text: bytes) -> None:
        """As `Doubts`."""
        self.remarks.panic(text, self._place)

    def spare(self, text: bytes) -> None:
        """As `Doubts`."""
        self.remarks.spare(text, self._place)

    def leave_unfinished(self, trigger: bytes | None) -> None:
        """As `Doubts`."""
        self.remarks.leave_unfinished(trigger)

    def _alike(self) -> SamePrefixReader | None:
        incident = self._reports.only()
        prefix = None if incident is None else self._formats.prefix()
        return None if incident is None or prefix is None else SamePrefixReader(prefix, incident)

    def _seek_words(self, data: bytes) -> None:
        """Look for what counts in these data; each word that is looked for takes time."""
        begins: tuple[bytes, ...] = self._begin_words
        counts: tuple[bytes, ...] = self._count_words
        begins, counts = with_spelled(data, begins, counts, self._is_spaced)
        if self._fed_bytes <= _OTHERS_BYTES:
            begins, counts = (*begins, *OTHER_WORDS), tuple({*counts, *OTHER_WORDS})
        self._begins, self._counts = WordSearch(begins), WordSearch(counts)

    def _take(self, sourced: Sourced) -> None:
        if self._boots is not None and sourced[0].text.startswith(_BOOT):
            self._reports.end_of(sourced[1].host)
            self._boots(sourced[1])
        self._reports.feed(sourced)

    def _next_entry(self, data: bytes, at: int, end: int) -> int:
        awaited = self._reports.awaits
        return self._begins.next(data, at, end) if awaited == "words" else self._next(data, at, end, awaited)

    def _next_detail(self, data: bytes, at: int, end: int) -> int:
        awaited = self._reports.awaits
        return self._next(data, at, end, "details" if awaited == "words" else awaited)

    def _next(self, data: bytes, at: int, end: int, awaited: Awaited) -> int:
        """The next place, from ``at`` on, in a line that may count."""
        if awaited == "details":
            return self._counts.next(data, at, end)
        if awaited == "words":
            place = self._begins.next(data, at, end)
            if place >= end:
                return end
            return min(place, self._counts.next(data, max(at, place - LOOK_BACK_BYTES), end))
        if awaited in ("lines", "all"):
            return at
        nearest = self._counts.next(data, at, end)
        if awaited == "trace":
            found = data.find(TRACE_WORD, at, nearest)
            return nearest if found < 0 else found
        nearest = min(nearest, at + STRETCH_BYTES)
        statistic = STATISTIC.search(data, at, nearest)
        return nearest if statistic is None else statistic.start()
