# SPDX-License-Identifier: Apache-2.0
"""Reads of the runtimes' directories by reader processes, with a timeout.

A user may have mounted a file system there whose server never answers, or a file server may be down.
"""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from tracer.linux.safe_files import UnreadableError
from tracer.reading.guarded_reads import GuardedReads
from tracer.reading.hung_sources import HungSources
from tracer.reading.reader_processes import ReaderPool, ReadTimeoutError

T = TypeVar("T")

READ_S = 2.0
"""Timeout of a read: a large database on a busy host takes some tenths of a second."""
BUSY_S = 0.2
"""While a read takes longer than this, the directory is not read for others."""


class DirectoryReader:
    """Reads for ``Runtimes``, from any thread."""

    def __init__(self, readers: ReaderPool, hung: HungSources) -> None:
        self._hung = hung
        self._reads = GuardedReads(readers, hung)
        self._lock = threading.Lock()
        self._since_s: dict[str, float] = {}
        """The begin of the oldest read of each directory that is being read."""

    def read(self, question: Callable[[str, str], T], folder: str, subject: str) -> T:
        """What ``question`` returns for the directory ``folder``.  Raises UnreadableError."""
        now_s = time.monotonic()
        with self._lock:
            is_busy = now_s - self._since_s.get(folder, now_s) > BUSY_S
            if is_busy or self._hung.has_directory(folder):
                raise UnreadableError(f"{folder}: no answer")
            self._since_s.setdefault(folder, now_s)
        try:
            return self._reads.ask_directory(READ_S, question, folder, subject)
        except ReadTimeoutError as error:
            raise UnreadableError(f"{folder}: {error}") from error
        finally:
            with self._lock:
                self._since_s.pop(folder, None)
