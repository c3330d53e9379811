# SPDX-License-Identifier: Apache-2.0
"""/proc -> all processes, with what ps shows of them and what the OOM killer weighs.

A process may exit at any moment; one that exits while it is read is omitted.
"""

import os
from typing import Any, NamedTuple

from tracer.identity import cgroup_path
from tracer.linux import procfs

_KERNEL_THREAD = 0x00200000
"""PF_KTHREAD, include/linux/sched.h."""
_INIT_PID_NAMESPACE = 4026531836
"""PROC_PID_INIT_INO, include/linux/proc_ns.h: the inode of the host's own PID namespace."""


class Process(NamedTuple):
    """One process; its memory is that of its ``status`` file, as in ps."""

    pid: int
    ppid: int
    comm: str
    cmdline: tuple[str, ...]
    """At most CMDLINE_LEN bytes; empty of kernel threads and zombies."""
    uid: int
    """The effective one."""
    state: str
    """As STAT of ps: the state's letter and the additional characters."""
    tty: str | None
    start_ns: int
    """CLOCK_BOOTTIME."""
    cpu_ns: int
    total_vm_bytes: int
    rss_bytes: int
    swap_bytes: int
    page_tables_bytes: int
    oom_score: int | None
    oom_score_adj: int | None
    killable: bool
    """Not a kernel thread, not the host's init, and with memory of its own."""
    cgroup: str | None
    """Memory cgroup as the kernel names it; bytes that are not UTF-8 as surrogates."""


PlainProcess = list[Any]
"""The fields of a process, as values that JSON can hold."""


def read_as_plain(pid: int, with_cmdline: bool) -> PlainProcess | None:
    """None if there is no such process."""
    found = read_process(pid, with_cmdline)
    if found is None:
        return None
    cgroup_bytes = None if found.cgroup is None else os.fsencode(found.cgroup).decode("latin-1")
    return list(found._replace(cgroup=cgroup_bytes))


def process_from_plain(plain: PlainProcess) -> Process:
    found = Process(*plain)
    cgroup_bytes = None if found.cgroup is None else os.fsdecode(found.cgroup.encode("latin-1"))
    return found._replace(cmdline=tuple(found.cmdline), cgroup=cgroup_bytes)


def read_process(pid: int, with_cmdline: bool = True) -> Process | None:
    """None if there is no such process. Only the command line may take long to read."""
    folder = f"/proc/{pid}"
    stat, status = _read(f"{folder}/stat"), _status(folder)
    if stat is None or status is None:
        return None
    head, _, tail = stat.rpartition(b")")
    fields = tail.split()  # from the third field on, the state (proc(5))
    living, memory = folder, status
    if b"VmRSS" not in status and int(fields[17]) > 1:  # the leader has exited, its threads and their memory remain
        living, memory = _thread(folder) or (folder, status)
    cmdline = (_read(f"{folder}/cmdline", procfs.CMDLINE_LEN) or b"").rstrip(b"\0") if with_cmdline else b""
    tick_ns = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    text = _read(f"{living}/cgroup", 1 << 16)
    kernel_thread = bool(int(fields[6]) & _KERNEL_THREAD)
    return Process(
        pid=pid,
        ppid=int(fields[1]),
        comm=head.partition(b"(")[2].decode("utf-8", "backslashreplace"),
        cmdline=tuple(word.decode("utf-8", "backslashreplace") for word in cmdline.split(b"\0")) if cmdline else (),
        uid=int(status[b"Uid"].split()[1]),
        state=_state(pid, fields, _bytes(status, b"VmLck") > 0),
        tty=_tty(int(fields[4])),
        start_ns=int(fields[19]) * tick_ns,
        cpu_ns=(int(fields[11]) + int(fields[12])) * tick_ns,
        total_vm_bytes=_bytes(memory, b"VmSize"),
        rss_bytes=_bytes(memory, b"VmRSS"),
        swap_bytes=_bytes(memory, b"VmSwap"),
        page_tables_bytes=_bytes(memory, b"VmPTE"),
        oom_score=_number(f"{folder}/oom_score"),
        oom_score_adj=_number(f"{folder}/oom_score_adj"),
        killable=b"VmRSS" in memory and not kernel_thread and not (pid == 1 and _sees_host()),
        cgroup=None if text is None else cgroup_path.parse_proc_cgroup(os.fsdecode(text)),
    )


def _state(pid: int, fields: list[bytes], locked: bool) -> str:
    """STAT, ps(1): PROCESS STATE CODES."""
    nice, session, threads = int(fields[16]), int(fields[3]), int(fields[17])
    signs = (
        ("<", nice < 0),
        ("N", nice > 0),
        ("L", locked),
        ("s", session == pid),
        ("l", threads > 1),
        ("+", fields[2] == fields[5]),
    )
    return fields[0].decode() + "".join(sign for sign, holds in signs if holds)


def _tty(number: int) -> str | None:
    """The terminal's name below /dev; None if there is none."""
    major, minor = os.major(number), os.minor(number)
    if number == 0:
        return None
    if 136 <= major <= 143:  # UNIX98_PTY_SLAVE_MAJOR, eight majors
        return f"pts/{(major - 136) * 256 + minor}"
    try:
        return os.path.basename(os.readlink(f"/sys/dev/char/{major}:{minor}"))
    except OSError:
        return None


def _sees_host() -> bool:
    try:
        return os.stat("/proc/self/ns/pid").st_ino == _INIT_PID_NAMESPACE
    except OSError:
        return True


def _status(folder: str) -> dict[bytes, bytes] | None:
    text = _read(f"{folder}/status", 1 << 16)
    if text is None:
        return None
    status = dict(line.split(b":\t", 1) for line in text.split(b"\n") if b":\t" in line)
    return status if b"Uid" in status else None


def _thread(folder: str) -> tuple[str, dict[bytes, bytes]] | None:
    """The first thread that still has the memory: its directory and its status."""
    try:
        tids = os.listdir(f"{folder}/task")
    except OSError:
        return None
    for tid in tids:
        status = _status(f"{folder}/task/{tid}")
        if status is not None and b"VmRSS" in status:
            return f"{folder}/task/{tid}", status
    return None


def _bytes(status: dict[bytes, bytes], name: bytes) -> int:
    """The value of a line ``Name: 123 kB``, in bytes; zero if there is none."""
    value = status.get(name)
    return 0 if value is None else int(value.split()[0]) << 10


def _number(path: str) -> int | None:
    text = _read(path)
    return int(text) if text else None


def _read(path: str, size: int = 4096) -> bytes | None:
    """None if the process has exited, or belongs to a user who hides it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(descriptor, size) or (b"" if path.endswith("cmdline") else None)
    except OSError:
        return None
    finally:
        os.close(descriptor)
