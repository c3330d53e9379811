# SPDX-License-Identifier: Apache-2.0
"""Processes -> lines of a table: the columns of ``ps aux``, in its order and units, then those of the OOM killer."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tracer.base.clock import boottime_ns
from tracer.base.printable import printable
from tracer.records.matching import shown_container, shown_pod, shown_unit
from tracer.top.snapshot import HOST, ProcessEntry

_NONE = "-"
_NAME_MAX = 24
_COMMAND_MIN = 24
_COMMAND = "COMMAND"


class _Column(NamedTuple):
    title: str
    cell: Callable[[ProcessEntry, float], str]
    """Text of an entry; the second argument is the Unix time of boot."""
    min_width: int = 0
    """Minimum width; negative: the text is left-aligned."""


def _start(entry: ProcessEntry, booted_s: float) -> str:
    """START as in ps: time if today, day if this year, else year."""
    now, then = time.localtime(), time.localtime(booted_s + entry.process.start_ns / 1e9)
    if now.tm_year != then.tm_year:
        return time.strftime("%Y", then)
    return time.strftime("%H:%M" if now.tm_yday == then.tm_yday else "%b%d", then)


def _time(entry: ProcessEntry, _booted_s: float) -> str:
    seconds = entry.process.cpu_ns // 1_000_000_000
    return f"{seconds // 60}:{seconds % 60:02}"


def _percent(value: float) -> str:
    tenths = int(value * 10)
    return f"{tenths // 10}.{tenths % 10}" if tenths < 1000 else str(tenths // 10)


def _user(entry: ProcessEntry) -> str:
    return entry.user if len(entry.user) <= 8 else f"{entry.user[:7]}+"


def _kib(value: int | None) -> str:
    return _NONE if value is None else str(value // 1024)


def _number(value: int | None) -> str:
    return _NONE if value is None else str(value)


def _next(entry: ProcessEntry) -> str:
    signs = ("*" if any(path != HOST for path in entry.next_of) else "") + ("H" if HOST in entry.next_of else "")
    return signs or _NONE


def _container(entry: ProcessEntry) -> str:
    return shown_container(entry.identity._asdict()) or _NONE


def _pod(entry: ProcessEntry) -> str:
    return shown_pod(entry.identity._asdict()) or _NONE


def _unit(entry: ProcessEntry) -> str:
    return shown_unit(entry.identity._asdict()) or _NONE


def _command(entry: ProcessEntry) -> str:
    """COMMAND as in ps: without a command line the name in brackets, a zombie marked as defunct."""
    process = entry.process
    return " ".join(entry.cmdline) or f"[{process.comm}]" + (" <defunct>" if process.state[0] == "Z" else "")


_COLUMNS = (
    _Column("USER", lambda entry, _: _user(entry), -8),
    _Column("PID", lambda entry, _: str(entry.process.pid), 7),
    _Column("%CPU", lambda entry, _: _percent(entry.cpu_percent), 4),
    _Column("%MEM", lambda entry, _: _percent(entry.memory_percent), 4),
    _Column("VSZ", lambda entry, _: _kib(entry.process.total_vm_bytes), 7),
    _Column("RSS", lambda entry, _: _kib(entry.process.rss_bytes), 7),
    _Column("TTY", lambda entry, _: entry.process.tty or "?", -8),
    _Column("STAT", lambda entry, _: entry.process.state, -4),
    _Column("START", _start, 5),
    _Column("TIME", _time, 6),
    _Column("OOM", lambda entry, _: _number(entry.process.oom_score), 4),
    _Column("ADJ", lambda entry, _: _number(entry.process.oom_score_adj), 5),
    _Column("NEXT", lambda entry, _: _next(entry), -4),
    _Column("LIMIT", lambda entry, _: _kib(entry.limit.limit_bytes if entry.limit else None), 7),
    _Column("FREE", lambda entry, _: _kib(entry.limit.free_bytes if entry.limit else None), 7),
    _Column("CONTAINER", lambda entry, _: _container(entry), -9),
    _Column("POD", lambda entry, _: _pod(entry), -3),
    _Column("UNIT", lambda entry, _: _unit(entry), -4),
    _Column(_COMMAND, lambda entry, _: _command(entry)),
)
_DROP_ORDER = ("TTY", "TIME", "STAT", "START", "VSZ", "UNIT", "%CPU", "POD", "%MEM", "CONTAINER", "LIMIT", "USER")
"""Columns that are dropped on a narrow terminal, in this order."""
_OPTIONAL = frozenset({"LIMIT", "FREE", "CONTAINER", "POD", "UNIT"})


def render_table(entries: Sequence[ProcessEntry], width: int | None = None) -> list[str]:
    """A line of titles, and one line per entry.

    With a ``width``, that of a terminal, empty columns are omitted, others are dropped until the command has room, and
    lines are cut.
    """
    booted_s = time.time() - boottime_ns() / 1e9
    columns = {
        column.title: [column.title, *(printable(column.cell(entry, booted_s)) for entry in entries)]
        for column in _COLUMNS
    }
    if width is not None:
        for title in _OPTIONAL:
            if all(cell == _NONE for cell in columns[title][1:]):
                del columns[title]
    for title in _OPTIONAL & columns.keys():
        columns[title] = [_short(cell) for cell in columns[title]]
    widths = {column.title: _width(column, columns[column.title]) for column in _COLUMNS if column.title in columns}
    if width is not None:
        for title in _DROP_ORDER:
            if sum(abs(each) + 1 for name, each in widths.items() if name != _COMMAND) + _COMMAND_MIN <= width:
                break
            widths.pop(title, None)
    lines = [
        " ".join(_pad(columns[title][row], each) for title, each in widths.items()).rstrip()
        for row in range(len(entries) + 1)
    ]
    return lines if width is None else [line[:width] for line in lines]


def _width(column: _Column, cells: list[str]) -> int:
    if column.title == _COMMAND:
        return 0
    longest = max(map(len, cells))
    return -max(-column.min_width, longest) if column.min_width < 0 else max(column.min_width, longest)


def _pad(cell: str, width: int) -> str:
    return cell.ljust(-width) if width < 0 else cell.rjust(width)


def _short(cell: str) -> str:
    return cell if len(cell) <= _NAME_MAX else f"{cell[: _NAME_MAX - 1]}…"
