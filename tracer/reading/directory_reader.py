# SPDX-License-Identifier: Apache-2.0
"""Folders of runtimes as the daemon reads them: in a reader, with a bound.

A user may have mounted a file system of his own there, whose server never answers; so may a dead file server.
"""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from tracer.linux.safe_files import UnreadableError
from tracer.reading.hung_sources import HungSources
from tracer.reading.reader_processes import ReaderPool, ReadTimeoutError

T = TypeVar("T")

READ_S = 2.0
"""How long a question may take: a large database on a busy host takes some tenths."""
BUSY_S = 0.2
"""While one takes longer than this, the folder is not asked another."""


class DirectoryReader:
    """For ``Runtimes``, from any thread."""

    def __init__(self, readers: ReaderPool, hung: HungSources) -> None:
        self._readers = readers
        self._hung = hung
        self._lock = threading.Lock()
        self._since_s: dict[str, float] = {}
        """When the question was begun that a folder is busy with."""

    def read(self, question: Callable[[str, str], T], folder: str, subject: str) -> T:
        """Raises UnreadableError."""
        now_s = time.monotonic()
        with self._lock:
            is_busy = now_s - self._since_s.get(folder, now_s) > BUSY_S
            if is_busy or self._hung.has_folder(folder):
                raise UnreadableError(f"{folder}: it did not answer")
            self._since_s.setdefault(folder, now_s)
        try:
            answer = self._readers.ask(READ_S, question, folder, subject)
        except ReadTimeoutError as error:
            self._hung.add_folder(folder, error.has_ended)
            raise UnreadableError(f"{folder}: {error}") from error
        finally:
            with self._lock:
                self._since_s.pop(folder, None)
        self._hung.answers(folder)
        return answer
