# SPDX-License-Identifier: Apache-2.0
"""Kernel logs -> the records of their kills, and the lines that tell of them.

All that the report needs of tracer/logs/convert.py's readers goes through `LogKills`.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterator

from tracer.base.printable import printable
from tracer.identity.enrich import enrich_cgroups
from tracer.logs.formats import Origin
from tracer.logs.host_reports import HostReports
from tracer.logs.log_file import LogFile
from tracer.logs.log_records import LogRecords
from tracer.logs.oom_lines import LogLine
from tracer.logs.remarks import AllRemarks, Remark
from tracer.logs.scan import LogScan
from tracer.logs.this_boot import ThisBoot, open_kmsg
from tracer.logs.times import Calendar
from tracer.logs.victim_report import VictimReport
from tracer.records.model import Host, OomKill

OnKill = Callable[[OomKill, tuple[str, ...]], None]

_MOST_LINES = 200
"""Of one incident: the table of tasks has a line for each process of the host."""
_HEARD_LINES = 4096


class LogReader:
    """Reads one log after the other; ``found`` gets each kill with its incident's lines, harmless for a screen.

    Where a log was rotated within a report, the next one goes on with it.
    """

    def __init__(self, found: OnKill) -> None:
        self._found = found
        self._reports = HostReports(self._report, self._hear)
        self._scan: LogScan | None = None
        self._records: dict[Origin, LogRecords] = {}
        self._heard: dict[Origin, deque[LogLine]] = defaultdict(lambda: deque(maxlen=_HEARD_LINES))
        self._told: set[Origin] = set()
        self._this_boot: ThisBoot | None = None
        self._remarks = AllRemarks()
        self._calendar = Calendar()

    def begin(self, file: LogFile) -> None:
        """A log begins; when it was last written tells years that it leaves out."""
        self._calendar = Calendar(None, file.written_ns)
        counts_lines = not file.can_be_read_again
        self._scan = LogScan(self._calendar, self._report, reports=self._reports, counts_lines=counts_lines)
        self._remarks.begin(file.name, self._scan.remarks, file.line_at)
        if self._scan.idle:
            self._heard.clear()
            self._told.clear()

    @property
    def recognized(self) -> bool:
        """Whether anything in it was a line of a log, or should have been one."""
        return self._scan is not None and (self._scan.recognized > 0 or self._scan.remarks.are_of_a_log)

    def remarks(self) -> Iterator[Remark]:
        """What the logs have beside the kills, when all are read."""
        return self._remarks.sentences()

    def feed(self, block: bytes) -> None:
        """What comes next in it."""
        assert self._scan is not None
        self._scan.feed(block)

    def end(self) -> None:
        """It is over; another one may go on with its last report."""
        assert self._scan is not None
        self._scan.end()

    def end_all(self) -> None:
        """No other log comes."""
        self._reports.end()

    def read_this_boot(self) -> None:
        """/dev/kmsg, as far as it goes now.

        Raises UnopenedError where it may not be read.
        """
        self.end_all()
        self._heard.clear()
        self._told.clear()
        kmsg = open_kmsg()
        boot = self._this_boot = self._this_boot or ThisBoot()
        reports = HostReports(
            lambda report, origin: self._tell(boot.records.oom_kill(report), boot.host, report, origin), self._hear
        )
        origin = Origin(boot.host["name"], boot.host["boot_id"])
        for line in kmsg.read():
            reports.feed((line, origin))
        reports.end()
        kmsg.close()

    def _hear(self, line: LogLine, origin: Origin) -> None:
        heard = self._heard[origin]
        if origin in self._told:
            self._told.discard(origin)
            heard.clear()
        heard.append(line)

    def _report(self, report: VictimReport, origin: Origin) -> None:
        if report.wall_ns is None and report.clock == "printk":
            boot = self._this_boot = self._this_boot or ThisBoot()
            if boot.has(report):
                self._tell(boot.dated.oom_kill(report), boot.host, report, origin)
                return
        if origin not in self._records:
            self._records[origin] = LogRecords((origin.boot_id or "0").split("-")[0], None, None)
        host: Host = {"name": origin.host, "boot_id": origin.boot_id, "kernel": None, "labels": None}
        self._tell(self._records[origin].oom_kill(report), host, report, origin)

    def _tell(self, record: OomKill, host: Host, report: VictimReport, origin: Origin) -> None:
        record["host"] = host
        enrich_cgroups(record)
        self._remarks.add_kill(record["time"], self._calendar.assumes_year)
        self._told.add(origin)
        since = report.incident_ns or 0
        lines = [_text(line) for line in self._heard[origin] if line.time_ns is None or line.time_ns >= since]
        if len(lines) > _MOST_LINES:
            half = _MOST_LINES // 2
            lines[half:-half] = [f"... {len(lines) - 2 * half} lines ..."]
        self._found(record, tuple(lines))


def _text(line: LogLine) -> str:
    text = printable(line.text.decode("utf-8", "backslashreplace"))
    if line.clock != "printk" or line.time_ns is None:
        return text
    seconds, microseconds = divmod(line.time_ns // 1000, 1_000_000)
    return f"[{seconds:5d}.{microseconds:06d}] {text}"
