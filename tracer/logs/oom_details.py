# SPDX-License-Identifier: Apache-2.0
"""The lines of one report of the OOM killer, except those about kills: which belong to it, and what they say."""

from typing import Literal

from tracer.logs import oom_lines
from tracer.logs.log_line import LogLine
from tracer.logs.oom_kill_line import KillLine
from tracer.logs.oom_tasks import TaskTable
from tracer.logs.victim_report import Counter
from tracer.records import matching

_PARTIAL_TEXT_MAX_BYTES = 16384
_MOST_OTHER_LINES = 4096
"""A report is ended after so many other lines; the kernel's own dump of memory has some hundred."""
_MOST_LINES_AFTER = 64
"""The same after a kill, for lines of the same caller: the other victims of a group kill follow at once."""
_LONGEST_PAUSE_NS = 5_000_000_000
"""Between two lines of a report: dumping a host's memory takes seconds on a serial console."""
_LONGEST_PAUSE_AFTER_NS = 1_000_000_000

_ALL_MEMORY = {b"RAM", b"HighMem/MovableOnly", b"reserved"}
_MEMORY_LINES = 8
"""Lines after the one about swap, those of other kinds among them included."""

# The parts of a report, in the order in which all kernels print them: no line follows one of a later part.
_FIRST, _CPU, _TASK_IN, _COUNTERS, _STATISTICS, _TABLE, _SUMMARY, _CHOSEN = range(8)

Awaited = Literal["words", "details", "trace", "statistics", "lines", "all"]
"""Which lines have to be fed: those with `KEYWORDS`; with `DETAIL_KEYWORDS` of oom_report.py; these and a stack
trace's; these and statistics; each of the next few; or all."""


Consumed = bool | None
"""Whether a line is part of the report; None: it is the first line of another one."""


class ReportLines:
    """What the lines of one report say, as far as they were read."""

    # Most kills of a storm have no report: class attributes cost no time for what is absent.
    _stage = _FIRST
    _has_statistics = False
    """Whether there was a line about the cgroup's statistics."""
    _foreign_lines = 0
    next_trigger: tuple[int, bytes] | None = None
    """Thread and comm from a stack trace that may belong to the next report, whose first line is missing."""
    gfp_mask: int | None = None
    gfp_flags: bytes | None = None
    order: int | None = None
    trigger_comm: bytes | None = None
    trigger_tid: int | None = None
    has_first_line = False
    """Whether the report's first line was read."""
    chosen_message: bytes | None = None
    """The message of a line that named the chosen process."""
    constraint: bytes | None = None
    chosen_pid: int | None = None
    chosen_uid: int | None = None
    summary: bytes | None = None
    cgroups = oom_lines.Cgroups(None, None)
    is_in_statistics = is_in_table = False
    host_swap_bytes: int | None = None
    """The host's total swap."""
    memory_pages: dict[bytes, int] | None = None
    """By kind."""
    _memory_lines = 0
    """The number of next lines that may be about the host's memory."""
    _has_inline_statistics = False
    """Whether statistics are on the line that names the cgroup, as before 5.2."""
    group: bytes | None = None
    lacks_first_victim = False
    """Whether the first victim of the group kill is missing, to which the report belongs."""
    is_rate_limited = False
    """Whether the kernel may have suppressed the report of the kill, and of the next one, by its rate limit."""
    partial_text = b""

    def __init__(self, line: LogLine, number: int) -> None:
        self.first_ns, self.clock = line.time_ns, line.clock
        self._last, self._number = line.time_ns, number
        self.counters: dict[bytes, Counter] = {}
        self.statistics: dict[bytes, int] = {}
        self.tasks = TaskTable()
        self.kills: list[KillLine] = []

    def read_invoked(self, comm: bytes, gfp_mask: bytes, gfp_flags: bytes | None, order: bytes) -> None:
        self.has_first_line = True
        self.trigger_comm = comm
        self.gfp_mask, self.gfp_flags, self.order = int(gfp_mask, 16), gfp_flags, int(order)

    def mark_seen(self, line: LogLine, number: int) -> None:
        """Note that ``line``, the ``number``-th of the log, belongs to this report."""
        self._last, self._number, self._foreign_lines = line.time_ns, number, 0

    def is_stale(self, line: LogLine, number: int) -> bool:
        """Whether no further line can belong to this report."""
        if number - self._number > _MOST_OTHER_LINES or (self._foreign_lines > _MOST_LINES_AFTER and self.kills):
            return True
        if line.time_ns is None or self._last is None or line.clock != self.clock or line.clock == "unknown":
            return False
        # A time that goes back is of another boot.
        return abs(line.time_ns - self._last) > (_LONGEST_PAUSE_AFTER_NS if self.kills else _LONGEST_PAUSE_NS)

    @property
    def awaits(self) -> Awaited:
        """Rows of a table, and lines that continue a long one, are recognized by their position, not by words."""
        if self.kills or self.chosen_message is not None:
            return "details" if self.next_trigger is None else "trace"
        if self.is_in_table or self.partial_text:
            return "all"
        if self.is_in_statistics:
            return "statistics"
        return "lines" if self._memory_lines else "details" if self.next_trigger is None else "trace"

    @property
    def ram_pages(self) -> int | None:
        """The RAM that the kernel does not reserve; None: the log does not say.

        Since 3.19 some kernels subtract what is reserved for CMA from `reserved`, others do not.
        """
        memory = self.memory_pages
        if memory is None or memory.get(b"cma reserved") or not memory.keys() >= _ALL_MEMORY:
            return None
        return memory[b"RAM"] - memory[b"reserved"]

    @property
    def is_before_kill(self) -> bool:
        """Whether no kill was read yet, and no line that the next one continues."""
        return not (self.kills or self.partial_text or self.chosen_message is not None)

    def add(self, text: bytes) -> bool:
        """Add a line of the same second as the one before, while `is_before_kill`; False: the line has to be fed."""
        is_summary = text.startswith(b"oom-kill:")
        return text.find(b"ill", 8 if is_summary else 0) < 0 and self._add_line(text) is True and not self.partial_text

    def add_statistic(self, text: bytes) -> bool:
        """Add a line among statistics if it is one that is kept; False: the line has to be read."""
        name, _, value = text.partition(b" ")
        if name not in oom_lines.STATISTICS or not value.isdigit() or len(value) > 20:
            return False
        self.statistics[name] = int(value)
        return True

    def read(self, line: LogLine, number: int) -> Consumed:
        """Add a line, if it belongs to this report."""
        text = line.text
        if self.partial_text:  # a long path is a record of its own, and what follows it another one (printk's LOG_CONT)
            if text[:1] in (b"/", b",", b":") and len(self.partial_text) + len(text) < _PARTIAL_TEXT_MAX_BYTES:
                text = self.partial_text + text
            self.partial_text = b""
        taken = self._add_line(text)
        if taken is True:
            self.mark_seen(line, number)
        elif taken is False:
            self._foreign_lines += 1
        return taken

    def _add_line(self, text: bytes) -> Consumed:
        """Add a row, a statistic or a detail."""
        if self.is_in_statistics and self._read_statistics(text):
            return True
        first = text[:1]
        if first == b"[" and text[:2] != b"[<":
            return self._read_row(text)
        if first == b" " or first == b"[":  # of a stack trace
            return self._read_trace(text)
        return self._read_detail(text)

    def _enter_stage(self, stage: int) -> bool:
        """Whether a line of a part can follow what was read; after a kill it begins another report."""
        if self.kills or stage < self._stage:
            return False
        self._stage = stage
        return True

    def _read_row(self, text: bytes) -> Consumed:
        if not self.tasks.is_header(text):
            if not self.tasks.has_header or self.kills or self._stage > _TABLE:
                return False
            self.tasks.extend((text,))
        elif self.tasks.has_header or not self._enter_stage(_TABLE):
            return None
        else:
            self.tasks.read_header(text)
        self.is_in_statistics, self.is_in_table = False, True
        return True

    def _read_trace(self, text: bytes) -> Consumed:
        if text.find(b"oom_kill_process") < 0 or oom_lines.TRACE.fullmatch(text) is None:
            return False
        if self.kills or self._stage > _CPU:
            return False if self.next_trigger is None else None
        if not self.has_first_line and self.next_trigger is not None:
            self.trigger_tid, self.trigger_comm = self.next_trigger
            self.next_trigger = None
        return True

    def _read_detail(self, text: bytes) -> Consumed:
        if text.startswith(b"oom-kill:constraint="):
            return self._read_summary(text)
        if text.startswith(b"Memory cgroup stats for "):
            return self._begin_statistics(text)
        if text.startswith(b"Task in "):
            if self._stage == _TASK_IN or not self._enter_stage(_TASK_IN):
                return None
            self.cgroups = oom_lines.read_controlled_cgroups(text)
        elif (match := oom_lines.COUNTER.fullmatch(text)) is not None:
            if match[1] in self.counters or not self._enter_stage(_COUNTERS):
                return None
            self.counters[match[1]] = Counter(int(match[2]) << 10, int(match[3]) << 10, int(match[4]))
        elif (match := oom_lines.CPU.match(text)) is not None:
            return self._read_cpu(int(match[1]), match[2])
        elif text.startswith(b"Tasks state (memory values in pages):"):
            return True if not self.tasks.has_header and self._enter_stage(_TABLE) else None
        elif text.startswith(b"Total swap = ") or self._memory_lines:
            return self._read_memory(text)
        else:
            return text.startswith(b"oom_reaper: ")
        return True

    def _read_cpu(self, tid: int, comm: bytes) -> bool:
        if self.kills or self._stage > _CPU or self.trigger_tid is not None:
            self.next_trigger = tid, comm
            return False
        if not self.has_first_line:
            self.next_trigger, self._stage = (tid, comm), _CPU
        # If a comm begins like one of printk's prefixes (KERN_SOH), the line before lacks its first bytes.
        elif comm.endswith(self.trigger_comm or b""):
            self.trigger_tid, self.trigger_comm, self._stage = tid, comm, _CPU
        return True

    def _read_memory(self, text: bytes) -> bool:
        if self.kills or self._stage > _CPU or not self.has_first_line:
            self._memory_lines = 0
            return False
        if (match := oom_lines.SWAP.fullmatch(text)) is not None:
            self.host_swap_bytes, self._memory_lines, self.memory_pages = int(match[1]) << 10, _MEMORY_LINES, {}
            return True
        self._memory_lines -= 1
        match = oom_lines.MEMORY.fullmatch(text)
        if match is None or self.memory_pages is None:
            return False
        self.memory_pages[match[2]] = int(match[1])
        return True

    def _read_statistics(self, text: bytes) -> bool:
        name, _, value = text.partition(b" ")
        if value.isdigit() and len(value) <= 20:
            if name in oom_lines.STATISTICS:
                self.statistics[name] = int(value)
            return True
        if oom_lines.STATISTIC_LINES.fullmatch(text) is None:
            return False
        found = oom_lines.LINE_STATISTIC.findall(text)  # before 6.4 all statistics are in one record
        self.statistics.update((name, int(value)) for name, value in found)
        return bool(found)

    def _begin_statistics(self, text: bytes) -> Consumed:
        # 5.2 and later: one statistic per line, for the whole tree. Before: all on this line, and one line per cgroup
        # in the tree.
        found = oom_lines.INLINE_STATISTICS.fullmatch(text)
        path = found[1] if found is not None else text[24:-1] if text.endswith(b":") else None
        is_next = found is not None and self._stage == _STATISTICS and not self.is_in_statistics
        if (self._stage == _STATISTICS and not is_next) or not self._enter_stage(_STATISTICS):
            return None
        if path is not None and not self._may_be_limit(path, is_next):
            return None
        self._has_statistics = True
        if found is not None:
            self._has_inline_statistics = True
            for name, value in oom_lines.INLINE_STATISTIC.findall(found[2]):
                if name in oom_lines.STATISTICS:
                    self.statistics[name] = self.statistics.get(name, 0) + (int(value) << 10)
        else:
            self.is_in_statistics = True
        if path is None:
            self.partial_text, self._stage = text, _COUNTERS
        elif self.cgroups.limit is None:
            self.cgroups = oom_lines.Cgroups(path, self.cgroups.task)
        return True

    def _may_be_limit(self, path: bytes, is_below: bool = False) -> bool:
        """Whether a cgroup can be the limit's (or below it), as far as that is known."""
        limit = self.cgroups.limit
        if limit is None or oom_lines.may_be_cut(limit) or oom_lines.may_be_cut(path):
            return True
        return matching.is_below(path, limit) if is_below else path == limit

    def drop_foreign_lines(self, message: bytes | None) -> None:
        """Forget lines that may belong to an earlier report, now that the kill was read: a line that every kernel
        prints between the two is missing.

        A log with only the lines that ``grep -i 'oom\\|kill'`` leaves of any report lacks no such line.
        """
        if not (self.trigger_tid is not None or self.counters or self.statistics or self.tasks):
            return
        if message == oom_lines.MEMCG or (self.summary or b"").find(b",oom_memcg=/") >= 0:
            # Not all kernels print statistics in reports without a summary.
            has_statistics = self._has_statistics or self.summary is None
            if not (has_statistics or self.counters) and (self.has_first_line or self.trigger_tid is not None):
                self.tasks = TaskTable()  # it may have begun as the host's table
            if not (has_statistics and self.counters):
                self.counters = {}
                self._forget_trigger()
        if self.trigger_tid is None:
            self._forget_trigger()

    def _forget_trigger(self) -> None:
        if not self.has_first_line and self.trigger_comm is None:
            return
        self.has_first_line, self.first_ns = False, None
        self.gfp_mask = self.gfp_flags = self.order = self.trigger_comm = self.trigger_tid = None

    def _read_summary(self, text: bytes) -> Consumed:
        match = oom_lines.SUMMARY.fullmatch(text)
        if match is None:
            if self.kills:
                return None
            self.partial_text = text
            return True
        if self._stage == _SUMMARY or not self._enter_stage(_SUMMARY) or not self._matches_summary(text):
            return None
        self.is_in_table = self.is_in_statistics = False
        self.summary, self.constraint = text, match[1]
        self.chosen_pid, self.chosen_uid = int(match[2]), int(match[3])
        return True

    def _matches_summary(self, summary: bytes) -> bool:
        """Whether a summary belongs to the same report as what came before it, as far as its cgroups show."""
        if summary.find(b",oom_memcg=/") < 0:
            return not self.is_memcg
        limit = self.cgroups.limit
        if limit is None:
            return True
        if oom_lines.may_be_cut(limit):
            return summary.find(b",oom_memcg=" + oom_lines.known_part(limit)) >= 0
        return summary.find(b",oom_memcg=" + limit + b",task_memcg=/") >= 0

    @property
    def is_memcg(self) -> bool:
        """Whether a line mentioned a memory cgroup's limit."""
        return bool(self.counters or self.statistics or self.cgroups.limit or self.cgroups.task)

    def add_chosen(self, message: bytes, pid: int) -> bool:
        """Add a line that names the chosen process; False: it belongs to another report."""
        if self.chosen_message is not None or (self.chosen_pid is not None and self.chosen_pid != pid):
            return False
        if self.statistics and not self._has_inline_statistics:  # 5.1 and later have no such line
            return False
        if not self.may_have_message(message) or not self._enter_stage(_CHOSEN):
            return False
        self.chosen_message, self.chosen_pid = message, pid
        return True

    def may_have_message(self, message: bytes | None) -> bool:
        """Whether a kill with this message can belong to this report."""
        return message is None or not self.is_memcg or message == oom_lines.MEMCG
