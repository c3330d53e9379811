# SPDX-License-Identifier: Apache-2.0
"""Reads of other processes' /proc by reader processes, with a timeout."""

import ctypes
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from tracer.base import threads
from tracer.linux import libbpf, procfs
from tracer.linux.safe_files import UnreadableError
from tracer.reading.guarded_reads import GuardedReads, KnownToHangError
from tracer.reading.hung_sources import HungSources
from tracer.reading.reader_processes import ReaderPool, ReadTimeoutError

T = TypeVar("T")

LOOK_S = 0.25
"""Timeout of a read for a record."""
PAUSE_S = 1.0
"""After a timeout nothing is read for records for this long: a storm of victims that hang delays nothing else."""
SEED_S = (0.2, 1.0, 1.0, 1.0)
"""Timeouts of the reads of one process when all command lines are read; those that time out are read again at the end.

A process that hangs for a second is remembered, and not read again. On a busy machine a reader may begin too late for
that.
"""
SEED_WAIT_S = 0.5
"""The start waits for them this long: 1000 processes take some 30 ms."""
FUNCTIONS = (procfs.read_process, procfs.is_running, procfs.read_start_ns, procfs.read_arguments)
"""The functions that a reader has to have."""

_BPF_NOEXIST = 1


class _Cmdline(ctypes.Structure):
    """``struct cmdline`` in bpf/incident.h."""

    _fields_ = [
        ("arg_start", ctypes.c_uint64), ("len", ctypes.c_uint32), ("bytes", ctypes.c_char * procfs.CMDLINE_LEN)
    ]  # fmt: skip


class ProcfsReader:
    """Reads for records, never for longer than its timeouts."""

    def __init__(self, readers: ReaderPool, hung: HungSources) -> None:
        self._readers = readers
        self._reads = GuardedReads(readers, hung)
        self._paused_until_s: dict[Callable[..., object], float] = {}
        self.is_seeded = threading.Event()
        self.timeouts = 0
        """The number of reads that timed out, or were not made because of an earlier timeout."""

    def look(self, pid: int, started_ns: int) -> procfs.CmdlineAndExe | None:
        """As ``procfs.read_process``; None also if the read hangs."""
        ask = partial(self._reads.ask_process, started_ns=started_ns, find_start_ns=lambda: started_ns)
        shown = self._ask(ask, procfs.read_process, pid, started_ns)
        return None if shown is None else (shown[0], shown[1])

    def lives(self, pid: int, started_ns: int) -> bool | None:
        """As ``procfs.is_running``; None if unknown."""
        return self._ask(self._readers.ask, procfs.is_running, pid, started_ns)

    def _ask(self, ask: Callable[..., Any], function: Callable[[int, int], T], pid: int, started_ns: int) -> T | None:
        try:
            if time.monotonic() >= self._paused_until_s.get(function, 0.0):
                answer: T = ask(LOOK_S, function, pid, started_ns)
                return answer
        except ReadTimeoutError:
            self._paused_until_s[function] = time.monotonic() + PAUSE_S
        except UnreadableError:
            pass
        self.timeouts += 1
        return None

    def seed_cmdlines(self, descriptor: int | None) -> None:
        """Begin to write the command lines of all processes into the BPF programs' map; None: they are there.

        Entries of processes that the programs saw start meanwhile stay as they are.
        """
        if descriptor is None or threads.start("seed", self._seed, descriptor) is None:
            self.is_seeded.set()

    def wait_for_seed(self) -> None:
        """Wait for a moment until all command lines are written, except of processes that hang."""
        self.is_seeded.wait(SEED_WAIT_S)

    def _seed(self, descriptor: int) -> None:
        late = list(procfs.list_pids())
        for timeout_s in SEED_S:
            late = [pid for pid in late if not self._seed_one(descriptor, pid, timeout_s)]
            self.is_seeded.set()

    def _seed_one(self, descriptor: int, pid: int, timeout_s: float) -> bool:
        """Whether the command line was read, or the process hung before."""
        is_last = timeout_s == SEED_S[-1]
        try:
            arguments, arg_start = self._reads.ask_process(
                timeout_s, procfs.read_arguments, pid, find_start_ns=partial(self._find_start_ns, pid, is_last=is_last)
            )
        except KnownToHangError:
            return True
        except UnreadableError:  # the read hangs, or there is no reader yet
            return False
        if not arguments or not arg_start:
            return True
        library, key, cmdline = libbpf.library(), ctypes.c_uint32(pid), arguments.encode("latin-1")
        entry = _Cmdline(arg_start=arg_start, len=min(len(cmdline), procfs.CMDLINE_LEN))
        ctypes.memmove(ctypes.addressof(entry) + _Cmdline.bytes.offset, cmdline, entry.len)
        written = library.bpf_map_update_elem(descriptor, ctypes.byref(key), ctypes.byref(entry), _BPF_NOEXIST) == 0
        if written and not os.path.exists(f"/proc/{pid}"):  # its exit program ran too early to remove it
            library.bpf_map_delete_elem(descriptor, ctypes.byref(key))
        return True

    def _find_start_ns(self, pid: int, *, is_last: bool) -> int | None:
        """The start of a process that hangs, by which it is remembered after its last attempt.

        Raises UnreadableError.
        """
        return self._readers.ask(SEED_S[-1], procfs.read_start_ns, pid) if is_last else None
