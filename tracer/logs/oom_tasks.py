# SPDX-License-Identifier: Apache-2.0
"""The table of tasks in a report of the OOM killer: dump_tasks(), mm/oom_kill.c, Linux 2.6.25 to 7.x.

A host's table may have a million rows. Only the largest rows are kept, unparsed, and only those that a kill needs are
parsed.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

_MOST_ROWS = 1024
_MOST_COLUMNS = 20
_LARGEST_ROWS = 10
_RSS = 3
"""The column in all kernels."""
_MATCHES_NOTHING = re.compile(b"")
_PARSED_COLUMNS = (b"tgid", b"total_vm", b"rss", b"swapents", b"pgtables_bytes", b"oom_score_adj")
_GROUPS = ("tid", "tgid", "total_vm", "rss", "swapents", "pgtables_bytes", "oom_score_adj", "comm")


class _Columns(NamedTuple):
    names: tuple[bytes, ...]
    swap: int | None
    """The number of the column of swap."""
    sort_columns: int
    """The number of columns that the sort key needs."""
    row: re.Pattern[bytes]
    """Groups are `_GROUPS`, empty if a kernel has no such column."""


class TaskRow(NamedTuple):
    """A row: a process, and the thread that the row shows."""

    tid: int
    pid: int
    comm: bytes
    rss_pages: int
    swap_pages: int | None
    page_tables_bytes: int | None
    oom_score_adj: int | None
    total_vm_pages: int = 0


class TaskTable:
    """The rows of one table; true if there are any."""

    _columns: Sequence[bytes] = ()
    _swap: int | None = None
    _sort_columns = _RSS + 1
    _row = _MATCHES_NOTHING
    _by_tid: dict[bytes, bytes] | None = None
    _is_truncated = False

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._parsed: dict[bytes, TaskRow | None] = {}
        """The parsed rows, by their text."""

    def __bool__(self) -> bool:
        return bool(self._lines)

    def may_contain(self, tid: int) -> bool:
        """Whether a thread may be in the table: also if rows were dropped, or there is no table."""
        return not self._lines or self._is_truncated or self.find_row(tid) is not None

    def contains(self, tid: int, comm: bytes) -> bool:
        """Whether a thread with this comm is in the table."""
        task = self.find_row(tid)
        return task is not None and task.comm == comm

    def may_have_comm(self, tid: int, comm: bytes) -> bool:
        """Whether a thread is in the table, or may be of a process in it, whose first thread has the same comm."""
        if self._is_truncated or self.find_row(tid) is not None:
            return True
        return any(task is not None and task.comm == comm for task in map(self._parse_row, self._rows().values()))

    def may_have_process(self, pid: int) -> bool:
        """Whether a process may be in the table."""
        return not self._lines or self._is_truncated or self.pid_of(pid) is not None

    @property
    def has_header(self) -> bool:
        """Whether the header was read."""
        return bool(self._columns)

    @staticmethod
    def is_header(line: bytes) -> bool:
        """Whether a line is a table's header."""
        return line.startswith((b"[ pid ]", b"[  pid  ]")) and _parse_header(line) is not None

    def read_header(self, header: bytes) -> None:
        """Read the header, before any row."""
        columns = _parse_header(header)
        if columns is not None:
            self._columns, self._swap, self._sort_columns, self._row = columns

    def extend(self, rows: Sequence[bytes]) -> None:
        """Add possible rows, after the header; how many come at once does not change which are kept."""
        self._by_tid = None
        while rows:
            room = 2 * _MOST_ROWS - len(self._lines)
            self._lines += rows[:room]
            rows = rows[room:]
            if len(self._lines) >= 2 * _MOST_ROWS:
                self._lines, self._is_truncated = (
                    sorted(self._lines, key=self._rss_and_swap_pages, reverse=True)[:_MOST_ROWS],
                    True,
                )

    def find_row(self, tid: int) -> TaskRow | None:
        """The row of a thread."""
        if not self._lines:
            return None
        line = self._rows().get(b"%d" % tid)
        return None if line is None else self._parse_row(line)

    def are_same_process(self, one: int, other: int) -> bool:
        """Whether two threads are known to belong to one process."""
        return self.pid_of(one) is not None and self.pid_of(one) == self.pid_of(other)

    def pid_of(self, tid: int | None) -> int | None:
        """The process of a thread, if the table shows it."""
        if tid is None or not self._lines:
            return None
        if (task := self.find_row(tid)) is not None:
            return task.pid
        number = b" %d " % tid
        found = (self._parse_row(line) for line in self._rows().values() if line.find(number) >= 0)
        return tid if any(task is not None and task.pid == tid for task in found) else None

    def largest_rows(self, victim_tid: int) -> list[TaskRow]:
        """The victim's row, then those of the largest others, ten in all."""
        victim, tasks = self.find_row(victim_tid), list[TaskRow]()
        for line in sorted(self._rows().values(), key=self._rss_and_swap_pages, reverse=True):
            if len(tasks) == _LARGEST_ROWS:
                break
            task = self._parse_row(line)
            if task is not None and task != victim:
                tasks.append(task)
        return tasks if victim is None else [victim, *tasks][:_LARGEST_ROWS]

    def _rows(self) -> dict[bytes, bytes]:
        if self._by_tid is None:
            self._by_tid = {line[1 : line.find(b"]")].lstrip(): line for line in self._lines}
        return self._by_tid

    def _rss_and_swap_pages(self, line: bytes) -> int:
        """The sort key of a row; -1: the line is not a row."""
        values = line[line.find(b"]") + 1 :].split(None, self._sort_columns)
        try:
            return max(0, int(values[_RSS])) + (0 if self._swap is None else max(0, int(values[self._swap])))
        except (IndexError, ValueError):
            return -1

    def _parse_row(self, line: bytes) -> TaskRow | None:
        if line not in self._parsed:
            row = self._row.fullmatch(line)
            self._parsed[line] = None if row is None else _task(row)
        return self._parsed[line]


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
def _parse_header(line: bytes) -> _Columns | None:
    """The columns that a header names; None: the line is not a header."""
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
    fields = b"".join(
        rb" +" + (rb"(?P<%b>-?\d{1,20})" % name if name in _PARSED_COLUMNS else rb"-?\d{1,20}") for name in names
    )
    missing = b"".join(rb"(?P<%b>)" % name for name in _PARSED_COLUMNS if name not in names)
    row = re.compile(rb"\[ *(?P<tid>\d{1,10})\]" + fields + missing + rb" (?P<comm>.{0,64})", re.DOTALL)
    return _Columns(tuple(names), swap, max(_RSS, swap or 0) + 1, row)
