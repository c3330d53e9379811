# SPDX-License-Identifier: Apache-2.0
"""A log, block by block -> its reports of OOM kills.

Most of a log is irrelevant.  The scan searches for a few words, one of which is in each relevant line; what lies
between is neither split into lines nor decoded.  It takes constant memory, and never raises, whatever its input is.
"""

from collections.abc import Callable

from tracer.logs.host_reports import HostReports, OnReport
from tracer.logs.journal import EXPORT, LONGEST_BYTES, Export
from tracer.logs.line_reader import LineReader
from tracer.logs.log_line import LogLine, Origin
from tracer.logs.oom_details import Awaited
from tracer.logs.oom_report import DETAIL_KEYWORDS, KEYWORDS, STATISTIC, TRACE_WORD, has_keyword, may_begin_report
from tracer.logs.remarks import OTHER_KILLERS_WORDS, LogPosition, Remarks
from tracer.logs.same_prefix import SamePrefixReader
from tracer.logs.terminal import Terminal, detect_terminal, trim_cut_line
from tracer.logs.times import Calendar
from tracer.logs.word_search import (
    LOOK_BACK_BYTES,
    SPACED_JSON,
    STRETCH_BYTES,
    WordSearch,
    add_json_spellings,
    find_lines_before,
    keep_skipped,
)

OnBoot = Callable[[Origin], None]

_BOOT = b"Linux version "
"""Begins the first line that a kernel prints."""
_SAMPLE_LINES = 256
_SAMPLE_BYTES = 64 * STRETCH_BYTES
_INFER_WINDOW_BYTES = 65536
"""The prefix of the lines of a report is inferred from a window of this size."""
_OTHER_KILLERS_BYTES = 4 << 20
"""The search for kills by other killers, and for panics without a report, covers the first bytes of a log."""
_REPORT_TIMEOUT_BYTES = 4 << 20
"""Open reports are completed after so many bytes without a relevant line."""


class LogScan:
    """Reads one log."""

    def __init__(
        self,
        calendar: Calendar,
        on_report: OnReport,
        on_boot: OnBoot | None = None,
        reports: HostReports | None = None,
        counts_lines: bool = True,
    ) -> None:
        """``on_boot`` is called when a host boots.

        ``reports``: of the log that this one continues; it then replaces ``on_report``, and is not ended here.
        ``counts_lines``: if False, remarks have offsets only, which is faster.
        """
        self._on_boot = on_boot
        self._begin_keywords = KEYWORDS if on_boot is None else (*KEYWORDS, _BOOT)
        self._detail_keywords = DETAIL_KEYWORDS if on_boot is None else (*DETAIL_KEYWORDS, _BOOT)
        self._is_spaced_json = False
        """Whether there are blanks in the JSON of the log."""
        self._reader = LineReader(calendar)
        self._reports = reports or HostReports(on_report)
        self._has_own_reports = reports is None
        self._reports.observer = self
        self.remarks = Remarks()
        self._counts_lines = counts_lines
        self._fed_bytes = self._fed_newlines = 0
        self._data, self._at = b"", 0
        """The data, and the offset in it of the last line."""
        self._export: Export | None = None
        self._terminal = Terminal()
        self.has_begun = self._is_overlong = False
        self._rest = b""
        """The end of the data that was not read yet: an incomplete or continued last line, and lines before it."""
        self._skipped = memoryview(b"")
        """The last bytes in front of the rest that were skipped since the last line was read."""
        self._begin_search, self._detail_search = WordSearch(self._begin_keywords), WordSearch(self._detail_keywords)
        self._irrelevant_bytes = 0
        self.relevant_lines = 0
        """The number of lines that were relevant, or may have been."""

    @property
    def recognized(self) -> int:
        """The number of lines or entries that are of a log; those that were skipped are not counted."""
        return self._export.recognized if self._export is not None else self._reader.recognized

    @property
    def is_idle(self) -> bool:
        """Whether no report is open."""
        return self._reports.awaits == "words"

    def feed(self, block: bytes) -> None:
        """Read the next block of the log."""
        self._irrelevant_bytes += len(block)
        self._fed_bytes += len(block)
        if self._counts_lines:
            self._fed_newlines += block.count(b"\n")
        if self._irrelevant_bytes > _REPORT_TIMEOUT_BYTES:
            self._reports.end()
        if self._is_overlong:
            _, newline, block = block.partition(b"\n")
            if not newline:
                return
            self._is_overlong = False
        data = self._rest + block if self._rest else block
        if self._export is None and b"\n" not in block and len(data) < LONGEST_BYTES:
            self._rest = data
            return
        if not self.recognized:
            self._detect(data)
        if self._terminal.changes:
            data = self._terminal.clean(data)
        if self._export is not None:
            self._rest = data[self._read_entries(self._export, data) :]
            return
        data = self._look_back(data)
        end = data.rfind(b"\n") + 1
        if self._terminal.broken_width:  # the last line may continue
            end = data.rfind(b"\n", 0, end - 1) + 1
        if len(data) - end > LONGEST_BYTES:
            self._read_lines(data, end, is_complete=True)
            self._is_overlong, self._rest, self._skipped = True, b"", memoryview(b"")
        else:
            self._rest = data[self._read_lines(data, end) :]

    def pause(self) -> None:
        """Complete all reports: nothing was added to the log for a while."""
        self._read_rest()
        self._reports.end()

    def end(self) -> None:
        """The log ends here; a last line without a newline may be cut, and is ignored."""
        if not self.recognized and self._rest:
            self._detect(self._rest)
            if self._terminal.changes:
                self._rest = self._terminal.clean(self._rest)
        self._read_rest()
        if self._has_own_reports:
            self._reports.end()
        self._rest, self._is_overlong = b"", False

    def _read_rest(self) -> None:
        if self.has_begun and self._export is None:
            data = self._look_back(self._rest)
            end = data.rfind(b"\n") + 1
            self._read_lines(data, end, is_complete=True)
            self._rest = data[end:]

    def _detect(self, data: bytes) -> None:
        """Detect the format of a log by its first lines."""
        if self._export is not None:
            return
        if not self.has_begun and EXPORT.match(data) is not None:
            self.has_begun, self._export = True, Export()
            return
        if not self.has_begun:
            self._terminal = detect_terminal(data[:_SAMPLE_BYTES])
            if self._terminal.is_colored and not self._counts_lines:  # offsets in clean data are not those of the log
                self._counts_lines, self._fed_newlines = True, data.count(b"\n")
        self.has_begun = True
        if self._terminal.changes:
            data = self._terminal.clean(data)
        sample = data[:_SAMPLE_BYTES].split(b"\n", _SAMPLE_LINES)[:_SAMPLE_LINES]
        self._is_spaced_json = self._is_spaced_json or any(map(SPACED_JSON.match, sample))
        for line in sample:
            self._reader.read(line)

    def _look_back(self, data: bytes) -> bytes:
        """The data, and in front of it what was skipped, if that may be of a report that begins in the data."""
        self._start_search(data)
        if not self._skipped or not self.is_idle or self._begin_search.find(data, 0, len(data)) >= LOOK_BACK_BYTES:
            return data
        skipped, self._skipped = bytes(self._skipped), memoryview(b"")
        self._start_search(skipped + data)
        return skipped + data

    def _read_entries(self, export: Export, data: bytes) -> int:
        """Read entries of the export format; gives the position from which on the data has to be kept."""
        self._begin_search, self._detail_search = WordSearch(self._begin_keywords), WordSearch(self._detail_keywords)
        at = 0
        for line in export.read(data, self._seek_entry):
            if not self.is_idle:
                at = export.at
            elif may_begin_report(line.text):
                end = data.rfind(b"\n\n", at, export.at - 2)
                self._skipped = keep_skipped(self._skipped, data, at, at if end < 0 else end + 2)
                self._read_skipped_entries()
                at = export.at
            self.relevant_lines, self._irrelevant_bytes = self.relevant_lines + 1, 0
            self._feed_line(line)
        self._skipped = keep_skipped(self._skipped, data, at, export.at)
        return export.at

    def _read_skipped_entries(self) -> None:
        """Read the entries that were skipped and may be of the report that the next entry belongs to."""
        skipped, self._skipped = bytes(self._skipped), memoryview(b"")
        if len(skipped) == LOOK_BACK_BYTES:  # begins within an entry
            skipped = skipped[skipped.find(b"\n\n") + 2 :]
        search, self._detail_search = self._detail_search, WordSearch(self._detail_keywords)
        for line in Export().read(skipped, self._seek_detail):
            self._feed_line(line)
        self._detail_search = search

    def _read_lines(self, data: bytes, end: int, is_complete: bool = False) -> int:
        """Read lines, up to ``end``; gives the position from which on the data has to be kept.

        ``is_complete``: nothing follows the data, and nothing has to be kept.
        """
        reader, reports, at = self._reader, self._reports, 0
        self._data = data
        read, find, seek = reader.read, data.find, self._seek
        feed_line = reports.feed if self._on_boot is None else self._feed_line
        same_prefix: SamePrefixReader | None = None
        inferred_to, cut_width = 0, self._terminal.cut_width or -1
        awaited = reports.awaits
        while at < end:
            hit = seek(data, at, end, awaited)
            if hit >= end:
                kept = end if is_complete else max(at, find_lines_before(data, at, end))
                self._skipped = keep_skipped(self._skipped, data, at, kept)
                return kept
            begin = data.rfind(b"\n", at, hit) + 1
            if begin <= at:
                begin = at
            elif data[begin] == 32:
                begin = find_lines_before(data, at, hit)
            stop = find(b"\n", begin, end)
            before, at = at, stop + 1
            if same_prefix is not None and same_prefix.add(data, begin, stop):
                awaited = same_prefix.incident.awaits
                if awaited in ("all", "statistics"):
                    add_more = same_prefix.add_rows if awaited == "all" else same_prefix.add_statistics
                    at = add_more(data, at, min(self._detail_search.find(data, at, end), at + STRETCH_BYTES))
                continue
            line = read(data[begin:stop])
            if line is None and begin >= inferred_to and self._may_infer(data[begin:stop]):
                inferred_to = begin + _INFER_WINDOW_BYTES
                if inferred_to > end and not is_complete:
                    self._skipped = keep_skipped(self._skipped, data, before, begin)
                    return begin
                line = self._infer_and_read(data, begin, stop)
            if line is None:
                self._at = begin
                self.remarks.add_unread_line(data[begin:stop], reader.is_unknown, self._position)
                continue
            if reader.indent and (at >= end or data[at] == 32):
                continued, at = at, reader.end_of_record(data, at, end)
                if at >= end and not is_complete and end - begin < LONGEST_BYTES:
                    self._skipped = keep_skipped(self._skipped, data, before, begin)
                    return begin
                if at > continued:
                    line = reader.join(line, data[continued:at])
            if stop - begin == cut_width:
                line = line._replace(text=trim_cut_line(line.text))
            self.relevant_lines, self._irrelevant_bytes = self.relevant_lines + 1, 0
            self._at = begin
            feed_line(line)
            same_prefix = self._same_prefix_reader()
            awaited = reports.awaits if same_prefix is None else same_prefix.incident.awaits
        self._skipped = keep_skipped(self._skipped, data, at, at)
        return at

    def _may_infer(self, raw: bytes) -> bool:
        """Whether a prefix may be inferred from the lines around the last line, which was not read."""
        return self._reader.is_unknown and self._reader.may_infer and has_keyword(raw)

    def _infer_and_read(self, data: bytes, begin: int, stop: int) -> LogLine | None:
        """Infer the prefix of the lines around a line, and read that line."""
        window = max(0, begin - _INFER_WINDOW_BYTES // 8), begin + _INFER_WINDOW_BYTES
        lines = data[slice(*window)].split(b"\n")
        if not self._reader.infer_prefix(lines[bool(begin) :]):
            return None
        return self._reader.read(data[begin:stop])

    def _position(self) -> LogPosition:
        """Of the last line."""
        if self._export is not None or self._terminal.broken_width:  # these lines are not the lines of the log
            return LogPosition(-1, None)
        line = self._fed_newlines - self._data.count(b"\n", self._at) + 1 if self._counts_lines else None
        return LogPosition(self._fed_bytes - len(self._data) + self._at, line)

    def on_unparsed(self, text: bytes) -> None:
        """As `ReportObserver`."""
        self.remarks.add_unparsed(text, self._position)

    def on_panic(self, text: bytes) -> None:
        """As `ReportObserver`."""
        self.remarks.add_panic(text, self._position)

    def on_no_killable(self, text: bytes) -> None:
        """As `ReportObserver`."""
        self.remarks.add_no_killable(text, self._position)

    def on_unfinished(self, trigger_comm: bytes | None) -> None:
        """As `ReportObserver`."""
        self.remarks.add_unfinished(trigger_comm)

    def _same_prefix_reader(self) -> SamePrefixReader | None:
        incident = self._reports.only_incident()
        prefix = None if incident is None else self._reader.prefix()
        return None if incident is None or prefix is None else SamePrefixReader(prefix, incident)

    def _start_search(self, data: bytes) -> None:
        """Choose the words to search for in the data; each word takes time."""
        begins: tuple[bytes, ...] = self._begin_keywords
        details: tuple[bytes, ...] = self._detail_keywords
        begins, details = add_json_spellings(data, begins, details, self._is_spaced_json)
        if self._fed_bytes <= _OTHER_KILLERS_BYTES:
            begins, details = (*begins, *OTHER_KILLERS_WORDS), tuple({*details, *OTHER_KILLERS_WORDS})
        self._begin_search, self._detail_search = WordSearch(begins), WordSearch(details)

    def _feed_line(self, line: LogLine) -> None:
        if self._on_boot is not None and line.text.startswith(_BOOT):
            self._reports.end_host(line.origin.host)
            self._on_boot(line.origin)
        self._reports.feed(line)

    def _seek_entry(self, data: bytes, at: int, end: int) -> int:
        awaited = self._reports.awaits
        return self._begin_search.find(data, at, end) if awaited == "words" else self._seek(data, at, end, awaited)

    def _seek_detail(self, data: bytes, at: int, end: int) -> int:
        awaited = self._reports.awaits
        return self._seek(data, at, end, "details" if awaited == "words" else awaited)

    def _seek(self, data: bytes, at: int, end: int, awaited: Awaited) -> int:
        """The next position, from ``at`` on, in a line that may be relevant."""
        if awaited == "details":
            return self._detail_search.find(data, at, end)
        if awaited == "words":
            place = self._begin_search.find(data, at, end)
            if place >= end:
                return end
            return min(place, self._detail_search.find(data, max(at, place - LOOK_BACK_BYTES), end))
        if awaited in ("lines", "all"):
            return at
        nearest = self._detail_search.find(data, at, end)
        if awaited == "trace":
            found = data.find(TRACE_WORD, at, nearest)
            return nearest if found < 0 else found
        nearest = min(nearest, at + STRETCH_BYTES)
        statistic = STATISTIC.search(data, at, nearest)
        return nearest if statistic is None else statistic.start()
