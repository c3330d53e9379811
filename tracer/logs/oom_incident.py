# SPDX-License-Identifier: Apache-2.0
"""One run of the OOM killer, as far as its lines were seen in the kernel log."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from tracer.logs import oom_lines
from tracer.logs.oom_lines import LogLine
from tracer.logs.oom_tasks import Task, Tasks
from tracer.logs.reported import Counter, Report

_MOST_PIECES_BYTES = 16384
_MOST_OTHER_LINES = 4096
"""Lines of somebody else after which a report is not waited for; the kernel's own dump of memory has some hundred."""
_MOST_LINES_AFTER = 64
"""The same after a kill, of the same caller: the other victims of a group kill follow at once."""
_LONGEST_PAUSE_NS = 60_000_000_000
_LONGEST_PAUSE_AFTER_NS = 1_000_000_000


Awaited = Literal["words", "details", "statistics", "all"]
"""Which lines have to be fed: those with `WORDS` or `DETAILS` of oom_report.py, these and statistics, or all."""


class Kill(NamedTuple):
    time_ns: int | None
    message: bytes | None
    tid: int
    comm: bytes
    uid: int | None
    total_vm_kb: int | None
    anon_rss_kb: int | None
    file_rss_kb: int | None
    shmem_rss_kb: int | None
    page_tables_kb: int | None
    oom_score_adj: int | None
    wall_ns: int | None = None


class Incident:
    """The lines of one run of the OOM killer, as far as they came."""

    def __init__(self, line: LogLine, number: int) -> None:
        self.first, self.clock = line.time_ns, line.clock
        self._last, self._number, self._others = line.time_ns, number, 0
        self.gfp_mask: int | None = None
        self.gfp_flags: bytes | None = None
        self.order: int | None = None
        self.trigger_comm: bytes | None = None
        self.trigger_tid: int | None = None
        self.reported = False
        self.chosen: bytes | None = None
        """The message of a line that said who was chosen."""
        self.constraint: bytes | None = None
        self.chosen_pid: int | None = None
        self.chosen_uid: int | None = None
        self.summary: bytes | None = None
        self.cgroups = oom_lines.Cgroups(None, None)
        self.counters: dict[bytes, Counter] = {}
        self.statistics: dict[bytes, int] = {}
        self.in_statistics = self.in_table = False
        self.tasks = Tasks()
        self.kills: list[Kill] = []
        self.group: bytes | None = None
        self.pieces = b""

    def invoked(self, comm: bytes, gfp_mask: bytes, gfp_flags: bytes | None, order: bytes) -> None:
        self.reported = True
        self.trigger_comm = comm
        self.gfp_mask, self.gfp_flags, self.order = int(gfp_mask, 16), gfp_flags, int(order)

    def touch(self, line: LogLine, number: int) -> None:
        """``line``, the ``number``-th of the log, was one of this report."""
        self._last, self._number, self._others = line.time_ns, number, 0

    def is_stale(self, line: LogLine, number: int) -> bool:
        """Whether nothing more can come of this report."""
        if number - self._number > _MOST_OTHER_LINES or (self._others > _MOST_LINES_AFTER and self.kills):
            return True
        if line.time_ns is None or self._last is None or line.clock != self.clock or line.clock == "unknown":
            return False
        # Backwards: another boot.
        return abs(line.time_ns - self._last) > (_LONGEST_PAUSE_AFTER_NS if self.kills else _LONGEST_PAUSE_NS)

    @property
    def awaits(self) -> Awaited:
        """A table's rows and what goes on with a long line are told by their place, not by their words."""
        if self.kills or self.chosen is not None:
            return "details"
        return "all" if self.in_table or self.pieces else "statistics" if self.in_statistics else "details"

    @property
    def has_all_ahead(self) -> bool:
        """Whether there was no kill yet, and no line that goes on in the next."""
        return not (self.kills or self.pieces or self.chosen is not None)

    def add(self, text: bytes) -> bool:
        """Take a line of the same second as the one before, while it has all ahead; False: it has to be fed."""
        is_summary = text.startswith(b"oom-kill:")
        return text.find(b"ill", 8 if is_summary else 0) < 0 and self._take(text) and not self.pieces

    def read(self, line: LogLine, number: int) -> bool:
        """Take what a line says, if it is of a report; False where it says that there will be no kill."""
        text = line.text
        if self.pieces:  # a long path takes a record of its own, and what follows it another (printk's LOG_CONT)
            if text[:1] in (b"/", b",", b":") and len(self.pieces) + len(text) < _MOST_PIECES_BYTES:
                text = self.pieces + text
            self.pieces = b""
        if self._take(text):
            self.touch(line, number)
            return True
        self._others += 1
        if text.startswith((b"Out of memory and no killable processes", b"Kernel panic - not syncing: ")):
            return False
        if text.endswith(b" is already exiting. Skip killing the task") and b": OOM victim " in text:
            return bool(self.kills)
        return True

    def _take(self, text: bytes) -> bool:
        """Take a row, a statistic or a detail; whether it was one."""
        if self.in_statistics and self._read_statistics(text):
            return True
        first = text[:1]
        if first == b"[":
            known = self.tasks.add(text)
            self.in_statistics = False
            self.in_table = self.in_table or known
            return known
        return first != b" " and self._read_detail(text)  # which is of a stack

    def _read_detail(self, text: bytes) -> bool:
        if text.startswith(b"oom-kill:constraint="):
            self._read_summary(text)
        elif text.startswith(b"Memory cgroup stats for "):
            self._begin_statistics(text)
        elif text.startswith(b"Task in "):
            self.cgroups = oom_lines.read_controlled_cgroups(text)
        elif (match := oom_lines.COUNTER.fullmatch(text)) is not None:
            self.counters[match[1]] = Counter(int(match[2]) << 10, int(match[3]) << 10, int(match[4]))
        elif self.trigger_tid is None and (match := oom_lines.CPU.match(text)) is not None:
            # Of a name that begins like one of printk's prefixes (KERN_SOH) the line before has lost the first bytes.
            if match[2].endswith(self.trigger_comm or b""):
                self.trigger_tid, self.trigger_comm = int(match[1]), match[2]
        else:
            return text.startswith((b"Tasks state (memory values in pages):", b"oom_reaper: "))
        return True

    def _read_statistics(self, text: bytes) -> bool:
        name, _, value = text.partition(b" ")
        if value.isdigit() and len(value) <= 20:
            if name in oom_lines.STATISTICS:
                self.statistics[name] = int(value)
            return True
        found = oom_lines.LINE_STATISTIC.findall(text)  # before 6.4 all of them in one record
        self.statistics.update((name, int(value)) for name, value in found)
        return bool(found)

    def _begin_statistics(self, text: bytes) -> None:
        # 5.2 and later: one statistic a line, of the whole tree.  Before: on this line, one line for each cgroup in it.
        found = oom_lines.INLINE_STATISTICS.fullmatch(text)
        if found is not None:
            for name, value in oom_lines.INLINE_STATISTIC.findall(found[1]):
                if name in oom_lines.STATISTICS:
                    self.statistics[name] = self.statistics.get(name, 0) + (int(value) << 10)
            return
        self.in_statistics = True
        if text.endswith(b":"):
            self.cgroups = oom_lines.Cgroups(text[24:-1], None)
        else:
            self.pieces = text

    def _read_summary(self, text: bytes) -> None:
        match = oom_lines.SUMMARY.fullmatch(text)
        if match is None:
            self.pieces = text
            return
        self.in_table = False
        self.summary, self.constraint = text, match[1]
        self.chosen_pid, self.chosen_uid = int(match[2]), int(match[3])

    def can_take(self, kill: Kill) -> bool:
        """Whether a "Killed process" line can be of this report, and not of one that was suppressed."""
        if self.kills:
            return self.group is not None and self.kills[0].message == kill.message and self.tasks.may_have(kill.tid)
        if not self.reported or self.chosen is not None:
            return True
        if self.chosen_pid is None:
            return self.tasks.find(kill.tid) is not None
        return self.chosen_pid == kill.tid or self.tasks.are_same(self.chosen_pid, kill.tid)

    def reports(self, complete: bool) -> list[Report]:
        """What is known of each victim."""
        if self.summary is not None and self.kills:
            self.cgroups = oom_lines.read_summary_cgroups(self.summary, self.kills[0].comm, self.cgroups.limit)
        largest = self.tasks.largest(self.kills[0].tid) if self.tasks and self.kills else None
        return [self._report(kill, largest, complete) for kill in self.kills]

    def _report(self, kill: Kill, largest: list[Task] | None, complete: bool) -> Report:
        task = self.tasks.find(kill.tid)
        chosen = kill is self.kills[0] and self.chosen is None
        pid = task.pid if task is not None else None
        if pid is None and chosen and kill.oom_score_adj is not None and kill.message != oom_lines.ALLOCATING:
            # Such lines are of 5.4 and later, and since "mm: memcontrol: use CSS_TASK_ITER_PROCS at
            # mem_cgroup_scan_tasks()" (5.3) it is the first thread.
            pid = self.chosen_pid
        page_tables = _bytes(kill.page_tables_kb)
        if page_tables is not None and not _is_plausible(kill):
            page_tables = task.page_tables_bytes if task is not None else None
        elif page_tables is None and task is not None:
            page_tables = task.page_tables_bytes
        adj = kill.oom_score_adj
        return Report(
            kill.time_ns,
            self.first,
            self.clock,
            kill.tid,
            pid,
            kill.comm,
            kill.uid if kill.uid is not None else self.chosen_uid if chosen else None,
            _bytes(kill.total_vm_kb),
            _bytes(kill.anon_rss_kb),
            _bytes(kill.file_rss_kb),
            _bytes(kill.shmem_rss_kb),
            page_tables,
            adj if adj is not None or task is None else task.oom_score_adj,
            task,
            self.cgroups.task if kill is self.kills[0] else None,
            kill.message or self.chosen,
            # oc->constraint was not set in 5.0-5.2, whose lines had no oom_score_adj.
            self.constraint if kill.oom_score_adj is not None or self.constraint != b"NONE" else None,
            self.gfp_mask,
            self.gfp_flags,
            self.order,
            self.cgroups.limit,
            self.counters,
            self.statistics,
            self.trigger_comm,
            self.trigger_tid,
            self.trigger_tid if self.trigger_tid == pid else self.tasks.process_of(self.trigger_tid),
            largest,
            self.group is not None or (False if complete else None),
            len(self.kills) if complete else None,
            kill.wall_ns,
            self.kills[0].tid,
            self.group,
        )


def read_kill(groups: Sequence[bytes | None], line: LogLine) -> Kill:
    message, tid, uid6, comm, uid7, total_vm, anon, file, shmem, uid, page_tables, adj = groups
    return Kill(
        line.time_ns,
        message,
        int(tid or 0),
        comm or b"",
        _int(uid6 or uid7 or uid),
        _int(total_vm),
        _int(anon),
        _int(file),
        _int(shmem),
        _int(page_tables),
        _int(adj),
        line.wall_ns,
    )


def _int(digits: bytes | None) -> int | None:
    return None if digits is None else int(digits)


def _bytes(kb: int | None) -> int | None:
    return None if kb is None else kb << 10


def _is_plausible(kill: Kill) -> bool:
    """Whether the size of the page tables is in kB: 5.4.0 to 5.4.8 printed bytes (fixed by 941f762bcb27).

    A page of them maps 512 pages; some 4 MiB are for small processes and large pages.
    """
    return (kill.page_tables_kb or 0) <= (kill.total_vm_kb or 0) // 256 + 4096
