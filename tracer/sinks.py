# SPDX-License-Identifier: Apache-2.0
"""Where lines go: ``stdout`` and ``file:PATH``."""

import errno
import os
from typing import Protocol

from tracer.errors import EXIT_USAGE, TracerError

FILE_MODE = 0o640


class Sink(Protocol):
    uri: str

    def write(self, line: bytes) -> None:
        """Write one line, whole.

        Raises OSError where it could not.
        """

    def reopen(self) -> None:
        """Go on in what has the name now: the file may have been renamed.

        Raises TracerError where that cannot be opened; then nothing changes.
        """

    def close(self) -> None: ...


class Descriptor:
    """Lines to an open file descriptor."""

    def __init__(self, uri: str, descriptor: int) -> None:
        self.uri = uri
        self._descriptor = descriptor
        self._torn = False

    def reopen(self) -> None:
        if self._descriptor > 2:
            opened = _open_file(self.uri)
            os.close(self._descriptor)
            self._descriptor, self._torn = opened, False

    def write(self, line: bytes) -> None:
        # What is left of a line that could not be written to its end must not spoil this one.
        view = memoryview(b"\n" + line if self._torn else line)
        while view:
            written = os.write(self._descriptor, view)
            view = view[written:]
            self._torn = bool(view)

    def close(self) -> None:
        if self._descriptor > 2:
            os.close(self._descriptor)


def check(uri: str) -> None:
    """Raises TracerError (exit code 2) where ``uri`` names no output."""
    if uri != "stdout" and not (uri.startswith("file:") and len(uri) > len("file:")):
        raise TracerError(f"unknown output {uri!r}", "use stdout or file:PATH", EXIT_USAGE)


def open_sink(uri: str) -> Sink:
    """The sink that ``uri`` names.

    Raises TracerError where there is none such or it cannot be opened.
    """
    check(uri)
    return Descriptor(uri, 1 if uri == "stdout" else _open_file(uri))


def _open_file(uri: str) -> int:
    path = uri.removeprefix("file:")
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise TracerError(f"{path} is a symbolic link", "name the file itself: links are not followed") from error
        if error.errno == errno.ENOENT:
            raise TracerError(f"{path}: its directory does not exist", "create it first, or name another") from error
        raise TracerError(f"cannot write to {path} ({error.strerror})", "name a file that can be created") from error
