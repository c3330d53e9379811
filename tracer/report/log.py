# SPDX-License-Identifier: Apache-2.0
"""A kernel log -> the records of its kills, and the lines that tell of them.

All that the report needs of tracer/parse.py's readers goes through `LogKills`.
"""

from collections import defaultdict, deque
from collections.abc import Callable

from tracer.enrich import name_cgroups
from tracer.event import OomKill
from tracer.logs.formats import Origin
from tracer.logs.oom_lines import LogLine
from tracer.logs.records import LogRecords
from tracer.logs.reported import Report
from tracer.logs.scan import LogScan
from tracer.logs.this_boot import ThisBoot
from tracer.logs.times import Calendar
from tracer.printable import printable

Found = Callable[[OomKill, tuple[str, ...]], None]

_MOST_LINES = 200
"""Of one incident: the table of tasks has a line for each process of the host."""
_HEARD_LINES = 4096


class LogKills:
    """Reads one log; ``found`` gets each kill with its incident's lines, harmless for a screen."""

    def __init__(self, written_ns: int, found: Found) -> None:
        """``written_ns`` is when the log was last written, Unix time: it tells years that a log leaves out."""
        self._scan = LogScan(Calendar(None, written_ns), self._report, heard=self._hear)
        self._found = found
        self._records: dict[Origin, LogRecords] = {}
        self._heard: dict[Origin, deque[LogLine]] = defaultdict(lambda: deque(maxlen=_HEARD_LINES))
        self._told: set[Origin] = set()
        self._this_boot: ThisBoot | None = None

    @property
    def recognized(self) -> bool:
        """Whether anything in it was a line of a log."""
        return self._scan.recognized > 0

    def feed(self, block: bytes) -> None:
        """What comes next."""
        self._scan.feed(block)

    def end(self) -> None:
        """The log is over."""
        self._scan.end()

    def _hear(self, line: LogLine, origin: Origin) -> None:
        heard = self._heard[origin]
        if origin in self._told:
            self._told.discard(origin)
            heard.clear()
        heard.append(line)

    def _report(self, report: Report, origin: Origin) -> None:
        record = self._record(report, origin)
        name_cgroups(record)
        self._told.add(origin)
        since = report.incident_ns or 0
        lines = [_text(line) for line in self._heard[origin] if line.time_ns is None or line.time_ns >= since]
        if len(lines) > _MOST_LINES:
            half = _MOST_LINES // 2
            lines[half:-half] = [f"... {len(lines) - 2 * half} lines ..."]
        self._found(record, tuple(lines))

    def _record(self, report: Report, origin: Origin) -> OomKill:
        if report.wall_ns is None and report.clock == "printk":
            this_boot = self._this_boot = self._this_boot or ThisBoot()
            if this_boot.has(report):
                record = this_boot.dated.oom_kill(report)
                record["host"] = this_boot.host
                return record
        if origin not in self._records:
            self._records[origin] = LogRecords((origin.boot_id or "0").split("-")[0], None, None)
        record = self._records[origin].oom_kill(report)
        record["host"] = {"name": origin.host, "boot_id": origin.boot_id, "kernel": None, "labels": None}
        return record


def _text(line: LogLine) -> str:
    text = printable(line.text.decode("utf-8", "backslashreplace"))
    if line.clock != "printk" or line.time_ns is None:
        return text
    seconds, microseconds = divmod(line.time_ns // 1000, 1_000_000)
    return f"[{seconds:5d}.{microseconds:06d}] {text}"
