# SPDX-License-Identifier: Apache-2.0
"""/proc of other processes as the daemon reads it: in a reader, with a bound."""

import ctypes
import os
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from tracer.base import threads
from tracer.linux import libbpf, procfs
from tracer.linux.safe_files import UnreadableError
from tracer.reading.hung_sources import HungSources
from tracer.reading.reader_processes import ReaderPool, ReadTimeoutError

T = TypeVar("T")

LOOK_S = 0.25
"""How long a record waits for what a process shows."""
PAUSE_S = 1.0
"""So long nothing is read for records after something hung: a storm of victims that hang holds nobody up."""
SEED_S = (0.2, 1.0, 1.0, 1.0)
"""How long one process may take when all command lines are read; those that were late are asked again at the end.

Who has hung for a second is noted, and not asked again.  On a busy machine a reader may begin too late for that.
"""
SEED_WAIT_S = 0.5
"""How long the start waits for them: 1000 processes take some 30 ms."""
FUNCTIONS = (procfs.read_process, procfs.is_running, procfs.read_start_ns, procfs.read_arguments)
"""What a reader does for this."""

_BPF_NOEXIST = 1


class _Cmdline(ctypes.Structure):
    """``struct cmdline`` in bpf/incident.h."""

    _fields_ = [
        ("arg_start", ctypes.c_uint64), ("len", ctypes.c_uint32), ("bytes", ctypes.c_char * procfs.CMDLINE_LEN)
    ]  # fmt: skip


class ProcfsReader:
    """Never held up for longer than its bounds."""

    def __init__(self, readers: ReaderPool, hung: HungSources) -> None:
        self._readers = readers
        self._hung = hung
        self._not_before_s: dict[Callable[..., object], float] = {}
        self.is_seeded = threading.Event()
        self.timeouts = 0
        """Questions that had no answer in time, or were not asked for that reason."""

    def look(self, pid: int, started_ns: int) -> procfs.CmdlineAndExe | None:
        """The same as ``process.look``; None also where that hangs."""
        if self._hung.has_process(pid, started_ns):
            self.timeouts += 1
            return None
        try:
            shown = self._ask(procfs.read_process, pid, started_ns)
        except ReadTimeoutError:
            self._hung.add_process(pid, started_ns)
            return None
        return None if shown is None else (shown[0], shown[1])

    def lives(self, pid: int, started_ns: int) -> bool | None:
        """The same as ``process.lives``; None: unknown."""
        try:
            return self._ask(procfs.is_running, pid, started_ns)
        except ReadTimeoutError:
            return None

    def _ask(self, function: Callable[[int, int], T], pid: int, started_ns: int) -> T | None:
        """Raises ReadTimeoutError."""
        try:
            if time.monotonic() >= self._not_before_s.get(function, 0.0):
                return self._readers.ask(LOOK_S, function, pid, started_ns)
        except ReadTimeoutError:
            self.timeouts += 1
            self._not_before_s[function] = time.monotonic() + PAUSE_S
            raise
        except UnreadableError:
            pass
        self.timeouts += 1
        return None

    def seed_cmdlines(self, descriptor: int | None) -> None:
        """Begin to tell the programs the command lines of all processes, unless they know them (None).

        Those that the programs saw start meanwhile stay as they are.
        """
        if descriptor is None or threads.start("seed", self._seed, descriptor) is None:
            self.is_seeded.set()

    def wait_for_seed(self) -> None:
        """For a moment, until all command lines are known but of processes that hang."""
        self.is_seeded.wait(SEED_WAIT_S)

    def _seed(self, descriptor: int) -> None:
        late = list(procfs.list_pids())
        for timeout_s in SEED_S:
            late = [pid for pid in late if not self._seed_one(descriptor, pid, timeout_s)]
            self.is_seeded.set()

    def _seed_one(self, descriptor: int, pid: int, timeout_s: float) -> bool:
        """False: it was not read in time."""
        try:
            if self._hung.has_pid(pid):
                started_ns = self._readers.ask(timeout_s, procfs.read_start_ns, pid)
                if started_ns is not None and self._hung.has_process(pid, started_ns):
                    return True
            arguments, arg_start = self._readers.ask(timeout_s, procfs.read_arguments, pid)
        except ReadTimeoutError:
            return timeout_s == SEED_S[-1] and self._note(pid)
        except UnreadableError:  # there is no reader, yet
            return False
        if not arguments or not arg_start:
            return True
        library, key, cmdline = libbpf.library(), ctypes.c_uint32(pid), arguments.encode("latin-1")
        entry = _Cmdline(arg_start=arg_start, len=min(len(cmdline), procfs.CMDLINE_LEN))
        ctypes.memmove(ctypes.addressof(entry) + _Cmdline.bytes.offset, cmdline, entry.len)
        written = library.bpf_map_update_elem(descriptor, ctypes.byref(key), ctypes.byref(entry), _BPF_NOEXIST) == 0
        if written and not os.path.exists(f"/proc/{pid}"):  # the program at its exit came too early to remove it
            library.bpf_map_delete_elem(descriptor, ctypes.byref(key))
        return True

    def _note(self, pid: int) -> bool:
        """Whether it is not asked again."""
        try:
            started_ns = self._readers.ask(SEED_S[-1], procfs.read_start_ns, pid)
        except UnreadableError:
            return False
        if started_ns is not None:
            self._hung.add_process(pid, started_ns)
        return True
