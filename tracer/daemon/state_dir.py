# SPDX-License-Identifier: Apache-2.0
"""The state directory (--state): ledger, spools and hung sources, which outlive the process.  It has one user."""

import contextlib
import fcntl
import os
import stat
from typing import NamedTuple

from tracer.base.errors import TracerError
from tracer.base.hung_disk import HUNG_AFTER_S, OPEN_TIMEOUT_S, call_with_timeout
from tracer.base.log import warn

FOLDER_MODE = 0o750
LOCK = "lock"


class StateDir(NamedTuple):
    folder: str
    lock: int
    """Descriptor that holds the lock while it is open; the file contains the pid of the holder."""

    @property
    def ledger(self) -> str:
        return f"{self.folder}/ledger"

    @property
    def hung(self) -> str:
        return f"{self.folder}/hung"


def open_state_dir(folder: str) -> StateDir:
    """Open and lock the directory; create it if it is missing.

    Raises TracerError if another oomtrace has locked it, and OSError if it cannot be used or others can write to it.
    """
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, FOLDER_MODE)
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(opened)
        if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PermissionError(1, "others can write to it")
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        lock = os.open(LOCK, flags, 0o640, dir_fd=opened)
    finally:
        os.close(opened)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        other = os.pread(lock, 32, 0).decode("ascii", "replace").strip()
        os.close(lock)
        raise TracerError(
            f"another oomtrace runs (pid {other or 'unknown'}) and uses the state directory {folder}",
            "stop it, or run a second one beside it with --no-keep",
        ) from None
    with contextlib.suppress(OSError):  # the disk is full: the lock holds anyway
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return StateDir(folder, lock)


def open_if_usable(folder: str | None) -> StateDir | None:
    """As ``open_state_dir``; None, and a warning, if the directory cannot be used.

    Raises TracerError if another oomtrace has locked it.
    """
    try:
        return call_with_timeout(OPEN_TIMEOUT_S, lambda: open_state_dir(folder)) if folder is not None else None
    except OSError as error:
        reason = error.strerror or error
        warn(f"{folder}: {reason}; nothing is kept on disk; choose another directory with --state")
    return None


def unlock_all() -> None:
    """Release all locks: while a disk hangs, the kernel keeps a thread of this process and its descriptors.

    The next run can start then.
    """

    def unlock() -> None:
        for descriptor in map(int, os.listdir("/proc/self/fd")):
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)

    with contextlib.suppress(TimeoutError):  # a descriptor may be on a file server that does not respond
        call_with_timeout(HUNG_AFTER_S, unlock)
