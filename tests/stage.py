# SPDX-License-Identifier: Apache-2.0
"""Runs a test command, and removes processes, mounts, cgroups, networks and pins that it leaves behind.

python3 -m tests.stage COMMAND...
python3 -m tests.stage --check              fails if something of an earlier command of this checkout is there

As root it gets a mount namespace of its own, so that what it mounts is gone with its processes, whatever ends them, and
is not in the way of a user who copies or removes the checkout.  SIGINT and SIGTERM end the command as Ctrl-C does:
pytest tears its fixtures down.  What is left nevertheless is named, ended and removed, and makes the status 1.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.runtimes.leftovers import CGROUPS, INTERFACES, NETWORK_NAMESPACES, remove_empty

from .harness.environment import ROOT
from .harness.mounts import mount_missing

CLONE_NEWNS = 0x20000
MS_REC, MS_PRIVATE = 0x4000, 0x40000
PR_SET_CHILD_SUBREAPER = 36
MARK = "OOMTRACE_STAGE"
"""Environment variable of all processes of a command; its value is the checkout."""
ENDING_S = 60
"""Timeout for a command to exit after a signal."""
LAST_S = 5.0
"""Timeout for its processes to exit after it."""
PINS = Path("/sys/fs/bpf")


def main() -> int:
    if len(sys.argv) < 2:
        print("usage: python3 -m tests.stage COMMAND... | --check", file=sys.stderr)
        return 2
    if sys.argv[1:] == ["--check"]:
        return _report([*_marked(), *(f"mount {path}" for path in _mounts() if Path(path).is_relative_to(ROOT))])
    _adopt()
    if os.geteuid() == 0:
        _leave_mounts()
        mount_missing()
    # `ip netns add` mounts that directory for good; here the mount is gone with the namespace.
    mounts = _mounts() | {str(NETWORK_NAMESPACES)}
    child, status = _run(sys.argv[1:])
    left = [f"process {pid} {_command(pid)}" for pid in _survivors()]
    _kill()
    if os.geteuid() == 0:
        for kind, name in [*(("mount", path) for path in sorted(_mounts() - mounts, reverse=True)), *named(child)]:
            left.append(f"{kind} {name}")
            _remove(kind, name)
    reported = _report(left)
    return status or reported


def _report(left: list[str]) -> int:
    for each in left:
        print(f"stage: left behind: {each}", file=sys.stderr)
    return 1 if left else 0


def named(pid: int) -> list[tuple[str, str]]:
    """Cgroups, networks and pins that have the number of a process in their names, as those of the tests have.

    Another run beside this one has others.
    """
    places = {
        "cgroup": (Path(path) for path, _, _ in os.walk(CGROUPS)),
        "netns": NETWORK_NAMESPACES.glob("*"),
        "link": INTERFACES.glob("*"),
        "pins": PINS.glob("*"),
    }
    name = re.compile(rf"oomt(?:race-test-)?{pid}(?!\d)")
    found = [(kind, str(path)) for kind, paths in places.items() for path in paths if name.match(path.name)]
    return sorted(found, reverse=True)  # children first


def _mounts() -> set[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return {line.split()[4].encode().decode("unicode_escape") for line in lines}


def _remove(kind: str, name: str) -> None:
    if kind == "cgroup":
        remove_empty(Path(name))
        return
    commands = {"mount": ["umount", "--lazy", name], "pins": ["rm", "-r", name]}
    command = commands.get(kind, ["ip", kind, "delete", Path(name).name])
    subprocess.run(command, check=False, capture_output=True)


def _marked() -> Iterator[str]:
    """Pids of processes of an earlier command."""
    mark = f"{MARK}={ROOT}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    yield f"process {entry.name} {_command(int(entry.name))}"


def _adopt() -> None:
    """Become the parent of orphaned descendants, in any session."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def _leave_mounts() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) or libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None):
        raise OSError(ctypes.get_errno(), "a mount namespace")


def _run(command: list[str]) -> tuple[int, int]:
    """Pid and status of a command, which is stopped when this process is stopped."""
    handled = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, handled)
    # In a new session: Ctrl-C reaches it through this process only, and its daemons through its teardown only.
    environment = {**os.environ, MARK: str(ROOT)}
    child = subprocess.Popen(command, env=environment, start_new_session=True, preexec_fn=_heed_signals)
    ended_by = 0
    while child.pid not in (ended := _reap()):
        number = signal.sigwaitinfo(handled).si_signo
        if number == signal.SIGALRM:
            child.kill()
        elif number != signal.SIGCHLD and not ended_by:  # a second signal would interrupt the teardown
            ended_by = number
            signal.alarm(ENDING_S)
            child.send_signal(signal.SIGINT)
    signal.alarm(0)
    child.returncode = ended[child.pid]
    if ended_by:
        return child.pid, 128 + ended_by
    return child.pid, child.returncode if child.returncode >= 0 else 128 - child.returncode


def _heed_signals() -> None:
    """Reset SIGINT, which a shell makes its background processes ignore."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _survivors() -> list[int]:
    """Descendants that still run after the timeout."""
    end = time.monotonic() + LAST_S
    while True:
        _reap()
        found = list(_descendants(os.getpid()))
        if not found or time.monotonic() > end:
            return found
        time.sleep(0.1)


def _kill() -> None:
    """Kill what is left, including processes started meanwhile; what that was."""
    end = time.monotonic() + LAST_S
    while (found := list(_descendants(os.getpid()))) and time.monotonic() < end:
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
        _reap()


def _reap() -> dict[int, int]:
    """Exited children, with their status."""
    found = {}
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            found[ended[0]] = os.waitstatus_to_exitcode(ended[1])
    return found


def _descendants(of: int) -> Iterator[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_bytes().rpartition(b")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    waiting = [of]
    while waiting:
        found = children.get(waiting.pop(), [])
        waiting += found
        yield from found


def _command(pid: int) -> str:
    try:
        return repr(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:200])
    except OSError:
        return "?"


if __name__ == "__main__":
    sys.exit(main())
