# SPDX-License-Identifier: Apache-2.0
"""All processes, as a reader reads them: one whose command line hangs is shown without."""

from collections.abc import Iterator

from tracer.linux import procfs
from tracer.linux.safe_files import UnreadableError
from tracer.reading import processes
from tracer.reading.hung_sources import HungSources
from tracer.reading.processes import Process
from tracer.reading.reader_processes import ReaderPool, ReadTimeoutError

READ_S = 0.25
"""How long one process may take."""
HANG_S = 1.0
"""How long all that hang together may hold up a look; then command lines are left out."""


class ProcessList:
    """Looks at all processes, again and again."""

    def __init__(self, readers: ReaderPool, hung: HungSources) -> None:
        self._readers = readers
        self._hung = hung

    def read(self) -> Iterator[Process]:
        """Those that are there now."""
        hung_s = 0.0
        for pid in procfs.list_pids():
            try:
                may = hung_s < HANG_S and not self._is_known_to_hang(pid)
                found = self._readers.ask(READ_S, processes.read_as_plain, pid, may)
            except ReadTimeoutError:
                hung_s += READ_S
                found = self._without_cmdline(pid)
            except UnreadableError:  # no reader can be started
                found = processes.read_as_plain(pid, False)
            if found is not None:
                yield processes.process_from_plain(found)

    def _is_known_to_hang(self, pid: int) -> bool:
        if not self._hung.has_pid(pid):
            return False
        started_ns = self._readers.ask(READ_S, procfs.read_start_ns, pid)
        return started_ns is not None and self._hung.has_process(pid, started_ns)

    def _without_cmdline(self, pid: int) -> processes.PlainProcess | None:
        """What takes no lock of that process is read here: it is shown, however long a reader takes to start."""
        found = processes.read_as_plain(pid, False)
        if found is not None:
            self._hung.add_process(pid, processes.process_from_plain(found).start_ns)
        return found
