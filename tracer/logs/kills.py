# SPDX-License-Identifier: Apache-2.0
"""Searches kernel logs; gives the records of the OOM kills that a filter selects.

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
from tracer.logs.boots import Boots, LatestBoots, latest_kills
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
"""Kills are held back for this long after the end of the log was reached: a last line may wait for the next one, and
the report that it ends for a pause."""
_ROOM = 64
"""The number of kills kept beyond twice ``last`` before the latest are selected."""


class KillFilter(NamedTuple):
    """Selects kills; None: all."""

    since: str | None = None
    until: str | None = None
    container: str | None = None
    """This and ``unit``, ``pod`` and ``cgroup`` are the options of that name (tracer/records/matching.py)."""
    unit: str | None = None
    grep: str | None = None
    """A regular expression that the record's JSON matches."""
    boot: str | None = None
    """An id, or a number as in journalctl: 0 is the last boot, -1 the one before, 1 the first."""
    pid: int | None = None
    """The victim's pid, or the tid that the kernel logged."""
    comm: str | None = None
    """The victim's comm; may contain `*` and `?`."""
    last: int | None = None
    """The number of kills, the latest."""
    pod: str | None = None
    cgroup: str | None = None


class ReadOptions(NamedTuple):
    """How logs are read."""

    boot_time: str | None = None
    """The boot time of a host whose log has only the time since boot."""
    timezone: str | None = None
    """The zone of times without one; None: this machine's."""
    follow: bool = False
    """Whether to read what is added."""


class KillSearch:
    """One search.

    Raises TracerError for an invalid filter or option.
    """

    def __init__(self, kill_filter: KillFilter | None = None, options: ReadOptions | None = None) -> None:
        kill_filter, options = kill_filter or KillFilter(), options or ReadOptions()
        self._options = options
        self._zone = None if options.timezone is None else read_zone(options.timezone)
        calendar = Calendar(self._zone)
        self._boot_ns = None if options.boot_time is None else calendar.parse_moment(options.boot_time)
        self._matcher = _KillMatcher(kill_filter, calendar)
        self._reports = HostReports(self._on_report)
        """For all files: a report may continue in the next file, if the log was rotated."""
        self._records: dict[Origin, LogRecords] = {}
        self._this_boot: ThisBoot | None = None
        self._last_kills: list[OomKill] | None = None if kill_filter.last is None else []
        self._last_max = kill_filter.last or 0
        self._remarks = AllRemarks()
        self._calendar = calendar
        """Of the log that is being read."""
        self._boots = Boots()
        self._boot_number = _parse_number(kill_filter.boot)
        counts_back = self._boot_number is not None and self._boot_number <= 0
        if counts_back and options.follow and self._boot_number != 0:
            raise TracerError("--follow cannot be used with an earlier boot", "omit --follow", EXIT_USAGE)
        self._latest_boots = LatestBoots(self._boots, -(self._boot_number or 0)) if counts_back else None
        self._ready: list[OomKill] = []
        self.undated = 0
        """The number of kills without a date: their log has only the time since boot."""
        self.unparsed_dates = 0
        """The number of kills with a date that cannot be parsed: months in another language, days that do not exist."""

    def kills(
        self, sources: Iterable[str], unreadable: Callable[[TracerError], None] | None = None
    ) -> Iterator[OomKill]:
        """The kills in the sources, in their order: paths, ``-`` for standard input, ``/dev/kmsg`` for this boot's log.

        ``unreadable`` is called for a source that cannot be read, or not to its end; without it TracerError is raised.
        """
        for source in sources:
            try:
                yield from self._read(source)
            except TracerError as error:
                if unreadable is None:
                    self._reports.end()
                yield from self._drain()
                if unreadable is None:
                    raise
                unreadable(error)
        yield from self.end()

    def remarks(self) -> Iterator[Remark]:
        """What the logs contain beside kills, once all are read: lines that could not be parsed, kills by other
        killers."""
        return self._remarks.make_remarks()

    def end(self) -> Iterator[OomKill]:
        """The kills that were held back; `kills` ends with them, unless it is interrupted."""
        self._reports.end()
        yield from self._release()

    def _release(self) -> Iterator[OomKill]:
        if self._latest_boots is not None:
            for record in self._latest_boots.release():
                self._append(record)
        if self._last_kills is not None:
            self._ready.extend(latest_kills(self._last_kills, self._last_max))
            self._last_kills = None
        yield from self._drain()

    def _drain(self) -> Iterator[OomKill]:
        found, self._ready = self._ready, []
        yield from found

    def _read(self, path: str) -> Iterator[OomKill]:
        if path == kmsg.PATH:
            self._reports.end()
            this_boot = self._get_this_boot()
            for report in this_boot.reports(PAUSE_S if self._options.follow else None):
                if report is None:
                    yield from self._go_live()
                    continue
                host = this_boot.host
                self._add_record(
                    this_boot.records.oom_kill(report), host, report, Origin(host["name"], host["boot_id"])
                )
                yield from self._drain()
            return
        file = LogFile(path)
        calendar = Calendar(self._zone, file.modified_ns)
        begin = None if self._boot_number is None else self._boots.begin_boot
        counts_lines = self._options.follow or not file.is_rereadable
        scan = LogScan(calendar, self._on_report, begin, reports=self._reports, counts_lines=counts_lines)
        self._calendar = calendar
        self._remarks.add_log(file.name, scan.remarks, file.line_number_at)
        try:
            if self._options.follow:
                yield from self._follow(file, scan, calendar)
            else:
                for block in file.blocks():
                    scan.feed(block)
                    yield from self._drain()
        finally:
            scan.end()
            file.close()
        yield from self._drain()
        if scan.has_begun and not scan.recognized and not scan.remarks.has_kernel_lines:
            raise TracerError(
                f"{file.name} is not a kernel log",
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
            yield from self._go_live() if not block or file.live_s > _LONGEST_HELD_S else self._drain()

    def _go_live(self) -> Iterator[OomKill]:
        """The kills of the log as it was opened; from now on each kill is given at once."""
        yield from self._release()
        self._latest_boots = None
        if self._boot_number == 0:
            self._boot_number = None

    def _get_this_boot(self) -> ThisBoot:
        if self._this_boot is None:
            self._this_boot = ThisBoot()
        return self._this_boot

    def _on_report(self, report: VictimReport, origin: Origin) -> None:
        host: Host = {"name": origin.host, "boot_id": origin.boot_id, "kernel": None, "labels": None}
        records = self._records.get(origin)
        if records is None:
            self._records.clear()
            records = self._records[origin] = LogRecords((origin.boot_id or "0").split("-")[0], None, None)
        dated = report
        if report.wall_ns is None and report.clock != "unknown":
            if self._boot_ns is not None:
                dated = report._replace(wall_ns=self._boot_ns + (report.time_ns or 0))
            elif self._get_this_boot().has(report):
                host, records = self._get_this_boot().host, self._get_this_boot().dated
        self._add_record(records.oom_kill(dated), host, report, origin)

    def _add_record(self, record: OomKill, host: Host, report: VictimReport, origin: Origin) -> None:
        record["host"] = host
        enrich_cgroups(record)
        number = None if self._boot_number is None else self._boots.number_of(report, origin)
        if not self._matcher.matches(record):
            return
        if record["time"] is None:
            self.unparsed_dates += report.clock == "unknown"
            self.undated += report.clock != "unknown"
        self._remarks.add_kill(record["time"], self._calendar.assumes_year)
        if not self._matcher.period.contains(record["time"]):
            return
        if self._latest_boots is not None and number is not None:
            self._latest_boots.add(record, origin.host, number)
        elif number is None or number == self._boot_number:
            self._append(record)

    def _append(self, record: OomKill) -> None:
        (self._ready if self._last_kills is None else self._last_kills).append(record)
        if self._last_kills is not None and len(self._last_kills) > 2 * self._last_max + _ROOM:
            self._last_kills = latest_kills(self._last_kills, self._last_max)


class _KillMatcher:
    def __init__(self, kill_filter: KillFilter, calendar: Calendar) -> None:
        self._filter = kill_filter
        self.period = Period(kill_filter.since, kill_filter.until, calendar)
        self._owner = OwnerFilter(kill_filter.container, kill_filter.pod, kill_filter.unit, kill_filter.cgroup)
        self._boot = None
        if kill_filter.boot is not None and _parse_number(kill_filter.boot) is None:
            self._boot = kill_filter.boot.replace("-", "").lower()
            if re.fullmatch(r"[0-9a-f]{32}", self._boot) is None:
                hint = (
                    "give one as journalctl --list-boots shows it, or 0 for the last in the log, -1 for the one before"
                )
                raise TracerError(f"invalid boot: {kill_filter.boot!r}", hint, EXIT_USAGE)
        try:
            self._grep = (
                None if kill_filter.grep is None else re.compile(kill_filter.grep.encode("utf-8", "surrogateescape"))
            )
        except re.error as error:
            raise TracerError(f"invalid regular expression: {kill_filter.grep!r}", str(error), EXIT_USAGE) from error

    def matches(self, record: OomKill) -> bool:
        """Whether a kill is selected, regardless of its time."""
        kill_filter, victim = self._filter, record["victim"]
        if self._boot is not None and (record["host"]["boot_id"] or "").replace("-", "") != self._boot:
            return False
        if kill_filter.pid is not None and kill_filter.pid not in (victim["pid"], victim["tid"]):
            return False
        if kill_filter.comm is not None and not fnmatchcase(victim["comm"] or "", kill_filter.comm):
            return False
        if not self._owner.matches(record, victim["cgroup"]):
            return False
        return self._grep is None or self._grep.search(encoder.encode(record)) is not None


def _parse_number(boot: str | None) -> int | None:
    return int(boot) if boot is not None and re.fullmatch(r"[+-]?\d{1,9}", boot) else None


LogKills, Wanted, Form = KillSearch, KillFilter, ReadOptions
"""Former names, for scripts that import them."""
