# SPDX-License-Identifier: Apache-2.0
"""An oracle: OOM kills in the kernel log (/dev/kmsg).

The log is not complete.  "Killed process" is logged for every kill, but the report above it (trigger,
limit, cgroups, tasks) at most ten times in five seconds, and lines are cut near 1000 bytes.
"""

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

BURST, INTERVAL_S = 10, 5.0
"""DEFAULT_RATELIMIT_BURST and DEFAULT_RATELIMIT_INTERVAL, which oom_kill_process() uses for its report."""

LONGEST_PART = 900
"""Longer paths may be cut, or split over several lines."""

INVOKED = re.compile(
    r"(.*) invoked oom-killer: gfp_mask=0x([0-9a-f]+)\((.*)\), order=(-?\d+), oom_score_adj=(-?\d+)", re.DOTALL
)
CPU = re.compile(r"CPU: \d+ (?:UID: \d+ )?PID: (\d+) Comm: ")
COUNTER = re.compile(r"(memory|memory\+swap|kmem|swap): usage (\d+)kB, limit (\d+)kB, failcnt (\d+)")
STATISTIC = re.compile(r"^([a-z_]+) (\d+)$", re.MULTILINE)
SUMMARY = re.compile(
    r"oom-kill:constraint=(CONSTRAINT_\w+),nodemask=.*?,cpuset=.*?,mems_allowed=[\d,-]*,(.*)", re.DOTALL
)
TASK = re.compile(r"\[ *(\d+)\] (.*)", re.DOTALL)
KILLED = re.compile(
    r"(.*?): Killed process (\d+) \((.*)\) total-vm:(\d+)kB, anon-rss:(\d+)kB, file-rss:(\d+)kB, "
    r"shmem-rss:(\d+)kB, UID:(\d+) pgtables:(\d+)kB oom_score_adj:(-?\d+)",
    re.DOTALL,
)
GROUP = re.compile(r"Tasks in (.*) are going to be killed due to memory.oom.group set", re.DOTALL)


@dataclass
class Report:
    """The kernel's report of one run of the OOM killer, which the rate limit may suppress."""

    comm: str
    gfp_mask: int
    gfp_flags: str
    order: int
    trigger_adj: int
    time: float
    trigger_tid: int | None = None
    usage_kb: dict[str, int] = field(default_factory=dict)
    limit_kb: dict[str, int] = field(default_factory=dict)
    failcnt: dict[str, int] = field(default_factory=dict)
    statistics: dict[str, int] = field(default_factory=dict)
    tasks: dict[int, dict[str, int]] = field(default_factory=dict)
    constraint: str | None = None
    who: str = ""
    """The end of the summary: `oom_memcg=PATH,task_memcg=PATH,task=COMM,pid=PID,uid=UID`, ambiguous with odd names."""

    def is_about(self, tid: int) -> bool:
        """Whether the kernel chose this thread, or its process when the main thread has exited."""
        leader = self.tasks.get(tid, {}).get("tgid", tid)
        return re.search(rf",pid=({tid}|{leader}),uid=\d+$", self.who) is not None


@dataclass
class Kill:
    """One "Killed process" line; a group kill's first victim has two."""

    message: str
    tid: int
    comm: str
    total_vm_kb: int
    anon_rss_kb: int
    file_rss_kb: int
    shmem_rss_kb: int
    uid: int
    page_tables_kb: int
    oom_score_adj: int
    report: Report | None
    group: str | None


def unescape(text: bytes) -> str:
    r"""Undo /dev/kmsg's \xNN, then spell the bytes as records do."""
    raw = re.sub(rb"\\x([0-9a-f]{2})", lambda match: bytes.fromhex(match[1].decode()), text)
    return raw.decode("utf-8", "backslashreplace")


class KernelLog:
    """Reads the kernel log from now on."""

    def __init__(self) -> None:
        self._fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self._fd, 0, os.SEEK_END)
        self.kills: list[Kill] = []
        self.raw: list[bytes] = []
        """The raw records since a test cleared this list."""
        self.overruns = 0
        self._report: Report | None = None
        self._columns: list[str] = []
        self._group: str | None = None
        self._text = ""
        self._window_start, self._window_used = -INTERVAL_S, 0
        self._clock_ahead = self._compare_clocks()

    def close(self) -> None:
        os.close(self._fd)

    def _records(self) -> Iterator[tuple[float, bool, str]]:
        """Time, whether it continues the previous record, and text of every available record."""
        while True:
            try:
                record = os.read(self._fd, 32768)
            except BlockingIOError:
                return
            except BrokenPipeError:  # records were overwritten before they were read
                self.overruns += 1
                continue
            self.raw.append(record)
            prefix, _, text = record.partition(b"\n")[0].partition(b";")
            _, _, microseconds, flags, *_ = prefix.split(b",")
            yield int(microseconds) / 1e6, flags == b"c", unescape(text)

    def _compare_clocks(self) -> float:
        """Difference of the log's clock and CLOCK_MONOTONIC, in seconds."""
        mark = f"oomtrace-test: clock {os.getpid()}"
        with open("/dev/kmsg", "w") as kmsg:
            kmsg.write(mark)
        now = time.monotonic()
        return next((when - now for when, _, text in self._records() if text == mark), 0.0)

    def poll(self) -> list[Kill]:
        """Read and parse new records; all kills so far."""
        for when, continues, text in self._records():
            # A name that starts with byte 1 is taken for a printk prefix and fakes such a flag.
            if continues and "invoked oom-killer" not in text:
                self._text += text
            else:
                self._text = text
            self._understand(when, self._text)
        return self.kills

    def _understand(self, when: float, text: str) -> None:
        if match := KILLED.fullmatch(text):
            self._add_kill(match)
        elif match := GROUP.fullmatch(text):
            self._group = match[1]
        elif match := INVOKED.fullmatch(text):
            self._group, self._columns = None, []
            self._report = Report(match[1], int(match[2], 16), match[3], int(match[4]), int(match[5]), when)
            self._count(when)
        elif self._report is not None:
            self._add_detail(self._report, text)

    def _add_detail(self, report: Report, text: str) -> None:
        if match := SUMMARY.fullmatch(text):
            report.constraint, report.who = match.groups()
        elif match := COUNTER.fullmatch(text):
            counter, usage, limit, failcnt = match.groups()
            report.usage_kb[counter] = int(usage)
            report.limit_kb[counter] = int(limit)
            report.failcnt[counter] = int(failcnt)
        elif (match := CPU.match(text)) and report.trigger_tid is None:
            report.trigger_tid = int(match[1])
        elif text.startswith("[  pid  ]"):
            self._columns = text.split()[3:-1]
        elif self._columns and (match := TASK.fullmatch(text)):
            values = match[2].split(None, len(self._columns))
            report.tasks[int(match[1])] = {name: int(value) for name, value in zip(self._columns, values, strict=False)}
        elif not self._columns:
            report.statistics |= {name: int(value) for name, value in STATISTIC.findall(text)}

    def _add_kill(self, match: re.Match[str]) -> None:
        message, tid, comm, *numbers = match.groups()
        report = self._report
        if report and not self._group and not report.is_about(int(tid)):
            report = self._report = None  # this kill's own report was suppressed
        total_vm, anon, file, shmem, uid, page_tables, adj = map(int, numbers)
        self.kills.append(
            Kill(message, int(tid), comm, total_vm, anon, file, shmem, uid, page_tables, adj, report, self._group)
        )

    def _count(self, when: float) -> None:
        """Update the model of the kernel's rate limit for a report that passed."""
        if when > self._window_start + INTERVAL_S:
            self._window_start, self._window_used = when, 0
        self._window_used += 1

    def pace(self, reports: int = 1) -> None:
        """Wait until the rate limit allows this many reports."""
        self.poll()
        if self._window_used + reports > BURST:
            now = time.monotonic() + self._clock_ahead
            time.sleep(max(0.0, min(INTERVAL_S, self._window_start + INTERVAL_S + 0.1 - now)))
