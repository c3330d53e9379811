# SPDX-License-Identifier: Apache-2.0
"""The lines of a kernel log -> one report per victim of the OOM killer.

A report is spread over many lines, some of which may be missing: the kernel limits the rate of all lines but the last
("Killed process"), the ring buffer is overwritten, and files are cut. Lines are joined by their order and by the thread
that printed them, if the kernel shows it (CONFIG_PRINTK_CALLER); before oom_lock (4.2) reports could interleave.

Takes constant memory, and never raises, whatever its input is. Not every line has to be fed: see `KEYWORDS` and
`DETAIL_KEYWORDS`.
"""

import re
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Protocol

from tracer.logs import oom_lines
from tracer.logs.log_line import LogLine
from tracer.logs.oom_details import Awaited
from tracer.logs.oom_incident import LoggedIncident
from tracer.logs.oom_kill_line import KillLine, parse_beancounter_kill_line, parse_kill_line
from tracer.logs.victim_report import VictimReport

KEYWORDS = (b" invoked oom-killer: ", b"illed process ", b"ill process ")
"""One of these is in the first line of each report, and in each line about a kill."""

DETAIL_KEYWORDS = (
    b"oom-kill",  # invoked oom-killer; oom-kill:constraint=
    b" process",  # Killed, Kill; Out of memory and no killable processes
    b": usage ",
    b"omm: ",  # CPU: 0 PID: 1 Comm: x
    b"Memory cgroup stats for ",
    b" in /",  # Task, Tasks
    b"Total swap = ",
    b"tgid total_vm",
    b" is already exiting. Skip killing the task",
    oom_lines.PANIC_WORD,
    b" printk messages dropped **",
    b" kernel messages",  # journald missed some
)
"""While a report is open, lines without one of these need not be fed, unless the assembler `awaits` others."""

_REPORT_BEGINS = (
    b"oom-kill:constraint=",
    b"Memory cgroup stats for ",
    b"Task in /",
    b"Tasks in /",
    b"memory: usage ",
    b"memory+swap: usage ",
    b"kmem: usage ",
    b"swap: usage ",
    b"Tasks state (memory values in pages):",
    b"[ pid ] ",
    b"[  pid  ] ",
    b"CPU: ",
    b"Pid: ",
    oom_lines.PANIC_WORD,
    oom_lines.NO_KILLABLE,
)
"""The begins of the other lines of a report."""

_STATISTIC_ENDS = bytes(sorted({name[-1] for name in oom_lines.STATISTICS}))
STATISTIC = re.compile(
    rb" (?<=["
    + _STATISTIC_ENDS
    + rb"] )(?:"  # the search is fast only for a pattern that begins with a fixed byte
    + b"|".join(rb"(?<=[^a-z_]" + name + rb" )" for name in sorted(oom_lines.STATISTICS))
    + rb")\d"
)
"""Matches in the further lines that have to be fed while the assembler awaits statistics."""

SKIPPED = (
    rb"(?P<skipped> |(?!(?:" + b"|".join(sorted(oom_lines.STATISTICS)) + rb") )[a-z_0-9]{1,40} \d{1,20}\r?\Z|Node \d)?"
)
"""Matches at the begin of most lines of a report that have nothing to read: stacks and statistics. A comm in front of
one of `KEYWORDS` may begin like them."""

_KEYWORD = re.compile(rb"ill(?:er: (?<=" + KEYWORDS[0] + rb")|ed process | process )")
"""One of `KEYWORDS`. A search, because until 3.13 Python raises and drops an error for each ``in`` with bytes on both
sides, which is slow where lines are many."""

TRACE_WORD = b"oom_kill_process"
"""In the further lines that have to be fed while a stack trace is awaited."""

_AWAITED: tuple[Awaited, ...] = ("words", "details", "trace", "statistics", "lines", "all")
_LONGEST_BYTES = 8192
"""A printk record has 1 KiB at most, and some logs write a byte as four."""
_MOST_CALLERS = 16
_MOST_VICTIMS = 1024
_RATE_LIMIT_BURST = 10
_RATE_LIMIT_NS = 5_100_000_000
"""The kernel prints 10 reports in 5 s: DEFAULT_RATELIMIT_BURST, oom_kill_process()."""


def has_keyword(text: bytes) -> bool:
    """Whether one of `KEYWORDS` is in a line."""
    return _KEYWORD.search(text) is not None


def is_relevant(text: bytes) -> bool:
    """Whether a line that `SKIPPED` matches has to be read: it contains one of `KEYWORDS`, or is a relevant line of a
    trace."""
    return _KEYWORD.search(text) is not None or text.find(TRACE_WORD) >= 0


def may_begin_report(text: bytes) -> bool:
    """Whether a line may be the first one that is left of a report."""
    return text.startswith(_REPORT_BEGINS) or has_keyword(text)


def widest_awaited(each: Iterable[Awaited]) -> Awaited:
    """The one of these that requires most lines to be fed."""
    return max(each, key=_AWAITED.index, default="words")


class ReportObserver(Protocol):
    """Is notified of what no victim report contains."""

    def on_unparsed(self, text: bytes) -> None:
        """A line has one of `KEYWORDS`, but is not about a kill."""

    def on_panic(self, text: bytes) -> None:
        """The kernel panicked instead of killing a process."""

    def on_no_killable(self, text: bytes) -> None:
        """The kernel found no process to kill."""

    def on_unfinished(self, trigger_comm: bytes | None) -> None:
        """A report began, and does not name its victim."""


class ReportAssembler:
    """Assembles reports from lines."""

    def __init__(self, observer: ReportObserver | None = None) -> None:
        self._observer = observer
        self._open: dict[bytes | None, LoggedIncident] = {}
        self._number = 0
        self._caller: bytes | None = None
        """Of the last line."""
        self._first_lines = deque[LogLine](maxlen=_RATE_LIMIT_BURST)
        """The first lines of the last reports."""

    @property
    def has_open_reports(self) -> bool:
        return bool(self._open)

    def feed(self, line: LogLine) -> Sequence[VictimReport]:
        """Take a line; gives the reports that are complete now.

        Most reports come with a later line: only what follows a kill shows whether it was a group kill.
        """
        self._caller, reports = line.caller, self._open
        if not reports and not may_begin_report(line.text):
            return ()
        if len(line.text) > _LONGEST_BYTES:
            return ()
        self._number += 1
        incident = reports.get(line.caller)
        done: list[VictimReport] = []
        for each in reports.values():
            if each.is_stale(line, self._number):
                done += self._close_stale(line)
                incident = reports.get(line.caller)
                break
        self._read(line, incident, done)
        return done

    @property
    def awaits(self) -> Awaited:
        """Which lines have to be fed; "words" while no report is open."""
        if len(self._open) == 1:
            return next(iter(self._open.values())).awaits
        return widest_awaited(incident.awaits for incident in self._open.values())

    def only_incident(self) -> LoggedIncident | None:
        """The incident to which the next lines may be added directly, if they have the caller and the second of the
        last line; None: each line has to be fed."""
        incident = self._open.get(self._caller)
        return incident if incident is not None and len(self._open) == 1 and incident.is_before_kill else None

    def _read(self, line: LogLine, incident: LoggedIncident | None, done: list[VictimReport]) -> None:
        text = line.text
        if text.find(b"ill") >= 0:
            if self._read_kill(line, incident, done):
                return
            if self._observer is not None and has_keyword(text):
                self._observer.on_unparsed(text)
        if text.startswith(b"** ") and oom_lines.DROPPED.fullmatch(text) is not None:
            done += self.end_incomplete()
        elif incident is None:
            if text.startswith((oom_lines.PANIC_WORD, oom_lines.NO_KILLABLE)):
                self._end_without_kill(text, has_report=False)
            elif text.startswith(_REPORT_BEGINS):
                self._begin_headless(line, None, done)
        elif (taken := incident.read(line, self._number)) is None:
            done += self._close(line.caller, complete=False)
            self._begin_headless(line, incident.next_trigger, done)
        elif not taken and oom_lines.ends_without_kill(text, bool(incident.kills)):
            if not incident.kills:
                del self._open[line.caller]
            self._end_without_kill(text, has_report=not incident.kills)
            done += self._close(line.caller)

    def _end_without_kill(self, text: bytes, *, has_report: bool) -> None:
        """Notify of a report without a kill; if its first line is missing, only a message of the OOM killer itself
        counts."""
        if self._observer is None:
            return
        if oom_lines.OOM_PANIC.fullmatch(text) is not None or (has_report and text.startswith(oom_lines.PANIC_WORD)):
            self._observer.on_panic(text)
        elif text.startswith(oom_lines.NO_KILLABLE):
            self._observer.on_no_killable(text)

    def _begin_headless(self, line: LogLine, cpu: tuple[int, bytes] | None, done: list[VictimReport]) -> None:
        incident = self._begin(line, done)
        incident.next_trigger = cpu
        if not incident.read(line, self._number):
            del self._open[line.caller]

    def end_incomplete(self) -> list[VictimReport]:
        """End all reports: lines are missing here, so they stay incomplete."""
        return [report for caller in list(self._open) for report in self._close(caller, complete=False)]

    def complete(self) -> list[VictimReport]:
        """End all reports with a victim: they are complete, though the log has no later line of their host."""
        callers = [caller for caller, each in self._open.items() if each.kills]
        return [report for caller in callers for report in self._close(caller)]

    def end(self) -> list[VictimReport]:
        """End all reports: the log ends here, or is read on later."""
        return [report for caller in list(self._open) for report in self._close(caller)]

    def _begin(self, line: LogLine, done: list[VictimReport]) -> LoggedIncident:
        if len(self._open) >= _MOST_CALLERS:
            done += self._close(next(iter(self._open)), complete=False)
        incident = self._open[line.caller] = LoggedIncident(line, self._number)
        return incident

    def _close(self, caller: bytes | None, complete: bool = True) -> list[VictimReport]:
        incident = self._open.pop(caller, None)
        if incident is None:
            return []
        if incident.has_first_line and not incident.kills and self._observer is not None:
            self._observer.on_unfinished(incident.trigger_comm)
        return incident.victim_reports(complete)

    def _close_stale(self, line: LogLine) -> list[VictimReport]:
        stale = [caller for caller, each in self._open.items() if each.is_stale(line, self._number)]
        return [report for caller in stale for report in self._close(caller)]

    def _read_kill(self, line: LogLine, incident: LoggedIncident | None, done: list[VictimReport]) -> bool:
        """Read a line that begins a report or is about a kill; whether the line was one."""
        text = line.text
        if text.find(KEYWORDS[0]) >= 0 and (match := oom_lines.INVOKED.fullmatch(text)) is not None:
            done += self._close(line.caller)
            self._begin(line, done).read_invoked(*match.groups())
            self._first_lines.append(line)
        elif text.find(KEYWORDS[1]) >= 0 and (match := oom_lines.KILLED.fullmatch(text)) is not None:
            self._add_kill(line, parse_kill_line(match.groups(), line), incident, done)
        elif text.find(KEYWORDS[1]) >= 0 and (match := oom_lines.KILLED_IN_UB.fullmatch(text)) is not None:
            self._add_kill(line, parse_beancounter_kill_line(match.groups(), line), incident, done)
        elif text.find(KEYWORDS[2]) >= 0 and (match := oom_lines.CHOSEN.fullmatch(text)) is not None:
            message, pid = match.groups()
            if incident is None or not incident.add_chosen(message, int(pid)):
                done += self._close(line.caller)
                incident = self._begin(line, done)
                incident.add_chosen(message, int(pid))
            incident.mark_seen(line, self._number)
        elif text.startswith(b"Tasks in /") and (match := oom_lines.GROUP.fullmatch(text)) is not None:
            self._add_group(line, match[1], incident, done)
        else:
            return False
        return True

    def _add_kill(
        self, line: LogLine, kill: KillLine, incident: LoggedIncident | None, done: list[VictimReport]
    ) -> None:
        if incident is not None and incident.has_table_of_other_report(kill):
            summary = line._replace(text=incident.summary or b"")
            done += self._close(line.caller)
            incident = self._begin(line, done)
            incident.read(summary, self._number)
        if incident is None or not incident.accepts(kill):
            # Before 5.1 the line before contains the message of a kill of a child of the chosen process.
            is_next = incident is not None and not incident.kills and kill.message is None
            chosen = incident.chosen_message if incident is not None and is_next else None
            # Without a report, only the kernel's own messages count; a line without a message says too little.
            if chosen is None and not oom_lines.is_message(kill.message, kill.total_vm_bytes is not None):
                if self._observer is not None:
                    self._observer.on_unparsed(line.text)
                return
            is_rate_limited = self._may_be_rate_limited(line)
            is_complete = incident is None or incident.is_complete_before(kill, is_rate_limited)
            done += self._close(line.caller, complete=is_complete)
            incident = self._begin(line, done)
            incident.chosen_message, incident.is_rate_limited, incident.has_lost_lines = (
                chosen,
                True,
                not (is_rate_limited and is_complete),
            )
        else:
            incident.mark_seen(line, self._number)
            if not incident.kills:
                incident.is_rate_limited = incident.is_rate_limited or self._may_be_rate_limited(line)
        incident.add_kill(kill)
        if len(incident.kills) >= _MOST_VICTIMS:
            done += self._close(line.caller, complete=False)

    def _may_be_rate_limited(self, line: LogLine) -> bool:
        """Whether the kernel may have printed no report of this kill; else a kill without a report shows that lines are
        missing."""
        if len(self._first_lines) < _RATE_LIMIT_BURST or line.time_ns is None or self._first_lines[0].time_ns is None:
            return False
        return line.clock != "unknown" and abs(line.time_ns - self._first_lines[0].time_ns) <= _RATE_LIMIT_NS

    def _add_group(self, line: LogLine, path: bytes, incident: LoggedIncident | None, done: list[VictimReport]) -> None:
        if incident is not None and incident.group and len(incident.kills) > 1:
            # This line comes after the first victim's: the last kill was the first one of another group, whose report
            # was rate-limited.
            first = incident.kills.pop()
            done += self._close(line.caller)
            incident = self._begin(line, done)
            incident.first_ns = first.time_ns
            incident.kills.append(first)
        elif incident is None or incident.group is not None or not incident.can_be_group(path):
            done += self._close(line.caller, complete=False)
            incident = self._begin(line, done)
            incident.lacks_first_victim = True
        incident.group = path
        incident.mark_seen(line, self._number)
