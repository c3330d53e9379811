# SPDX-License-Identifier: Apache-2.0
"""Kernel logs -> records of their kills, with the lines of their incidents.

`LogReader` is the report's only interface to the readers of tracer/logs.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterator

from tracer.base.printable import printable
from tracer.identity.enrich import enrich_cgroups
from tracer.logs.host_reports import HostReports
from tracer.logs.log_file import LogFile
from tracer.logs.log_line import LogLine, Origin
from tracer.logs.log_records import LogRecords
from tracer.logs.remarks import AllRemarks, Remark
from tracer.logs.scan import LogScan
from tracer.logs.this_boot import ThisBoot, open_kmsg
from tracer.logs.times import Calendar
from tracer.logs.victim_report import VictimReport
from tracer.records.model import Host, OomKill

OnKill = Callable[[OomKill, tuple[str, ...]], None]

_INCIDENT_LINES_MAX = 200
"""Lines per incident: the task table has one for each process of the host."""
_KEPT_LINES = 4096


class LogReader:
    """Reads logs, one after the other; ``on_kill`` gets each kill with the printable lines of its incident.

    If a log was rotated within an OOM report, the next one continues it.
    """

    def __init__(self, on_kill: OnKill) -> None:
        self._on_kill = on_kill
        self._reports = HostReports(self._report, self._keep_line)
        self._scan: LogScan | None = None
        self._records: dict[Origin, LogRecords] = {}
        self._lines: dict[Origin, deque[LogLine]] = defaultdict(lambda: deque(maxlen=_KEPT_LINES))
        self._reported: set[Origin] = set()
        self._this_boot: ThisBoot | None = None
        self._remarks = AllRemarks()
        self._calendar = Calendar()

    def begin(self, file: LogFile) -> None:
        """Begin a log; the time of its last write determines omitted years."""
        self._calendar = Calendar(None, file.modified_ns)
        counts_lines = not file.is_rereadable
        self._scan = LogScan(self._calendar, self._report, reports=self._reports, counts_lines=counts_lines)
        self._remarks.add_log(file.name, self._scan.remarks, file.line_number_at)
        if self._scan.is_idle:
            self._lines.clear()
            self._reported.clear()

    @property
    def recognized(self) -> bool:
        """Whether a line of a log, possibly a damaged one, was found."""
        return self._scan is not None and (self._scan.recognized > 0 or self._scan.remarks.has_kernel_lines)

    def remarks(self) -> Iterator[Remark]:
        """Remarks about all logs, after the last one."""
        return self._remarks.make_remarks()

    def feed(self, block: bytes) -> None:
        """The next block of the log."""
        assert self._scan is not None
        self._scan.feed(block)

    def end(self) -> None:
        """The log has ended; the next one may continue its last OOM report."""
        assert self._scan is not None
        self._scan.end()

    def end_all(self) -> None:
        """No more logs."""
        self._reports.end()

    def read_this_boot(self) -> None:
        """Read /dev/kmsg to its current end.

        Raises UnopenedError if it cannot be opened.
        """
        self.end_all()
        self._lines.clear()
        self._reported.clear()
        kmsg = open_kmsg()
        boot = self._this_boot = self._this_boot or ThisBoot()
        reports = HostReports(
            lambda report, origin: self._emit(boot.records.oom_kill(report), boot.host, report, origin), self._keep_line
        )
        origin = Origin(boot.host["name"], boot.host["boot_id"])
        for line in kmsg.read():
            reports.feed(line._replace(origin=origin))
        reports.end()
        kmsg.close()

    def _keep_line(self, line: LogLine) -> None:
        kept = self._lines[line.origin]
        if line.origin in self._reported:
            self._reported.discard(line.origin)
            kept.clear()
        kept.append(line)

    def _report(self, report: VictimReport, origin: Origin) -> None:
        if report.wall_ns is None and report.clock == "printk":
            boot = self._this_boot = self._this_boot or ThisBoot()
            if boot.has(report):
                self._emit(boot.dated.oom_kill(report), boot.host, report, origin)
                return
        if origin not in self._records:
            self._records[origin] = LogRecords((origin.boot_id or "0").split("-")[0], None, None)
        host: Host = {"name": origin.host, "boot_id": origin.boot_id, "kernel": None, "labels": None}
        self._emit(self._records[origin].oom_kill(report), host, report, origin)

    def _emit(self, record: OomKill, host: Host, report: VictimReport, origin: Origin) -> None:
        record["host"] = host
        enrich_cgroups(record)
        self._remarks.add_kill(record["time"], self._calendar.assumes_year)
        self._reported.add(origin)
        since = report.incident_ns or 0
        lines = [_text(line) for line in self._lines[origin] if line.time_ns is None or line.time_ns >= since]
        if len(lines) > _INCIDENT_LINES_MAX:
            half = _INCIDENT_LINES_MAX // 2
            lines[half:-half] = [f"... {len(lines) - 2 * half} lines ..."]
        self._on_kill(record, tuple(lines))


def _text(line: LogLine) -> str:
    text = printable(line.text.decode("utf-8", "backslashreplace"))
    if line.clock != "printk" or line.time_ns is None:
        return text
    seconds, microseconds = divmod(line.time_ns // 1000, 1_000_000)
    return f"[{seconds:5d}.{microseconds:06d}] {text}"
