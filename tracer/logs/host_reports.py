# SPDX-License-Identifier: Apache-2.0
"""Lines of many hosts and boots, interleaved as in a central log -> reports."""

from collections.abc import Callable

from tracer.logs.log_line import UNKNOWN_ORIGIN, LogLine, Origin
from tracer.logs.oom_details import Awaited
from tracer.logs.oom_incident import LoggedIncident
from tracer.logs.oom_report import ReportAssembler, ReportObserver, may_begin_report, widest_awaited
from tracer.logs.victim_report import VictimReport

OnReport = Callable[[VictimReport, Origin], None]
OnLine = Callable[[LogLine], None]

_MOST_ORIGINS = 64
_COMPLETE_AFTER_NS = 10_000_000_000
"""No line of an incident follows its kill after this time, even if another host's clock differs."""


class HostReports:
    """Assembles the reports of each host and boot.

    ``on_line`` is called with each line that is fed, after the reports that the line completes.
    """

    def __init__(self, on_report: OnReport, on_line: OnLine | None = None) -> None:
        self.observer: ReportObserver | None = None
        """Of the log that is being read."""
        self._on_report = on_report
        self._on_line = on_line
        self._assemblers: dict[Origin, ReportAssembler] = {}
        """Those with open reports."""
        self._awaited: dict[Origin, Awaited] = {}
        """What each of several assemblers awaits; out of date for the origin of the last line."""
        self._origin = UNKNOWN_ORIGIN
        """Of the last line."""
        self._last_ns: dict[Origin, int] = {}
        """The timestamp of the last line of each open assembler."""

    def feed(self, line: LogLine) -> None:
        """Take a line."""
        origin = line.origin
        if origin != self._origin:
            if (previous := self._assemblers.get(self._origin)) is not None:
                self._awaited[self._origin] = previous.awaits
            self._origin = origin
        assembler = self._assemblers.get(origin)
        if line.wall_ns is not None and len(self._assemblers) > (assembler is not None):
            self._complete_others(origin, line.wall_ns)
        if assembler is None:
            if not may_begin_report(line.text):
                return
            if len(self._assemblers) >= _MOST_ORIGINS:
                self._end_origin(next(iter(self._assemblers)))
            assembler = self._assemblers[origin] = ReportAssembler(self)
        for report in assembler.feed(line):
            self._on_report(report, origin)
        if self._on_line is not None:
            self._on_line(line)
        if not assembler.has_open_reports:
            self._remove(origin)
            return
        if len(self._assemblers) > 1:
            self._awaited[origin] = assembler.awaits
        if line.wall_ns is not None:
            self._last_ns[origin] = line.wall_ns

    @property
    def awaits(self) -> Awaited:
        """Which lines have to be fed."""
        only = self._only_assembler()
        return widest_awaited(self._awaited.values()) if only is None else only.awaits

    def only_incident(self) -> LoggedIncident | None:
        """As `ReportAssembler.only_incident`, for lines with the same prefix as the last line."""
        only = self._only_assembler() if self._on_line is None else None
        return None if only is None else only.only_incident()

    def _only_assembler(self) -> ReportAssembler | None:
        """The assembler of the last line, if no other one is open."""
        return self._assemblers.get(self._origin) if len(self._assemblers) == 1 else None

    def _complete_others(self, origin: Origin, wall_ns: int) -> None:
        """Complete the old reports of other origins, so that kills come in the order of their timestamps."""
        for other in [each for each, last_ns in self._last_ns.items() if wall_ns - last_ns > _COMPLETE_AFTER_NS]:
            if other == origin:
                continue
            assembler = self._assemblers[other]
            for report in assembler.complete():
                self._on_report(report, other)
            if not assembler.has_open_reports:
                self._remove(other)

    def _remove(self, origin: Origin) -> ReportAssembler:
        self._awaited.pop(origin, None)
        self._last_ns.pop(origin, None)
        return self._assemblers.pop(origin)

    def on_unparsed(self, text: bytes) -> None:
        """As `ReportObserver`."""
        if self.observer is not None:
            self.observer.on_unparsed(text)

    def on_panic(self, text: bytes) -> None:
        """As `ReportObserver`."""
        if self.observer is not None:
            self.observer.on_panic(text)

    def on_no_killable(self, text: bytes) -> None:
        """As `ReportObserver`."""
        if self.observer is not None:
            self.observer.on_no_killable(text)

    def on_unfinished(self, trigger_comm: bytes | None) -> None:
        """As `ReportObserver`."""
        if self.observer is not None:
            self.observer.on_unfinished(trigger_comm)

    def end(self) -> None:
        """Complete all reports: the log ends here, or nothing was added to it for a while."""
        for origin in list(self._assemblers):
            self._end_origin(origin)

    def end_host(self, host: str | None) -> None:
        """Complete the reports of a host that boots."""
        for origin in [each for each in self._assemblers if each.host == host]:
            self._end_origin(origin)

    def _end_origin(self, origin: Origin) -> None:
        for report in self._remove(origin).end():
            self._on_report(report, origin)
