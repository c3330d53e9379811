# SPDX-License-Identifier: Apache-2.0
"""Write lines to standard output, FIFOs and terminals.

Standard output is not made non-blocking, because that would affect all processes that share it.  Instead, poll(2)
precedes each piece of PIPE_BUF bytes, for which a pipe that is ready has room.
"""

import errno
import fcntl
import os
import select
import stat
import termios
import time
from collections.abc import Sequence

from tracer.base.errors import TracerError
from tracer.delivery.sinks import Sink
from tracer.delivery.sinks.destination import Destination, UriForm
from tracer.records.record_id import RecordId

FORMS = {"stdout": UriForm("stdout", "Standard output.")}

TIMEOUT_S = 1.0
"""Longest time without progress."""

_TERMINALS = frozenset({4, 5, *range(136, 144), 166, 188, 204, 229})
"""Major numbers: consoles, pseudo-terminals, serial ports (Documentation/admin-guide/devices.txt)."""
_GONE = frozenset({errno.EPIPE, errno.ECONNRESET, errno.EIO, errno.EBADF})


def open_sink(destination: Destination) -> Sink:
    """Raises TracerError if standard output is closed."""
    return StdoutSink(destination.uri)


class _LineWriter:
    """Writes lines to a descriptor.  A partly written line is completed before the next one."""

    batch_lines = 1
    dead = False

    def __init__(self) -> None:
        self._line = b""
        self._rest = b""
        """The unwritten rest of ``_line``."""
        self._is_begun = False

    def recent(self) -> set[RecordId]:
        return set()

    def _write(self, descriptor: int, line: bytes, piece_bytes: int) -> None:
        """Raises OSError; TimeoutError after TIMEOUT_S without progress."""
        if self._is_begun and self._line != line:
            self._complete(descriptor, piece_bytes)
        if not self._rest or self._line != line:
            self._line = self._rest = line
        self._complete(descriptor, piece_bytes)

    def _complete(self, descriptor: int, piece_bytes: int) -> None:
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        deadline_s = time.monotonic() + TIMEOUT_S
        while self._rest:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or not poll.poll(1000 * left_s):
                raise TimeoutError(errno.ETIMEDOUT, "the reader does not read")
            try:
                written = os.write(descriptor, self._rest[:piece_bytes])
            except BlockingIOError:  # there is room, but not enough
                time.sleep(0.01)
                continue
            self._rest = self._rest[written:]
            self._is_begun = bool(self._rest)
            deadline_s = time.monotonic() + TIMEOUT_S


class StdoutSink(_LineWriter):
    """Dead once its reader has closed it: no process can reopen an inherited pipe."""

    def __init__(self, uri: str) -> None:
        """Raises TracerError if standard output is closed."""
        super().__init__()
        self.uri = uri
        try:
            is_regular = stat.S_ISREG(os.fstat(1).st_mode)
        except OSError as error:
            raise TracerError("standard output is closed", "open it, or use another output") from error
        self._piece_bytes = 1 << 30 if is_regular else select.PIPE_BUF

    def write(self, lines: Sequence[bytes]) -> int:
        try:
            self._write(1, lines[0], self._piece_bytes)
        except OSError as error:
            self.dead = error.errno in _GONE and self._piece_bytes == select.PIPE_BUF
            raise
        return 1

    def reopen(self) -> None:
        """Nothing to do: standard output has no name."""

    def close(self) -> None:
        """Nothing to do: other processes share it."""


class PipeSink(_LineWriter):
    """A FIFO or a terminal: waits for a reader, and for the next reader after the first one has closed it.

    A FIFO stays open without a reader, so unread data remains in the pipe for the next one.
    """

    def __init__(self, uri: str, path: str) -> None:
        """Raises TracerError if the path cannot be written to."""
        super().__init__()
        self.uri = uri
        self._path = path
        self._descriptor: int | None = None
        try:
            self._open()
        except OSError as error:
            if error.errno not in (errno.ENXIO, errno.EIO):
                raise TracerError(f"cannot write to {path} ({error.strerror})", "use another path") from error

    def write(self, lines: Sequence[bytes]) -> int:
        descriptor = self._open()
        try:
            self._write(descriptor, lines[0], select.PIPE_BUF)
        except BrokenPipeError as error:
            if self._is_begun:
                # The first part is in the pipe, unless it was read.  The next reader gets the whole line after it.
                self._rest = b"\n" * _has_unread_data(descriptor) + self._line
                self._is_begun = False
            raise OSError(errno.EPIPE, "the reader has closed it") from error
        except OSError as error:
            if error.errno == errno.EIO:  # a terminal that hung up must be opened again
                self.close()
            raise
        return 1

    def reopen(self) -> None:
        """Nothing to do: each write checks whether the path leads to another file."""

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        """Raises OSError: ENXIO if there is no reader."""
        if self._descriptor is not None and self._is_same(self._descriptor):
            return self._descriptor
        if not is_pipe(self._path):
            raise OSError(errno.EINVAL, "no longer a FIFO or a terminal")
        try:
            opened = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY)
        except OSError as error:
            if error.errno == errno.ENXIO:
                raise OSError(errno.ENXIO, "it has no reader") from error
            raise
        self.close()
        self._descriptor, self._line, self._rest, self._is_begun = opened, b"", b"", False
        return opened

    def _is_same(self, descriptor: int) -> bool:
        try:
            at_path, opened = os.stat(self._path, follow_symlinks=False), os.fstat(descriptor)
        except OSError:
            return True  # the path is gone, but the reader may remain
        return (opened.st_dev, opened.st_ino) == (at_path.st_dev, at_path.st_ino)


def is_pipe(path: str) -> bool:
    """Whether the path is a FIFO, a terminal, /dev/null or /dev/full."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    major, minor = os.major(status.st_rdev), os.minor(status.st_rdev)
    is_harmless = major in _TERMINALS or (major, minor) in ((1, 3), (1, 7))
    return stat.S_ISFIFO(status.st_mode) or (stat.S_ISCHR(status.st_mode) and is_harmless)


def _has_unread_data(descriptor: int) -> bool:
    count: bytes = fcntl.ioctl(descriptor, termios.FIONREAD, b"\0\0\0\0")
    return count != b"\0\0\0\0"
