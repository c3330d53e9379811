# SPDX-License-Identifier: Apache-2.0
"""The table of tasks in a report of the OOM killer: dump_tasks(), mm/oom_kill.c, Linux 2.6.25 to 7.x.

A host's table may have a million rows: they are kept as they came, the largest of them, and read when somebody was
killed.
"""

import re
from functools import lru_cache
from typing import NamedTuple

_MOST_ROWS = 1024
_MOST_COLUMNS = 20
_LARGEST = 10
_NO_ROW = re.compile(b"")
_READ = (b"tgid", b"total_vm", b"rss", b"swapents", b"pgtables_bytes", b"oom_score_adj")
_GROUPS = ("tid", "tgid", "total_vm", "rss", "swapents", "pgtables_bytes", "oom_score_adj", "comm")


class Task(NamedTuple):
    """A row: a process, and the thread of it that has its memory."""

    tid: int
    pid: int
    comm: bytes
    rss_pages: int
    swap_pages: int | None
    page_tables_bytes: int | None
    oom_score_adj: int | None
    total_vm_pages: int = 0


class Tasks:
    """The rows of one table; truth is whether there are any."""

    def __init__(self) -> None:
        self._columns: list[bytes] = []
        self._row = _NO_ROW
        self._lines: list[bytes] = []
        self._tasks: dict[int, Task] | None = None
        self._shrunk = False

    def __bool__(self) -> bool:
        return bool(self._lines)

    def may_have(self, tid: int) -> bool:
        """Whether a thread is in the table, or in what was not kept of it, or there was no table."""
        return not self._lines or self._shrunk or self.find(tid) is not None

    def add(self, line: bytes) -> bool:
        """Take a header or what may be a row; whether it was one of them."""
        if line.startswith((b"[ pid ]", b"[  pid  ]")):
            columns = line[line.index(b"]") + 1 :].split()
            if (
                len(columns) > _MOST_COLUMNS
                or columns[:4] != [b"uid", b"tgid", b"total_vm", b"rss"]
                or columns[-1] != b"name"
                or len(set(columns)) < len(columns)
            ):
                return False
            self._columns = columns[:-1]
            self._row = _row(tuple(self._columns))
            self._lines, self._tasks, self._shrunk = [], None, False
            return True
        if not self._columns:
            return False
        self._lines.append(line)
        self._tasks = None
        if len(self._lines) > 2 * _MOST_ROWS:
            self._shrink()
        return True

    def find(self, tid: int) -> Task | None:
        """The row of a thread."""
        return self._read().get(tid)

    def are_same(self, one: int, other: int) -> bool:
        """Whether two threads are known to be of one process."""
        return self.process_of(one) is not None and self.process_of(one) == self.process_of(other)

    def process_of(self, tid: int | None) -> int | None:
        """The process of a thread, where the table shows it."""
        if tid is None:
            return None
        if (task := self.find(tid)) is not None:
            return task.pid
        return tid if any(task.pid == tid for task in self._read().values()) else None

    def largest(self, victim_tid: int) -> list[Task]:
        """The victim, then the largest others, ten in all."""
        tasks = sorted(self._read().values(), key=lambda task: (task.tid != victim_tid, -_pages(task)))
        return tasks[:_LARGEST]

    def _read(self) -> dict[int, Task]:
        if self._tasks is None:
            self._tasks = {task.tid: task for task, _ in self._parse()} if self._lines else {}
        return self._tasks

    def _parse(self) -> list[tuple[Task, bytes]]:
        found = []
        for line in self._lines:
            if (row := self._row.fullmatch(line)) is not None:
                tid, tgid, total_vm, rss, swap, page_tables, adj, comm = row.group(*_GROUPS)
                task = Task(
                    int(tid),
                    int(tgid),
                    comm,
                    max(0, int(rss)),
                    max(0, int(swap)) if swap else None,
                    int(page_tables) if page_tables else None,
                    int(adj) if adj else None,
                    int(total_vm),
                )
                found.append((task, line))
        return found

    def _shrink(self) -> None:
        kept = sorted(self._parse(), key=lambda row: -_pages(row[0]))[:_MOST_ROWS]
        self._lines, self._shrunk = [line for _, line in kept], True


@lru_cache(maxsize=16)
def _row(columns: tuple[bytes, ...]) -> re.Pattern[bytes]:
    """Groups are `_GROUPS`, empty where a kernel has no such column."""
    fields = b"".join(rb" +" + (rb"(?P<%b>-?\d{1,20})" % name if name in _READ else rb"-?\d{1,20}") for name in columns)
    missing = b"".join(rb"(?P<%b>)" % name for name in _READ if name not in columns)
    return re.compile(rb"\[ *(?P<tid>\d{1,10})\]" + fields + missing + rb" (?P<comm>.{0,64})", re.DOTALL)


def _pages(task: Task) -> int:
    return task.rss_pages + (task.swap_pages or 0)
