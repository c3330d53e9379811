# SPDX-License-Identifier: Apache-2.0
"""Sources of kernel log in, the records of those of their OOM kills out that are wanted.

for record in KillSearch(KillFilter(container="5aaf9eb7648e", since="-2h")).kills(["/var/log/kern.log", "/dev/kmsg"]):
"""

import re
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from typing import NamedTuple

from tracer.base.clock import monotonic_ns
from tracer.base.errors import EXIT_USAGE, TracerError
from tracer.encoding import encoder
from tracer.identity.enrich import enrich_cgroups
from tracer.logs import kmsg
from tracer.logs.boots import Boots, LatestBoots, latest
from tracer.logs.host_reports import HostReports
from tracer.logs.log_file import PAUSE_S, LogFile
from tracer.logs.log_line import Origin
from tracer.logs.log_records import LogRecords
from tracer.logs.remarks import AllRemarks, Remark
from tracer.logs.scan import LogScan
from tracer.logs.this_boot import ThisBoot
from tracer.logs.times import Calendar, Period, read_zone
from tracer.logs.victim_report import VictimReport
from tracer.records.matching import OwnerFilter
from tracer.records.model import Host, OomKill

_PAUSE_NS = int(PAUSE_S * 1e9)
_LONGEST_HELD_S = 2 * PAUSE_S
"""After all that was there was read: a last line may wait for the next one, and the report that it ends for a pause."""
_ROOM = 64
"""So many more are kept until the latest are looked for."""


class KillFilter(NamedTuple):
    """Which kills; None: all."""

    since: str | None = None
    until: str | None = None
    container: str | None = None
    """This and ``unit``, ``pod`` and ``cgroup`` are the options of that name (tracer/records/matching.py)."""
    unit: str | None = None
    grep: str | None = None
    """A regular expression that the record's JSON matches."""
    boot: str | None = None
    """An id, or a number as journalctl counts: 0 the last boot, -1 the one before, 1 the first."""
    pid: int | None = None
    """The victim's, of the process or of the thread that the kernel named."""
    comm: str | None = None
    """The victim's name; `*` and `?` may be in it."""
    last: int | None = None
    """So many at most, the latest."""
    pod: str | None = None
    cgroup: str | None = None


class ReadOptions(NamedTuple):
    """How logs are read."""

    boot_time: str | None = None
    """When a host booted whose log tells only the time since then."""
    timezone: str | None = None
    """Of times without one; None: this machine's."""
    follow: bool = False
    """Whether to go on with what is added."""


class KillSearch:
    """One search.

    Raises TracerError where what is wanted makes no sense.
    """

    def __init__(self, wanted: KillFilter | None = None, form: ReadOptions | None = None) -> None:
        wanted, form = wanted or KillFilter(), form or ReadOptions()
        self._form = form
        self._zone = None if form.timezone is None else read_zone(form.timezone)
        calendar = Calendar(self._zone)
        self._boot_ns = None if form.boot_time is None else calendar.parse_moment(form.boot_time)
        self._filter = _KillMatcher(wanted, calendar)
        self._reports = HostReports(self._add)
        """Of all files: where a log was rotated within one, the next file goes on with it."""
        self._records: dict[Origin, LogRecords] = {}
        self._this_boot: ThisBoot | None = None
        self._last: list[OomKill] | None = None if wanted.last is None else []
        self._most = wanted.last or 0
        self._remarks = AllRemarks()
        self._calendar = calendar
        """Of the log that is read."""
        self._boots = Boots()
        self._boot_number = _number(wanted.boot)
        back = self._boot_number is not None and self._boot_number <= 0
        if back and form.follow and self._boot_number != 0:
            raise TracerError("--follow takes no boot that is over", "leave out --follow", EXIT_USAGE)
        self._latest = LatestBoots(self._boots, -(self._boot_number or 0)) if back else None
        self._found: list[OomKill] = []
        self.undated = 0
        """How many kills had no date: their log tells only the time since some boot."""
        self.unread_dates = 0
        """How many had one that could not be read: months of another language, days that no calendar has."""

    def kills(
        self, sources: Iterable[str], unreadable: Callable[[TracerError], None] | None = None
    ) -> Iterator[OomKill]:
        """The kills in the sources, in their order: paths, ``-`` for standard input, ``/dev/kmsg`` for this boot's log.

        A source that cannot be read, or not to its end, is told to ``unreadable``; without one TracerError is raised.
        """
        for source in sources:
            try:
                yield from self._read(source)
            except TracerError as error:
                if unreadable is None:
                    self._reports.end()
                yield from self._take()
                if unreadable is None:
                    raise
                unreadable(error)
        yield from self.held()

    def remarks(self) -> Iterator[Remark]:
        """What the logs have beside the kills, when all are read: lines that could not be, kills by other killers."""
        return self._remarks.make_remarks()

    def held(self) -> Iterator[OomKill]:
        """What is held back until it is known what is last; `kills` ends with it, unless it is interrupted."""
        self._reports.end()
        yield from self._release()

    def _release(self) -> Iterator[OomKill]:
        if self._latest is not None:
            for record in self._latest.release():
                self._pass(record)
        if self._last is not None:
            self._found.extend(latest(self._last, self._most))
            self._last = None
        yield from self._take()

    def _take(self) -> Iterator[OomKill]:
        found, self._found = self._found, []
        yield from found

    def _read(self, path: str) -> Iterator[OomKill]:
        if path == kmsg.PATH:
            self._reports.end()
            this_boot = self._boot()
            for report in this_boot.reports(PAUSE_S if self._form.follow else None):
                if report is None:
                    yield from self._current()
                    continue
                host = this_boot.host
                self._put(this_boot.records.oom_kill(report), host, report, Origin(host["name"], host["boot_id"]))
                yield from self._take()
            return
        file = LogFile(path)
        calendar = Calendar(self._zone, file.modified_ns)
        begin = None if self._boot_number is None else self._boots.begin
        counts_lines = self._form.follow or not file.is_rereadable
        scan = LogScan(calendar, self._add, begin, reports=self._reports, counts_lines=counts_lines)
        self._calendar = calendar
        self._remarks.add_log(file.name, scan.remarks, file.line_number_at)
        try:
            if self._form.follow:
                yield from self._follow(file, scan, calendar)
            else:
                for block in file.blocks():
                    scan.feed(block)
                    yield from self._take()
        finally:
            scan.end()
            file.close()
        yield from self._take()
        if scan.has_begun and not scan.recognized and not scan.remarks.has_kernel_lines:
            raise TracerError(
                f"{file.name} is no kernel log",
                "give the output of dmesg, of journalctl (as text or -o json, not json-pretty), or a file of syslog",
            )

    def _follow(self, file: LogFile, scan: LogScan, calendar: Calendar) -> Iterator[OomKill]:
        fed, fed_ns, is_live = 0, 0, False
        for block in file.follow():
            if block:
                if is_live:
                    calendar.follow()
                scan.feed(block)
            is_live = file.live_s > 0
            if scan.relevant_lines != fed:
                fed, fed_ns = scan.relevant_lines, monotonic_ns()
            if not block or (not scan.is_idle and monotonic_ns() - fed_ns > _PAUSE_NS):
                scan.pause()
            yield from self._current() if not block or file.live_s > _LONGEST_HELD_S else self._take()

    def _current(self) -> Iterator[OomKill]:
        """What there was when the log was opened: from now on each kill is told at once."""
        yield from self._release()
        self._latest = None
        if self._boot_number == 0:
            self._boot_number = None

    def _boot(self) -> ThisBoot:
        if self._this_boot is None:
            self._this_boot = ThisBoot()
        return self._this_boot

    def _add(self, report: VictimReport, origin: Origin) -> None:
        host: Host = {"name": origin.host, "boot_id": origin.boot_id, "kernel": None, "labels": None}
        records = self._records.get(origin)
        if records is None:
            self._records.clear()
            records = self._records[origin] = LogRecords((origin.boot_id or "0").split("-")[0], None, None)
        dated = report
        if report.wall_ns is None and report.clock != "unknown":
            if self._boot_ns is not None:
                dated = report._replace(wall_ns=self._boot_ns + (report.time_ns or 0))
            elif self._boot().has(report):
                host, records = self._boot().host, self._boot().dated
        self._put(records.oom_kill(dated), host, report, origin)

    def _put(self, record: OomKill, host: Host, report: VictimReport, origin: Origin) -> None:
        record["host"] = host
        enrich_cgroups(record)
        number = None if self._boot_number is None else self._boots.of(report, origin)
        if not self._filter.takes(record):
            return
        if record["time"] is None:
            self.unread_dates += report.clock == "unknown"
            self.undated += report.clock != "unknown"
        self._remarks.add_kill(record["time"], self._calendar.assumes_year)
        if not self._filter.period.contains(record["time"]):
            return
        if self._latest is not None and number is not None:
            self._latest.add(record, origin.host, number)
        elif number is None or number == self._boot_number:
            self._pass(record)

    def _pass(self, record: OomKill) -> None:
        (self._found if self._last is None else self._last).append(record)
        if self._last is not None and len(self._last) > 2 * self._most + _ROOM:
            self._last = latest(self._last, self._most)


class _KillMatcher:
    def __init__(self, wanted: KillFilter, calendar: Calendar) -> None:
        self._wanted = wanted
        self.period = Period(wanted.since, wanted.until, calendar)
        self._owner = OwnerFilter(wanted.container, wanted.pod, wanted.unit, wanted.cgroup)
        self._boot = None
        if wanted.boot is not None and _number(wanted.boot) is None:
            self._boot = wanted.boot.replace("-", "").lower()
            if re.fullmatch(r"[0-9a-f]{32}", self._boot) is None:
                hint = (
                    "give one as journalctl --list-boots shows it, or 0 for the last in the log, -1 for the one before"
                )
                raise TracerError(f"no boot: {wanted.boot!r}", hint, EXIT_USAGE)
        try:
            self._grep = None if wanted.grep is None else re.compile(wanted.grep.encode("utf-8", "surrogateescape"))
        except re.error as error:
            raise TracerError(f"no regular expression: {wanted.grep!r}", str(error), EXIT_USAGE) from error

    def takes(self, record: OomKill) -> bool:
        """Whether it is of what is wanted, whenever it was."""
        wanted, victim = self._wanted, record["victim"]
        if self._boot is not None and (record["host"]["boot_id"] or "").replace("-", "") != self._boot:
            return False
        if wanted.pid is not None and wanted.pid not in (victim["pid"], victim["tid"]):
            return False
        if wanted.comm is not None and not fnmatchcase(victim["comm"] or "", wanted.comm):
            return False
        if not self._owner.matches(record, victim["cgroup"]):
            return False
        return self._grep is None or self._grep.search(encoder.encode(record)) is not None


def _number(boot: str | None) -> int | None:
    return int(boot) if boot is not None and re.fullmatch(r"[+-]?\d{1,9}", boot) else None


LogKills, Wanted, Form = KillSearch, KillFilter, ReadOptions
"""Former names; scripts that import them keep working."""
