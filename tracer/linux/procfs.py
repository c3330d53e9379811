# SPDX-License-Identifier: Apache-2.0
"""/proc: command lines of running processes, and the state of a victim while it exits.

All reads are best effort: a process may end at any moment, and the result is then None.
"""

import contextlib
import os
from collections.abc import Iterator

CMDLINE_LEN = 1024
"""Longer command lines are cut, in bytes."""

CmdlineAndExe = tuple[str | None, str | None]
"""Command line with a NUL after each argument, decoded as Latin-1 to keep all bytes; executable."""


def list_pids() -> Iterator[int]:
    """Pids of all visible processes."""
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdecimal():
                yield int(entry.name)


def read_process(pid: int, started_ns: int) -> CmdlineAndExe | None:
    """Read command line and executable; None: the process is gone, or its pid was reused."""
    cmdline, exe = read_cmdline(pid), read_exe(pid)
    if not is_same_process(pid, started_ns):
        return None
    return None if cmdline is None else cmdline.decode("latin-1"), exe


def read_arguments(pid: int) -> tuple[str | None, int | None]:
    """Command line, as in ``CmdlineAndExe``, and its address in the process's memory."""
    cmdline = read_cmdline(pid)
    return None if cmdline is None else cmdline.decode("latin-1"), read_arg_start(pid)


def read_cmdline(pid: int) -> bytes | None:
    """At most CMDLINE_LEN + 1 bytes, NUL after each argument."""
    return _read(f"/proc/{pid}/cmdline", CMDLINE_LEN + 1)


def read_arg_start(pid: int) -> int | None:
    """Address of the command line in the process's memory (field 48 of /proc/PID/stat, proc(5))."""
    fields = _read_stat(pid)
    return int(fields[45]) if len(fields) > 45 else None


def read_exe(pid: int) -> str | None:
    """Path of the executable."""
    try:
        return os.fsencode(os.readlink(f"/proc/{pid}/exe")).decode("utf-8", "backslashreplace")
    except OSError:
        return None


def read_cgroup(pid: int) -> str | None:
    """The text of /proc/PID/cgroup."""
    raw = _read(f"/proc/{pid}/cgroup", 1 << 16)
    return None if raw is None else raw.decode("utf-8", "backslashreplace")


def read_start_ns(pid: int) -> int | None:
    """Start of the process (CLOCK_BOOTTIME), to one clock tick (field 22)."""
    fields = _read_stat(pid)
    return int(fields[19]) * _tick_ns() if fields else None


def is_same_process(pid: int, started_ns: int) -> bool:
    """Whether the process with this pid, exiting or not, started at ``started_ns`` (CLOCK_BOOTTIME)."""
    start_ns = read_start_ns(pid)
    return start_ns is not None and abs(start_ns - started_ns) <= _tick_ns()


def is_running(pid: int, started_ns: int) -> bool:
    """Whether the process that started at ``started_ns`` still exists and is not a zombie."""
    fields = _read_stat(pid)
    return bool(fields) and fields[0] not in (b"Z", b"X") and is_same_process(pid, started_ns)


def _tick_ns() -> int:
    return 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def _read_stat(pid: int) -> list[bytes]:
    """Fields of /proc/PID/stat from the third, the state (proc(5)); empty: there is no such process."""
    stat = _read(f"/proc/{pid}/stat", 4096) or b""
    return stat.rpartition(b")")[2].split()  # comm may contain spaces and parentheses


def read_oom_kill_count(path: str = "/proc/vmstat") -> int | None:
    """The kernel's count of OOM kills since boot; a group kill's first victim counts twice."""
    with contextlib.suppress(OSError), open(path, "rb") as file:  # one read returns a page at most: seq_read_iter()
        for line in file:
            if line.startswith(b"oom_kill "):
                return int(line.split()[1])
    return None


def _read(path: str, size: int) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(descriptor, size)
    except OSError:
        return None
    finally:
        os.close(descriptor)
