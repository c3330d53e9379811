# SPDX-License-Identifier: Apache-2.0
"""The lines of a kernel log -> what they report of OOM kills, one report for each victim.

What the kernel prints is spread over many lines, and not all of them are there: it limits the rate of all but the last
("Killed process"), the ring buffer is overwritten, and files are cut.  Lines belong together by their order and, where
the kernel tells who printed them (CONFIG_PRINTK_CALLER), by that; before oom_lock (4.2) reports could interleave.

Takes constant memory, whatever it is fed, and never raises.  Not every line has to be fed: see `WORDS` and `DETAILS`.
"""

import re
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Protocol

from tracer.logs import oom_lines
from tracer.logs.oom_details import Awaited
from tracer.logs.oom_incident import LoggedIncident
from tracer.logs.oom_kill_line import KillLine, parse_beancounter_kill_line, parse_kill_line
from tracer.logs.oom_lines import LogLine
from tracer.logs.victim_report import VictimReport

KEYWORDS = (b" invoked oom-killer: ", b"illed process ", b"ill process ")
"""One of them is in the first line of each report, and in each line about a kill."""

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
"""While a report is open, only lines that have one of these have to be fed, unless it `awaits` others."""

_BEGINS = (
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
"""How those of the other lines begin of which a report can consist."""

_STATISTIC_ENDS = bytes(sorted({name[-1] for name in oom_lines.STATISTICS}))
STATISTIC = re.compile(
    rb" (?<=["
    + _STATISTIC_ENDS
    + rb"] )(?:"  # only a pattern that begins with one certain byte is searched for fast
    + b"|".join(rb"(?<=[^a-z_]" + name + rb" )" for name in sorted(oom_lines.STATISTICS))
    + rb")\d"
)
"""Stands in the lines that have to be fed, too, while `Reports.awaits` statistics."""

SKIPPED = rb"( |(?!(?:" + b"|".join(sorted(oom_lines.STATISTICS)) + rb") )[a-z_0-9]{1,40} \d{1,20}\r?\Z|Node \d)?"
"""Begins most lines of a report of which nothing is read, stacks and statistics; but a name in front of one of `WORDS`
may begin so, too."""

_WORD = re.compile(rb"ill(?:er: (?<=" + KEYWORDS[0] + rb")|ed process | process )")
"""One of `WORDS`.  Until 3.13 Python makes an error of each ``in`` with bytes on both
sides, and drops it again: where lines are many, they are searched."""

TRACE_WORD = b"oom_kill_process"
"""Stands in the lines that have to be fed, too, while a stack trace is awaited."""

_AWAITED: tuple[Awaited, ...] = ("words", "details", "trace", "statistics", "lines", "all")
_LONGEST = 8192
"""printk's longest record has 1 KiB, every byte of which some logs spell as four."""
_MOST_CALLERS = 16
_MOST_VICTIMS = 1024
_MOST_REPORTS = 10
_LIMIT_NS = 5_100_000_000
"""So many reports does the kernel print in 5 s: DEFAULT_RATELIMIT_BURST, oom_kill_process()."""


def has_keyword(text: bytes) -> bool:
    """Whether one of `WORDS` is in it."""
    return _WORD.search(text) is not None


def is_relevant(text: bytes) -> bool:
    """Whether a line is read that begins like `UNREAD`: one of `WORDS` is in it, or it is a trace's that counts."""
    return _WORD.search(text) is not None or text.find(TRACE_WORD) >= 0


def may_begin_report(text: bytes) -> bool:
    """Whether it may be the first line that is left of a report."""
    return text.startswith(_BEGINS) or has_keyword(text)


def widest_awaited(each: Iterable[Awaited]) -> Awaited:
    """What has to be fed if these are awaited."""
    return max(each, key=_AWAITED.index, default="words")


class ReportObserver(Protocol):
    """Is told what is missing in reports."""

    def refuse(self, text: bytes) -> None:
        """A line with one of `WORDS` is none about a kill."""

    def panic(self, text: bytes) -> None:
        """A report ended in a panic, and nobody was killed."""

    def spare(self, text: bytes) -> None:
        """A report ended in that there was nobody to kill."""

    def leave_unfinished(self, trigger: bytes | None) -> None:
        """A report began, and does not say who was killed."""


class ReportAssembler:
    """Joins lines to reports."""

    def __init__(self, doubts: ReportObserver | None = None) -> None:
        self._doubts = doubts
        self._open: dict[bytes | None, LoggedIncident] = {}
        self._number = 0
        self._caller: bytes | None = None
        """Of the line before."""
        self._reported = deque[LogLine](maxlen=_MOST_REPORTS)
        """The first lines of the latest reports."""

    @property
    def are_open(self) -> bool:
        return bool(self._open)

    def feed(self, line: LogLine) -> Sequence[VictimReport]:
        """The reports that are complete now.

        Only what follows a kill shows whether it was that of a group, so most come with a later line.
        """
        self._caller, reports = line.caller, self._open
        if not reports and not may_begin_report(line.text):
            return ()
        if len(line.text) > _LONGEST:
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
        """Which lines have to be fed; those with words alone while no report is open."""
        if len(self._open) == 1:
            return next(iter(self._open.values())).awaits
        return widest_awaited(incident.awaits for incident in self._open.values())

    def only(self) -> LoggedIncident | None:
        """To which the next lines may be added, if they are of the same caller and second as the one that was fed last;
        None: each has to be fed.
        """
        incident = self._open.get(self._caller)
        return incident if incident is not None and len(self._open) == 1 and incident.has_all_ahead else None

    def _read(self, line: LogLine, incident: LoggedIncident | None, done: list[VictimReport]) -> None:
        text = line.text
        if text.find(b"ill") >= 0:
            if self._read_kill(line, incident, done):
                return
            if self._doubts is not None and has_keyword(text):
                self._doubts.refuse(text)
        if text.startswith(b"** ") and oom_lines.DROPPED.fullmatch(text) is not None:
            done += self.lose()
        elif incident is None:
            if text.startswith((oom_lines.PANIC_WORD, oom_lines.NO_KILLABLE)):
                self._end_without_kill(text, has_report=False)
            elif text.startswith(_BEGINS):
                self._begin_headless(line, None, done)
        elif (taken := incident.read(line, self._number)) is None:
            done += self._close(line.caller, complete=False)
            self._begin_headless(line, incident.cpu, done)
        elif not taken and oom_lines.ends_without_kill(text, bool(incident.kills)):
            if not incident.kills:
                del self._open[line.caller]
            self._end_without_kill(text, has_report=not incident.kills)
            done += self._close(line.caller)

    def _end_without_kill(self, text: bytes, *, has_report: bool) -> None:
        """Say what became of a report without a kill; where its lines are lost, only the OOM killer's words count."""
        if self._doubts is None:
            return
        if oom_lines.OOM_PANIC.fullmatch(text) is not None or (has_report and text.startswith(oom_lines.PANIC_WORD)):
            self._doubts.panic(text)
        elif text.startswith(oom_lines.NO_KILLABLE):
            self._doubts.spare(text)

    def _begin_headless(self, line: LogLine, cpu: tuple[int, bytes] | None, done: list[VictimReport]) -> None:
        incident = self._begin(line, done)
        incident.cpu = cpu
        if not incident.read(line, self._number):
            del self._open[line.caller]

    def lose(self) -> list[VictimReport]:
        """Lines are missing here: what was not complete stays so."""
        return [report for caller in list(self._open) for report in self._close(caller, complete=False)]

    def settle(self) -> list[VictimReport]:
        """What has a victim is complete: it is long ago, though the log has no later line of its host."""
        callers = [caller for caller, each in self._open.items() if each.kills]
        return [report for caller in callers for report in self._close(caller)]

    def end(self) -> list[VictimReport]:
        """The log ends here; it may go on later."""
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
        if incident.reported and not incident.kills and self._doubts is not None:
            self._doubts.leave_unfinished(incident.trigger_comm)
        return incident.reports(complete)

    def _close_stale(self, line: LogLine) -> list[VictimReport]:
        stale = [caller for caller, each in self._open.items() if each.is_stale(line, self._number)]
        return [report for caller in stale for report in self._close(caller)]

    def _read_kill(self, line: LogLine, incident: LoggedIncident | None, done: list[VictimReport]) -> bool:
        """Take a line that begins a report or says who is killed; whether it was one."""
        text = line.text
        if text.find(KEYWORDS[0]) >= 0 and (match := oom_lines.INVOKED.fullmatch(text)) is not None:
            done += self._close(line.caller)
            self._begin(line, done).invoked(*match.groups())
            self._reported.append(line)
        elif text.find(KEYWORDS[1]) >= 0 and (match := oom_lines.KILLED.fullmatch(text)) is not None:
            self._kill(line, parse_kill_line(match.groups(), line), incident, done)
        elif text.find(KEYWORDS[1]) >= 0 and (match := oom_lines.KILLED_IN_UB.fullmatch(text)) is not None:
            self._kill(line, parse_beancounter_kill_line(match.groups(), line), incident, done)
        elif text.find(KEYWORDS[2]) >= 0 and (match := oom_lines.CHOSEN.fullmatch(text)) is not None:
            message, pid = match.groups()
            if incident is None or not incident.choose(message, int(pid)):
                done += self._close(line.caller)
                incident = self._begin(line, done)
                incident.choose(message, int(pid))
            incident.touch(line, self._number)
        elif text.startswith(b"Tasks in /") and (match := oom_lines.GROUP.fullmatch(text)) is not None:
            self._group(line, match[1], incident, done)
        else:
            return False
        return True

    def _kill(self, line: LogLine, kill: KillLine, incident: LoggedIncident | None, done: list[VictimReport]) -> None:
        if incident is not None and incident.is_mixed(kill):
            summary = line._replace(text=incident.summary or b"")
            done += self._close(line.caller)
            incident = self._begin(line, done)
            incident.read(summary, self._number)
        if incident is None or not incident.can_take(kill):
            # The line before (before 5.1) has the words for the one about a child of the process in it.
            is_next = incident is not None and not incident.kills and kill.message is None
            chosen = incident.chosen if incident is not None and is_next else None
            # Without a report only the kernel's own words count, and a line without any says too little.
            if chosen is None and not oom_lines.is_message(kill.message, kill.total_vm_bytes is not None):
                if self._doubts is not None:
                    self._doubts.refuse(line.text)
                return
            is_limited = self._is_limited(line)
            is_over = incident is None or incident.is_over(kill, is_limited)
            done += self._close(line.caller, complete=is_over)
            incident = self._begin(line, done)
            incident.chosen, incident.is_limited, incident.is_torn = chosen, True, not (is_limited and is_over)
        else:
            incident.touch(line, self._number)
            if not incident.kills:
                incident.is_limited = incident.is_limited or self._is_limited(line)
        incident.kill(kill)
        if len(incident.kills) >= _MOST_VICTIMS:
            done += self._close(line.caller, complete=False)

    def _is_limited(self, line: LogLine) -> bool:
        """Whether a kill of now may have no report; else one that has none shows that lines are missing."""
        if len(self._reported) < _MOST_REPORTS or line.time_ns is None or self._reported[0].time_ns is None:
            return False
        return line.clock != "unknown" and abs(line.time_ns - self._reported[0].time_ns) <= _LIMIT_NS

    def _group(self, line: LogLine, path: bytes, incident: LoggedIncident | None, done: list[VictimReport]) -> None:
        if incident is not None and incident.group and len(incident.kills) > 1:
            # The line comes after the first victim's: that was the first of another group, its report suppressed.
            first = incident.kills.pop()
            done += self._close(line.caller)
            incident = self._begin(line, done)
            incident.first = first.time_ns
            incident.kills.append(first)
        elif incident is None or incident.group is not None or not incident.can_be_group(path):
            done += self._close(line.caller, complete=False)
            incident = self._begin(line, done)
            incident.lacks_first = True
        incident.group = path
        incident.touch(line, self._number)
