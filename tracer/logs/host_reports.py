# SPDX-License-Identifier: Apache-2.0
"""Lines of many hosts and boots, mixed as a central log has them -> reports."""

from collections.abc import Callable

from tracer.logs.formats import NOWHERE, Origin, Sourced
from tracer.logs.oom_details import Awaited
from tracer.logs.oom_incident import LoggedIncident
from tracer.logs.oom_lines import LogLine
from tracer.logs.oom_report import ReportAssembler, ReportObserver, may_begin_report, widest_awaited
from tracer.logs.victim_report import VictimReport

Emit = Callable[[VictimReport, Origin], None]
Heard = Callable[[LogLine, Origin], None]

_MOST_HOSTS = 64
_SETTLED_NS = 10_000_000_000
"""So much later than a victim nothing more of its incident comes, though another host's clock may be off."""


class HostReports:
    """Joins the lines of each host and boot.

    ``heard`` is given each line that counts, after the reports that it completes.
    """

    def __init__(self, emit: Emit, heard: Heard | None = None) -> None:
        self.doubts: ReportObserver | None = None
        """Of the log that is read."""
        self._emit = emit
        self._heard = heard
        self._open: dict[Origin, ReportAssembler] = {}
        self._awaiting: dict[Origin, Awaited] = {}
        """What each awaits, where there are several; that of the line before may have got more since."""
        self._origin = NOWHERE
        """Of the line before."""
        self._last_ns: dict[Origin, int] = {}
        """Stamps of the last lines of those that are open."""

    def feed(self, sourced: Sourced) -> None:
        """Take a line."""
        line, origin = sourced
        if origin != self._origin:
            if (before := self._open.get(self._origin)) is not None:
                self._awaiting[self._origin] = before.awaits
            self._origin = origin
        reports = self._open.get(origin)
        if line.wall_ns is not None and len(self._open) > (reports is not None):
            self._settle_others(origin, line.wall_ns)
        if reports is None:
            if not may_begin_report(line.text):
                return
            if len(self._open) >= _MOST_HOSTS:
                self._end(next(iter(self._open)))
            reports = self._open[origin] = ReportAssembler(self)
        for report in reports.feed(line):
            self._emit(report, origin)
        if self._heard is not None:
            self._heard(line, origin)
        if not reports.are_open:
            self._forget(origin)
            return
        if len(self._open) > 1:
            self._awaiting[origin] = reports.awaits
        if line.wall_ns is not None:
            self._last_ns[origin] = line.wall_ns

    @property
    def awaits(self) -> Awaited:
        """Which lines have to be fed."""
        alone = self._alone()
        return widest_awaited(self._awaiting.values()) if alone is None else alone.awaits

    def only(self) -> LoggedIncident | None:
        """That of `Reports`, for lines in front of which stands the same as before the one that was fed last."""
        alone = self._alone() if self._heard is None else None
        return None if alone is None else alone.only()

    def _alone(self) -> ReportAssembler | None:
        """That host's reports, if they are open and no other's are."""
        return self._open.get(self._origin) if len(self._open) == 1 else None

    def _settle_others(self, origin: Origin, wall_ns: int) -> None:
        """Kills come out in the order of time, where the log's stamps tell it."""
        for other in [each for each, last_ns in self._last_ns.items() if wall_ns - last_ns > _SETTLED_NS]:
            if other == origin:
                continue
            reports = self._open[other]
            for report in reports.settle():
                self._emit(report, other)
            if not reports.are_open:
                self._forget(other)

    def _forget(self, origin: Origin) -> ReportAssembler:
        self._awaiting.pop(origin, None)
        self._last_ns.pop(origin, None)
        return self._open.pop(origin)

    def refuse(self, text: bytes) -> None:
        """As `Doubts`."""
        if self.doubts is not None:
            self.doubts.refuse(text)

    def panic(self, text: bytes) -> None:
        """As `Doubts`."""
        if self.doubts is not None:
            self.doubts.panic(text)

    def spare(self, text: bytes) -> None:
        """As `Doubts`."""
        if self.doubts is not None:
            self.doubts.spare(text)

    def leave_unfinished(self, trigger: bytes | None) -> None:
        """As `Doubts`."""
        if self.doubts is not None:
            self.doubts.leave_unfinished(trigger)

    def end(self) -> None:
        """The log ends here, or nothing was added to it for a while."""
        for origin in list(self._open):
            self._end(origin)

    def end_of(self, host: str | None) -> None:
        """A host boots: nothing more comes of what is open."""
        for origin in [each for each in self._open if each.host == host]:
            self._end(origin)

    def _end(self, origin: Origin) -> None:
        for report in self._forget(origin).end():
            self._emit(report, origin)
