# SPDX-License-Identifier: Apache-2.0
"""Lines to somebody who reads them now: standard output, and FIFOs.

Standard output is shared with others, so it is not made non-blocking: that would be so for all who have it open.
Instead poll(2) is asked before each piece of PIPE_BUF bytes, for which a pipe that is ready has room.
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
"""How long a reader may take nothing."""

_TERMINALS = frozenset({4, 5, *range(136, 144), 166, 188, 204, 229})
"""Major numbers: consoles, pseudo-terminals, serial ports (Documentation/admin-guide/devices.txt)."""
_GONE = frozenset({errno.EPIPE, errno.ECONNRESET, errno.EIO, errno.EBADF})


def open_sink(destination: Destination) -> Sink:
    """Raises TracerError where there is no standard output."""
    return StdoutSink(destination.uri)


class _Stream:
    """Lines to an open descriptor.  One that was begun is completed before the next."""

    batch_lines = 1
    dead = False

    def __init__(self) -> None:
        self._line = b""
        self._rest = b""
        """What of ``_line`` is still to be written."""
        self._is_begun = False

    def recent(self) -> set[RecordId]:
        return set()

    def _write(self, descriptor: int, line: bytes, piece_bytes: int) -> None:
        """Raises OSError; TimeoutError where nothing was taken for PATIENCE_S."""
        if self._is_begun and self._line != line:
            self._complete(descriptor, piece_bytes)
        if not self._rest or self._line != line:
            self._line = self._rest = line
        self._complete(descriptor, piece_bytes)

    def _complete(self, descriptor: int, piece_bytes: int) -> None:
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        until_s = time.monotonic() + TIMEOUT_S
        while self._rest:
            left_s = until_s - time.monotonic()
            if left_s <= 0 or not poll.poll(1000 * left_s):
                raise TimeoutError(errno.ETIMEDOUT, "its reader does not read")
            try:
                written = os.write(descriptor, self._rest[:piece_bytes])
            except BlockingIOError:  # ready, but not for so much
                time.sleep(0.01)
                continue
            self._rest = self._rest[written:]
            self._is_begun = bool(self._rest)
            until_s = time.monotonic() + TIMEOUT_S


class StdoutSink(_Stream):
    """Ends for good when its reader has left: nobody can come back to an inherited pipe."""

    def __init__(self, uri: str) -> None:
        """Raises TracerError where there is none."""
        super().__init__()
        self.uri = uri
        try:
            is_regular = stat.S_ISREG(os.fstat(1).st_mode)
        except OSError as error:
            raise TracerError("standard output is closed", "open it, or name another output") from error
        self._piece_bytes = 1 << 30 if is_regular else select.PIPE_BUF

    def write(self, lines: Sequence[bytes]) -> int:
        try:
            self._write(1, lines[0], self._piece_bytes)
        except OSError as error:
            self.dead = error.errno in _GONE and self._piece_bytes == select.PIPE_BUF
            raise
        return 1

    def reopen(self) -> None:
        """It has no name."""

    def close(self) -> None:
        """It stays open for others."""


class PipeSink(_Stream):
    """A FIFO or a terminal: waits for a reader, and for the next one when that has left.

    A FIFO is kept open without a reader: what he has not read stays in the pipe for the next one.
    """

    def __init__(self, uri: str, path: str) -> None:
        """Raises TracerError where it may not be written to."""
        super().__init__()
        self.uri = uri
        self._path = path
        self._descriptor: int | None = None
        try:
            self._open()
        except OSError as error:
            if error.errno not in (errno.ENXIO, errno.EIO):
                raise TracerError(f"cannot write to {path} ({error.strerror})", "name another one") from error

    def write(self, lines: Sequence[bytes]) -> int:
        descriptor = self._open()
        try:
            self._write(descriptor, lines[0], select.PIPE_BUF)
        except BrokenPipeError as error:
            if self._is_begun:
                # The next reader finds the first half, unless it was read: the whole line comes again behind it.
                self._rest = b"\n" * _is_anything_unread(descriptor) + self._line
                self._is_begun = False
            raise OSError(errno.EPIPE, "its reader has left") from error
        except OSError as error:
            if error.errno == errno.EIO:  # a terminal that hung up stays so for those who have it open
                self.close()
            raise
        return 1

    def reopen(self) -> None:
        """Before each line it is looked at whether the name leads to another one."""

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        """Raises OSError: ENXIO where nobody reads."""
        if self._descriptor is not None and self._is_same(self._descriptor):
            return self._descriptor
        if not is_pipe(self._path):
            raise OSError(errno.EINVAL, "it is no FIFO and no terminal any more")
        try:
            opened = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY)
        except OSError as error:
            if error.errno == errno.ENXIO:
                raise OSError(errno.ENXIO, "nobody reads it") from error
            raise
        self.close()
        self._descriptor, self._line, self._rest, self._is_begun = opened, b"", b"", False
        return opened

    def _is_same(self, descriptor: int) -> bool:
        try:
            there, own = os.stat(self._path, follow_symlinks=False), os.fstat(descriptor)
        except OSError:
            return True  # its name is gone, but its reader need not be
        return (own.st_dev, own.st_ino) == (there.st_dev, there.st_ino)


def is_pipe(path: str) -> bool:
    """Whether it is a FIFO, a terminal, /dev/null or /dev/full."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    major, minor = os.major(status.st_rdev), os.minor(status.st_rdev)
    is_harmless = major in _TERMINALS or (major, minor) in ((1, 3), (1, 7))
    return stat.S_ISFIFO(status.st_mode) or (stat.S_ISCHR(status.st_mode) and is_harmless)


def _is_anything_unread(descriptor: int) -> bool:
    count: bytes = fcntl.ioctl(descriptor, termios.FIONREAD, b"\0\0\0\0")
    return count != b"\0\0\0\0"
