# SPDX-License-Identifier: Apache-2.0
"""Sources that hung when they were last read, and are not read again soon, in later runs as well.

A process is never read again. A directory is, after a time that doubles with each hang, and only once the reader that
hung in it has ended: so at most one reader hangs in each.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson

from tracer.base.clock import boottime_ns
from tracer.base.hung_disk import OPEN_TIMEOUT_S, DiskWorker, call_with_timeout
from tracer.base.log import warn

PROCESSES_MAX = 256
DIRECTORIES_MAX = 64
AGAIN_FIRST_S, AGAIN_MAX_S = 10.0, 600.0
"""After this time a directory is read again; doubled with each hang."""
_FILE_MAX_BYTES = 1 << 20


class _HungDirectory(NamedTuple):
    until_ns: int
    """CLOCK_BOOTTIME."""
    again_s: float
    has_ended: Callable[[], bool]


class HungSources:
    """Kept in the file ``path``, written by the thread of ``disk``; in memory only if ``path`` is None. For all
    threads."""

    def __init__(self, path: str | None = None, boot_id: str | None = None, disk: DiskWorker | None = None) -> None:
        self._path, self._boot_id, self._disk = path, boot_id, disk
        self._lock = threading.Lock()
        self._processes: OrderedDict[tuple[int, int], None] = OrderedDict()
        """Pid, and start rounded to the clock ticks of /proc (nanoseconds, CLOCK_BOOTTIME)."""
        self._directories: OrderedDict[str, _HungDirectory] = OrderedDict()
        if path is not None:
            try:
                self._load(orjson.loads(call_with_timeout(OPEN_TIMEOUT_S, lambda: _read(path))))
            except FileNotFoundError:
                pass
            except (OSError, ValueError, TypeError, KeyError) as error:  # damaged: written anew
                warn(f"{path}: {getattr(error, 'strerror', None) or error}; what hung before may be asked again")

    def has_process(self, pid: int, started_ns: int) -> bool:
        """Whether a read of this process hung."""
        with self._lock:
            return (pid, _ticks(started_ns)) in self._processes

    def has_pid(self, pid: int) -> bool:
        """Whether a read of a process with this pid hung."""
        with self._lock:
            return any(pid == each for each, _ in self._processes)

    def add_process(self, pid: int, started_ns: int) -> None:
        with self._lock:
            self._processes[pid, _ticks(started_ns)] = None
            if len(self._processes) > PROCESSES_MAX:
                self._processes.popitem(last=False)
        self._save_soon()

    def has_directory(self, directory: str) -> bool:
        """Whether it is too early to read the directory again."""
        with self._lock:
            found = self._directories.get(directory)
        return found is not None and (boottime_ns() < found.until_ns or not found.has_ended())

    def add_directory(self, directory: str, has_ended: Callable[[], bool] = lambda: True) -> None:
        """``has_ended``: whether the reader that hung in the directory has ended."""
        with self._lock:
            before = self._directories.pop(directory, None)
            again_s = min(2 * before.again_s, AGAIN_MAX_S) if before else AGAIN_FIRST_S
            self._directories[directory] = _HungDirectory(boottime_ns() + int(again_s * 1e9), again_s, has_ended)
            if len(self._directories) > DIRECTORIES_MAX:
                self._directories.popitem(last=False)
        self._save_soon()

    def remove_directory(self, directory: str) -> None:
        """The directory was read in time."""
        if directory in self._directories:
            with self._lock:
                self._directories.pop(directory, None)
            self._save_soon()

    def _save_soon(self) -> None:
        if self._path is not None and self._disk is not None:
            self._disk.submit(self._save)

    def _save(self) -> None:
        assert self._path is not None
        with self._lock:
            directories = [(directory, each.until_ns, each.again_s) for directory, each in self._directories.items()]
            kept = {"boot": self._boot_id, "processes": list(self._processes), "folders": directories}
        new = f"{self._path}.new"
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
        with open(descriptor, "wb") as file:
            file.write(orjson.dumps(kept))
        os.replace(new, self._path)

    def _load(self, kept: dict[str, Any]) -> None:
        """Load what hung in this boot; processes that have exited are dropped."""
        if kept["boot"] != self._boot_id:
            return
        for pid, started_ns in kept["processes"][-PROCESSES_MAX:]:
            if os.path.exists(f"/proc/{int(pid)}"):
                self._processes[int(pid), int(started_ns)] = None
        for directory, until_ns, again_s in kept["folders"][-DIRECTORIES_MAX:]:
            self._directories[str(directory)] = _HungDirectory(int(until_ns), float(again_s), lambda: True)


def _ticks(started_ns: int) -> int:
    tick_ns = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    return started_ns // tick_ns * tick_ns


def _read(path: str) -> bytes:
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        return file.read(_FILE_MAX_BYTES)
