# SPDX-License-Identifier: Apache-2.0
"""Things that hang: a process whose memory cannot be read, and file systems whose server never answers."""

import ctypes
import os
import signal
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.harness.vanishing import read_existing

from .cgroups import Cgroup, Hierarchy
from .eater import compiled
from .environment import IN_VM, not_applicable, require, wait_until

_LIBC = ctypes.CDLL(None, use_errno=True)
_MNT_FORCE, _MNT_DETACH = 1, 2
_FUSE_INIT = 26
_IN_HEADER, _OUT_HEADER = struct.Struct("=IIQQIIIHH"), struct.Struct("=IiQ")
_INIT_OUT = struct.Struct("=IIIIHHIIHHI28x")
_TAKE_BYTES = 1 << 20


def needs_fuse() -> None:
    """Skip without FUSE."""
    if IN_VM:
        not_applicable("the guests lack the FUSE module")
    require(os.path.exists("/dev/fuse"), "/dev/fuse")


@contextmanager
def stuck(folder: Path, group: Cgroup | None = None) -> Iterator[int]:
    """Pid of a process that holds its mmap_lock for ever (stuck.c); with a cgroup, it is the next victim there."""
    needs_fuse()
    folder.mkdir()
    command = [compiled(Path(__file__).with_name("stuck.c")), folder, *([group.path] if group else [])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            pid = int(process.stdout.readline())
            wait_until("the process holds its mmap_lock", lambda: "D" in states_of_threads(pid))
            yield pid
        finally:
            process.stdin.close()


@contextmanager
def dead_server(folder: Path) -> Iterator[threading.Event]:
    """Mount a file system whose server never answers; the event is set at the first request."""
    needs_fuse()
    folder.mkdir(exist_ok=True)
    server = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0,allow_other"
    if _LIBC.mount(b"dead", os.fsencode(folder), b"fuse", 0, options.encode()):
        raise OSError(ctypes.get_errno(), "mount")
    asked, mounted = threading.Event(), threading.Event()

    def serve() -> None:
        while True:
            try:
                _, code, unique, *_ = _IN_HEADER.unpack_from(os.read(server, _TAKE_BYTES))
            except OSError:  # unmounted
                return
            if code == _FUSE_INIT:
                reply = _INIT_OUT.pack(7, 31, 0, 0, 0, 0, 4096, 0, 0, 0, 0)
                os.write(server, _OUT_HEADER.pack(_OUT_HEADER.size + len(reply), 0, unique) + reply)
                mounted.set()
            else:
                asked.set()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert mounted.wait(10)
    try:
        yield asked
    finally:
        _LIBC.umount2(os.fsencode(folder), _MNT_FORCE | _MNT_DETACH)  # waiting requests fail
        thread.join(10)
        os.close(server)


@contextmanager
def frozen(group: Cgroup, pid: int) -> Iterator[None]:
    """Freeze the cgroup of this process; with cgroup v1 the process, in the freezer hierarchy."""
    if group.hierarchy.version == 2:
        group.write("cgroup.freeze", 1)
        try:
            yield
        finally:
            group.write("cgroup.freeze", 0)
        return
    other = Hierarchy.find("freezer").make(group.path.parent.name)
    other.write("cgroup.procs", pid)
    other.write("freezer.state", "FROZEN")
    try:
        wait_until("the process is frozen", lambda: other.read("freezer.state") == "FROZEN")
        yield
    finally:
        other.write("freezer.state", "THAWED")
        other.remove()


def process_state(pid: int) -> str:
    """State as in ps; D is uninterruptible sleep."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def states_of_threads(pid: int) -> list[str]:
    stats = list(read_existing(Path(f"/proc/{pid}/task").glob("*/stat")))
    return [stat.rpartition(")")[2].split()[0] for stat in stats]


def ends_in(process: "subprocess.Popen[bytes] | subprocess.Popen[str]", seconds: float) -> int:
    """Send SIGTERM and wait until the process can be reaped; its exit code."""
    process.send_signal(signal.SIGTERM)
    wait_until("the daemon has exited", lambda: process.poll() is not None, seconds)
    assert process.returncode is not None
    return process.returncode
