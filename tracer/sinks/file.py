# SPDX-License-Identifier: Apache-2.0
"""Lines into a regular file: each by one write(2) at its end, wherever others have put that.

The file may be renamed, removed or emptied by whoever rotates it, with a signal or without.
"""

import errno
import io
import os
import stat
import time
from collections.abc import Sequence
from typing import NamedTuple

from tracer.errors import TracerError
from tracer.ids import Id, ids
from tracer.sinks import Sink
from tracer.sinks.pipe import PipeSink, is_pipe
from tracer.sinks.target import Form, Target
from tracer.stderr import tell

FORMS = {
    "file": Form("file:PATH", "A file (mode 0640), opened anew after it was rotated; a FIFO; a terminal."),
}
FILE_MODE = 0o640
RECENT_BYTES = 4 << 20
"""So much of its end is read when somebody asks what is in it."""
CREATE_S = 0.1
"""logrotate renames a file and creates the next one (``create``): so long it is left to do that."""

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_OURS = b'{"schema":'


class _Half(NamedTuple):
    """A line that could not be written to its end."""

    line: bytes
    rest: bytes
    size_bytes: int
    """Of the file, after its first half."""


def open_target(target: Target) -> Sink:
    """Raises TracerError where it cannot be opened."""
    return PipeSink(target.address) if is_pipe(target.address) else FileSink(target.address)


class FileSink:
    batch_lines = 1
    dead = False

    def __init__(self, path: str) -> None:
        """Raises TracerError where it cannot be opened."""
        self.uri = f"file:{path}"
        self._path = path
        self._half: _Half | None = None
        self._is_stuck_in_old = False
        self._descriptor, self._is_torn = _open(path)

    def write(self, lines: Sequence[bytes]) -> int:
        self._follow()
        line = lines[0]
        view = memoryview(self._what_to_write(line))
        while view:
            view = view[os.write(self._descriptor, view) :]
            self._half = _Half(line, bytes(view), os.fstat(self._descriptor).st_size) if view else None
            self._is_torn = False
        return 1

    def recent(self) -> set[Id]:
        try:
            size = os.fstat(self._descriptor).st_size
            return ids(io.BytesIO(_read_end(self._descriptor, size, RECENT_BYTES)))
        except OSError:
            return set()

    def reopen(self) -> None:
        descriptor, is_torn = _open(self._path)
        self.close()
        self._descriptor, self._is_torn, self._half, self._is_stuck_in_old = descriptor, is_torn, None, False

    def close(self) -> None:
        os.close(self._descriptor)

    def _what_to_write(self, line: bytes) -> bytes:
        """The line, and what must stand before it for a line that could not be written to its end."""
        if self._half is None:
            return b"\n" + line if self._is_torn else line
        half, size_bytes = self._half, os.fstat(self._descriptor).st_size
        if size_bytes == half.size_bytes:
            return half.rest if half.line == line else half.rest + line
        return b"\n" + line if size_bytes else line  # somebody else has written, or emptied it

    def _follow(self) -> None:
        """Open the file anew where the path no longer leads to the one that is open.

        Raises OSError where that is impossible, and the open one has no name at all.
        """
        own = os.fstat(self._descriptor)
        if self._is_same(own):
            return
        if not self._is_stuck_in_old:
            until_s = time.monotonic() + CREATE_S
            while not os.path.lexists(self._path) and time.monotonic() < until_s:
                time.sleep(CREATE_S / 10)
        try:
            self.reopen()
        except TracerError as error:
            if own.st_nlink == 0:
                raise OSError(errno.ENOENT, f"it was removed, and {error.message}") from error
            if not self._is_stuck_in_old:
                self._is_stuck_in_old = True
                tell(f"{error}; it goes on in the file that it has open")

    def _is_same(self, own: os.stat_result) -> bool:
        try:
            there = os.stat(self._path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        except OSError:
            return True  # no way to tell
        return (own.st_dev, own.st_ino) == (there.st_dev, there.st_ino)


def _open(path: str) -> tuple[int, bool]:
    """A descriptor of the file, which is created if need be; whether it ends with somebody else's torn line."""
    try:
        _refuse_devices(path)
        descriptor = os.open(path, _FLAGS, FILE_MODE)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise TracerError(f"{path} is a symbolic link", "name the file itself: links are not followed") from error
        if error.errno == errno.ENOENT:
            raise TracerError(f"{path}: its directory does not exist", "create it first, or name another") from error
        raise TracerError(f"cannot write to {path} ({error.strerror})", "name a file that can be created") from error
    return descriptor, _mend(descriptor)


def _refuse_devices(path: str) -> None:
    """To open one may have it do something: rewind a tape, or start a watchdog that restarts the host."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode) or stat.S_ISDIR(mode)):  # open(2) refuses the latter two
        raise TracerError(f"{path} is a device or a socket", "name a file, a FIFO or a terminal")


def _mend(descriptor: int) -> bool:
    """Cut off a last line that an earlier run was killed in: its record comes again.  True: it is somebody else's."""
    status = os.fstat(descriptor)
    if not status.st_size:
        return False
    try:
        if _read_end(descriptor, status.st_size, 1) == b"\n":
            return False
        torn = _read_end(descriptor, status.st_size, RECENT_BYTES).rpartition(b"\n")[2]
        is_ours = torn.startswith(_OURS) or _OURS.startswith(torn)
        if not is_ours or os.fstat(descriptor).st_size != status.st_size:
            return True
        os.ftruncate(descriptor, status.st_size - len(torn))
    except OSError:
        return True
    return False


def _read_end(descriptor: int, size: int, count: int) -> bytes:
    """The last ``count`` bytes of a file that is open for writing alone.

    Raises OSError.
    """
    reader = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(reader, count, max(0, size - count))
    finally:
        os.close(reader)
