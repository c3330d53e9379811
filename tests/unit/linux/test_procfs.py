# SPDX-License-Identifier: Apache-2.0
"""procfs.py: /proc of this process, of its children, and of pids that do not exist."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.events import NOBODY
from tracer.base import clock
from tracer.linux import procfs

OWN = os.getpid()
TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


@pytest.fixture
def renamed() -> Iterator[None]:
    """This process with a comm that looks like the end of the comm and another field of stat."""
    comm = Path("/proc/self/comm")
    before = comm.read_bytes()
    comm.write_bytes(b"x) S 1 (y) R 2")
    yield
    comm.write_bytes(before)


def memory(address: int, size: int) -> bytes:
    with open("/proc/self/mem", "rb") as file:
        file.seek(address)
        return file.read(size)


def test_cmdline() -> None:
    """The command line is the file's, with a NUL after each argument."""
    assert Path("/proc/self/cmdline").read_bytes()[: procfs.CMDLINE_LEN + 1] == procfs.read_cmdline(OWN)


def test_arg_start(renamed: None) -> None:
    """The address of the command line is correct for any comm."""
    cmdline, arg_start = procfs.read_cmdline(OWN), procfs.read_arg_start(OWN)
    assert cmdline is not None
    assert arg_start is not None
    assert cmdline == memory(arg_start, len(cmdline))


def test_long_cmdline() -> None:
    """One byte more than the limit is read of a long command line, which shows that it is longer."""
    program = "import sys; print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", program, *["argument"] * 1000]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        cmdline = procfs.read_cmdline(child.pid)
        child.communicate(b"")
    assert cmdline is not None
    assert len(cmdline) == procfs.CMDLINE_LEN + 1
    assert os.fsencode(sys.executable) == cmdline.split(b"\0")[0]


def test_start(renamed: None) -> None:
    """The start is between the times before and after the fork, to one tick."""
    before = clock.boottime_ns()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as child:
        after = clock.boottime_ns()
        start_ns = procfs.read_start_ns(child.pid)
        child.communicate(b"")
    assert start_ns is not None
    assert before - TICK_NS <= start_ns <= after
    own_ns = procfs.read_start_ns(OWN)
    assert own_ns is not None
    assert 0 < own_ns < before
    assert procfs.is_same_process(OWN, own_ns)
    assert procfs.is_running(OWN, own_ns)
    assert not procfs.is_same_process(OWN, own_ns - 3 * TICK_NS)
    assert not procfs.is_running(OWN, own_ns - 3 * TICK_NS)


def test_exe_and_cgroup() -> None:
    """The executable is this interpreter; the cgroup file is text."""
    assert os.readlink("/proc/self/exe") == procfs.read_exe(OWN)
    assert Path("/proc/self/cgroup").read_text() == procfs.read_cgroup(OWN)


def test_pids() -> None:
    """The list contains this process."""
    found = list(procfs.list_pids())
    assert OWN in found
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("pid", [NOBODY, 0, -1])
def test_nobody(pid: int) -> None:
    """For a process that has ended every function returns None or False."""
    assert procfs.read_cmdline(pid) is None
    assert procfs.read_arg_start(pid) is None
    assert procfs.read_start_ns(pid) is None
    assert procfs.read_exe(pid) is None
    assert procfs.read_cgroup(pid) is None


def test_zombie() -> None:
    """A zombie has no memory, so it has no command line."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert procfs.read_cmdline(child) == b""
    assert procfs.read_arg_start(child) == 0
    assert procfs.read_exe(child) is None
    start_ns = procfs.read_start_ns(child)
    assert start_ns is not None
    assert procfs.is_same_process(child, start_ns)
    assert not procfs.is_running(child, start_ns)
    os.waitpid(child, 0)


def test_oom_kills() -> None:
    """The count is that of /proc/vmstat."""
    lines = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    count = procfs.read_oom_kill_count()
    assert count is not None
    assert int(lines["oom_kill"]) <= count


def test_count_behind_the_first_page() -> None:
    """/proc/vmstat may be longer than one page, which is what the kernel returns per read."""
    reader, writer = os.pipe2(os.O_DIRECT)
    os.write(writer, b"nr_free_pages 1\n" * 250)
    os.write(writer, b"drop_slab 7\noom_kill 42\nnuma_pte_updates 0\n")
    os.close(writer)
    assert procfs.read_oom_kill_count(f"/proc/self/fd/{reader}") == 42
    os.close(reader)


def test_no_count() -> None:
    """Before Linux 4.13, and without /proc, there is no count."""
    assert procfs.read_oom_kill_count("/proc/self/stat") is None
    assert procfs.read_oom_kill_count("/proc/self/none") is None
