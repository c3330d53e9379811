# SPDX-License-Identifier: Apache-2.0
"""Waits until a file is read, with inotify(7)."""

import ctypes
import os
import select
from pathlib import Path

from .environment import TIMEOUT_S

IN_CLOSE_NOWRITE = 0x10
_LIBC = ctypes.CDLL(None, use_errno=True)


class ReadWatch:
    """Watches a file from now on."""

    def __init__(self, path: Path) -> None:
        self._descriptor = _LIBC.inotify_init1(os.O_CLOEXEC)
        if self._descriptor < 0 or _LIBC.inotify_add_watch(self._descriptor, os.fsencode(path), IN_CLOSE_NOWRITE) < 0:
            raise OSError(ctypes.get_errno(), "inotify", str(path))

    def wait(self) -> None:
        """Wait until the file is closed after it was opened for reading."""
        ready, _, _ = select.select([self._descriptor], [], [], 6 * TIMEOUT_S)
        os.close(self._descriptor)
        assert ready, "the file was not read"
