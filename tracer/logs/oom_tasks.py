# SPDX-License-Identifier: Apache-2.0
"""The table of tasks in a report of the OOM killer: dump_tasks(), mm/oom_kill.c, Linux 2.6.25 to 7.x.

A host's table may have a million rows: they are kept as they came, the largest of them, and only those are read whole
that are asked for when somebody was killed.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

_MOST_ROWS = 1024
_MOST_COLUMNS = 20
_LARGEST = 10
_RSS = 3
"""The column of it in all kernels."""
_NO_ROW = re.compile(b"")
_READ = (b"tgid", b"total_vm", b"rss", b"swapents", b"pgtables_bytes", b"oom_score_adj")
_GROUPS = ("tid", "tgid", "total_vm", "rss", "swapents", "pgtables_bytes", "oom_score_adj", "comm")


class _Columns(NamedTuple):
    names: tuple[bytes, ...]
    swap: int | None
    """Which of them tells of swap."""
    read: int
    """So many are read of rows that nobody asked for."""
    row: re.Pattern[bytes]
    """Groups are `_GROUPS`, empty where a kernel has no such column."""


class TaskRow(NamedTuple):
    """A row: a process, and the thread of it that has its memory."""

    tid: int
    pid: int
    comm: bytes
    rss_pages: int
    swap_pages: int | None
    page_tables_bytes: int | None
    oom_score_adj: int | None
    total_vm_pages: int = 0


class TaskTable:
    """The rows of one table; truth is whether there are any."""

    _columns: Sequence[bytes] = ()
    _swap: int | None = None
    """Which of them tells of swap."""
    _read_columns = _RSS + 1
    """So many are read of rows that nobody asked for."""
    _row = _NO_ROW
    _by_tid: dict[bytes, bytes] | None = None
    _shrunk = False

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._tasks: dict[bytes, TaskRow | None] = {}
        """Those that were read, by their rows."""

    def __bool__(self) -> bool:
        return bool(self._lines)

    def may_have(self, tid: int) -> bool:
        """Whether a thread is in the table, or in what was not kept of it, or there was no table."""
        return not self._lines or self._shrunk or self.find(tid) is not None

    def has(self, tid: int, comm: bytes) -> bool:
        """Whether a thread of that name is in the table."""
        task = self.find(tid)
        return task is not None and task.comm == comm

    def may_have_comm(self, tid: int, comm: bytes) -> bool:
        """Whether a thread is in the table, or may be of a process in it, whose first thread has the same name."""
        if self._shrunk or self.find(tid) is not None:
            return True
        return any(task is not None and task.comm == comm for task in map(self._read, self._rows().values()))

    def may_have_process(self, pid: int) -> bool:
        """Whether a process is in the table, as far as that is known."""
        return not self._lines or self._shrunk or self.process_of(pid) is not None

    @property
    def has_header(self) -> bool:
        """Whether it is known what the columns are."""
        return bool(self._columns)

    @staticmethod
    def is_header(line: bytes) -> bool:
        """Whether a table begins with a line."""
        return line.startswith((b"[ pid ]", b"[  pid  ]")) and _header(line) is not None

    def begin(self, header: bytes) -> None:
        """Take the header, before any row."""
        columns = _header(header)
        if columns is not None:
            self._columns, self._swap, self._read_columns, self._row = columns

    def extend(self, rows: Sequence[bytes]) -> None:
        """Take what may be rows, after a header; which are kept, does not depend on how many come at once."""
        self._by_tid = None
        while rows:
            room = 2 * _MOST_ROWS - len(self._lines)
            self._lines += rows[:room]
            rows = rows[room:]
            if len(self._lines) >= 2 * _MOST_ROWS:
                self._lines, self._shrunk = sorted(self._lines, key=self._pages, reverse=True)[:_MOST_ROWS], True

    def find(self, tid: int) -> TaskRow | None:
        """The row of a thread."""
        if not self._lines:
            return None
        line = self._rows().get(b"%d" % tid)
        return None if line is None else self._read(line)

    def are_same(self, one: int, other: int) -> bool:
        """Whether two threads are known to be of one process."""
        return self.process_of(one) is not None and self.process_of(one) == self.process_of(other)

    def process_of(self, tid: int | None) -> int | None:
        """The process of a thread, where the table shows it."""
        if tid is None or not self._lines:
            return None
        if (task := self.find(tid)) is not None:
            return task.pid
        number = b" %d " % tid
        found = (self._read(line) for line in self._rows().values() if line.find(number) >= 0)
        return tid if any(task is not None and task.pid == tid for task in found) else None

    def largest(self, victim_tid: int) -> list[TaskRow]:
        """The victim, then the largest others, ten in all."""
        victim, tasks = self.find(victim_tid), list[TaskRow]()
        for line in sorted(self._rows().values(), key=self._pages, reverse=True):
            if len(tasks) == _LARGEST:
                break
            task = self._read(line)
            if task is not None and task != victim:
                tasks.append(task)
        return tasks if victim is None else [victim, *tasks][:_LARGEST]

    def _rows(self) -> dict[bytes, bytes]:
        if self._by_tid is None:
            self._by_tid = {line[1 : line.find(b"]")].lstrip(): line for line in self._lines}
        return self._by_tid

    def _pages(self, line: bytes) -> int:
        """By which rows are ordered; -1: it is none."""
        values = line[line.find(b"]") + 1 :].split(None, self._read_columns)
        try:
            return max(0, int(values[_RSS])) + (0 if self._swap is None else max(0, int(values[self._swap])))
        except (IndexError, ValueError):
            return -1

    def _read(self, line: bytes) -> TaskRow | None:
        if line not in self._tasks:
            row = self._row.fullmatch(line)
            self._tasks[line] = None if row is None else _task(row)
        return self._tasks[line]


def _task(row: re.Match[bytes]) -> TaskRow:
    tid, tgid, total_vm, rss, swap, page_tables, adj, comm = row.group(*_GROUPS)
    return TaskRow(
        int(tid),
        int(tgid),
        comm,
        max(0, int(rss)),
        max(0, int(swap)) if swap else None,
        int(page_tables) if page_tables else None,
        int(adj) if adj else None,
        int(total_vm),
    )


@lru_cache(maxsize=16)
def _header(line: bytes) -> _Columns | None:
    """The columns that a header names; None: it is none."""
    columns = line[line.index(b"]") + 1 :].split()
    if (
        len(columns) > _MOST_COLUMNS
        or columns[:4] != [b"uid", b"tgid", b"total_vm", b"rss"]
        or columns[-1] != b"name"
        or len(set(columns)) != len(columns)
    ):
        return None
    names = columns[:-1]
    swap = names.index(b"swapents") if b"swapents" in names else None
    fields = b"".join(rb" +" + (rb"(?P<%b>-?\d{1,20})" % name if name in _READ else rb"-?\d{1,20}") for name in names)
    missing = b"".join(rb"(?P<%b>)" % name for name in _READ if name not in names)
    row = re.compile(rb"\[ *(?P<tid>\d{1,10})\]" + fields + missing + rb" (?P<comm>.{0,64})", re.DOTALL)
    return _Columns(tuple(names), swap, max(_RSS, swap or 0) + 1, row)
