# SPDX-License-Identifier: Apache-2.0
"""All processes, read by reader processes; a process whose command line hangs is listed without."""

from collections.abc import Iterator

from tracer.linux import procfs
from tracer.linux.safe_files import UnreadableError
from tracer.reading import processes
from tracer.reading.guarded_reads import GuardedReads, KnownToHangError
from tracer.reading.hung_sources import HungSources
from tracer.reading.processes import PlainProcess, Process
from tracer.reading.reader_processes import ReaderPool, ReadTimeoutError

READ_S = 0.25
"""Timeout of the read of one process."""
HANG_S = 1.0
"""Once reads of one list have hung for this long, command lines are omitted."""


class ProcessList:
    """Lists all processes, again and again."""

    def __init__(self, readers: ReaderPool, hung: HungSources) -> None:
        self._readers = readers
        self._reads = GuardedReads(readers, hung)

    def read(self) -> Iterator[Process]:
        """The current processes."""
        hung_s = 0.0
        for pid in procfs.list_pids():
            try:
                found = self._ask(pid, with_cmdline=hung_s < HANG_S)
            except ReadTimeoutError:
                hung_s += READ_S
                found = processes.read_as_plain(pid, False)  # takes no lock of the process, and waits for no reader
            except UnreadableError:  # no reader can be started
                found = processes.read_as_plain(pid, False)
            if found is not None:
                yield processes.process_from_plain(found)

    def _ask(self, pid: int, with_cmdline: bool) -> PlainProcess | None:
        if with_cmdline:
            try:
                return self._reads.ask_process(
                    READ_S, processes.read_as_plain, pid, True, find_start_ns=lambda: procfs.read_start_ns(pid)
                )
            except KnownToHangError:
                pass
        return self._readers.ask(READ_S, processes.read_as_plain, pid, False)
