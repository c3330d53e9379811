# SPDX-License-Identifier: Apache-2.0
"""Reads by reader processes that remember which sources hang, and do not ask those again soon."""

from collections.abc import Callable
from typing import TypeVar

from tracer.linux import procfs
from tracer.linux.safe_files import UnreadableError
from tracer.reading.hung_sources import HungSources
from tracer.reading.reader_processes import ReaderPool, ReadTimeoutError

T = TypeVar("T")


class KnownToHangError(UnreadableError):
    """The source hung before, and was not asked."""


class GuardedReads:
    """For any thread."""

    def __init__(self, readers: ReaderPool, hung: HungSources) -> None:
        self._readers = readers
        self._hung = hung

    def ask_process(
        self,
        timeout_s: float,
        function: Callable[..., T],
        pid: int,
        *arguments: object,
        started_ns: int | None = None,
        find_start_ns: Callable[[], int | None] | None = None,
    ) -> T:
        """What ``function`` returns for a process.

        ``started_ns`` None: a reader reads the start time, if a process with this pid hung before.  ``find_start_ns``
        gives the start time by which a process that hangs is remembered; None: the process is not remembered.

        Raises KnownToHangError, ReadTimeoutError, UnreadableError.
        """
        try:
            if self._has_hung(timeout_s, pid, started_ns):
                raise KnownToHangError(f"process {pid} hung before")
            return self._readers.ask(timeout_s, function, pid, *arguments)
        except ReadTimeoutError:
            hung_start_ns = None if find_start_ns is None else find_start_ns()
            if hung_start_ns is not None:
                self._hung.add_process(pid, hung_start_ns)
            raise

    def ask_directory(self, timeout_s: float, function: Callable[[str, str], T], directory: str, subject: str) -> T:
        """What ``function`` returns for a directory, which the caller has checked with `HungSources.has_directory`.

        Raises ReadTimeoutError, UnreadableError.
        """
        try:
            answer = self._readers.ask(timeout_s, function, directory, subject)
        except ReadTimeoutError as error:
            self._hung.add_directory(directory, error.has_ended)
            raise
        self._hung.remove_directory(directory)
        return answer

    def _has_hung(self, timeout_s: float, pid: int, started_ns: int | None) -> bool:
        if started_ns is None:
            if not self._hung.has_pid(pid):
                return False
            started_ns = self._readers.ask(timeout_s, procfs.read_start_ns, pid)
        return started_ns is not None and self._hung.has_process(pid, started_ns)
