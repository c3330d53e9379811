# SPDX-License-Identifier: Apache-2.0
"""Lines into a regular file: each by one write(2) at its end, wherever others have put that.

The file may be renamed, removed or emptied by whoever rotates it, with a signal or without.
"""

import errno
import io
import os
import stat
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

from tracer.base.errors import EXIT_USAGE, TracerError
from tracer.base.log import warn
from tracer.delivery.sinks import Sink
from tracer.delivery.sinks.destination import Destination, Option, UriForm
from tracer.delivery.sinks.line_metadata import line_metadata
from tracer.delivery.sinks.pipe import PipeSink, is_pipe
from tracer.delivery.sinks.rotated import COMPRESS, RotatedFiles
from tracer.records.line_prefix import LINE_PREFIXES
from tracer.records.record_id import RecordId, extract_record_ids

OPTIONS = {
    "rotate-bytes": Option("Begin a new file before this one becomes larger.", None, "bytes"),
    "rotate-seconds": Option(
        "Begin a new file with the first record this long after the current file's first one.", None, "seconds"
    ),
    "keep": Option("Number of older files to keep; by default all.", None, "count"),
    "compress": Option("Compression of older files, except the newest.", "none", COMPRESS),
}
FORMS = {
    "file": UriForm("file:PATH", "A file (mode 0640), opened anew after a rotation; a FIFO; a terminal.", OPTIONS),
}
FILE_MODE = 0o640
RECENT_BYTES = 4 << 20
"""So much of its end is read when somebody asks what is in it."""
CREATE_S = 0.1
"""logrotate renames a file and creates the next one (``create``): so long it is left to do that."""

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


class _Half(NamedTuple):
    """A line that could not be written to its end."""

    line: bytes
    rest: bytes
    size_bytes: int
    """Of the file, after its first half."""


def open_sink(destination: Destination) -> Sink:
    """Raises TracerError where it cannot be opened."""
    path, options = destination.address, destination.options
    rotate_bytes, rotate_s = (int(options[name] or 0) for name in ("rotate-bytes", "rotate-seconds"))
    if is_pipe(path):
        if rotate_bytes or rotate_s:
            raise TracerError(f"{path} is no file, which alone can be rotated", "leave out rotate-...", EXIT_USAGE)
        return PipeSink(destination.uri, path)
    return FileSink(destination.uri, path, rotate_bytes, rotate_s, rotated_files(destination))


def rotated_files(destination: Destination) -> RotatedFiles:
    """Its older parts; nothing is opened.  Raises TracerError where what compresses them is not installed."""
    keep = destination.options["keep"]
    return RotatedFiles(destination.address, None if keep is None else int(keep), str(destination.options["compress"]))


class FileSink:
    batch_lines = 1
    dead = False

    def __init__(self, uri: str, path: str, rotate_bytes: int, rotate_s: int, rotated_files: RotatedFiles) -> None:
        """A limit of 0 is none.  Raises TracerError where it cannot be opened."""
        self.uri = uri
        self._path = path
        self._rotate_bytes, self._rotate_s = rotate_bytes, rotate_s
        self._rotated = rotated_files
        self._half: _Half | None = None
        self._is_stuck_in_old = False
        self._cannot_rotate = False
        self._descriptor, self._is_torn = _open(path)
        self._exchange = threading.Lock()
        """Held while the descriptor becomes another, because ``recent`` reads by it in another thread."""
        self._began_s = self._read_beginning_s()
        self._is_tidy = not (rotate_bytes or rotate_s)

    def write(self, lines: Sequence[bytes]) -> int:
        if not self._is_tidy:  # not before: it begins a thread, which would have all privileges
            self._is_tidy = True
            self._rotated.tidy()
        self._follow()
        line = lines[0]
        if self._is_due(len(line)):
            self._rotate()
        view = memoryview(self._what_to_write(line))
        while view:
            view = view[os.write(self._descriptor, view) :]
            self._half = _Half(line, bytes(view), os.fstat(self._descriptor).st_size) if view else None
            self._is_torn = False
        return 1

    def recent(self) -> set[RecordId]:
        try:
            with self._exchange:
                reader = _reader(self._descriptor)
            with open(reader, "rb") as file:
                size = os.fstat(reader).st_size
                file.seek(max(0, size - RECENT_BYTES))
                found = extract_record_ids(io.BytesIO(file.read(RECENT_BYTES)))
        except OSError:
            return set()
        if self._rotate_bytes or self._rotate_s:
            for older in self._rotated.ends(RECENT_BYTES):
                if size >= RECENT_BYTES:
                    break
                found |= extract_record_ids(io.BytesIO(older))
                size += len(older)
        return found

    def reopen(self) -> None:
        descriptor, is_torn = _open(self._path)
        with self._exchange:
            os.close(self._descriptor)
            self._descriptor = descriptor
        self._is_torn, self._half, self._is_stuck_in_old = is_torn, None, False
        self._began_s = self._read_beginning_s()

    def close(self) -> None:
        self._rotated.close()
        os.close(self._descriptor)

    def _is_due(self, line_bytes: int) -> bool:
        size_bytes = os.fstat(self._descriptor).st_size if self._rotate_bytes or self._rotate_s else 0
        if not size_bytes or self._half is not None or self._is_torn or self._is_stuck_in_old:
            return False
        is_large = self._rotate_bytes and size_bytes + line_bytes > self._rotate_bytes
        return bool(is_large or (self._rotate_s and time.time() - self._began_s >= self._rotate_s))

    def _rotate(self) -> None:
        """Where that is impossible it goes on in the one that it has."""
        status = os.fstat(self._descriptor)
        try:
            with self._rotated.lock("lock"):  # another tracer may write to it, too
                if not self._is_same(status):
                    return
                os.rename(self._path, self._rotated.next_path())
            self._cannot_rotate = False
        except BlockingIOError:
            return  # that one rotates it just now
        except OSError as error:
            if not self._cannot_rotate:
                self._cannot_rotate = True
                warn(f"cannot rotate {self._path}: {error.strerror}; it goes on in this one")
            return
        self._follow(create_s=0.0)
        if not self._is_stuck_in_old:
            self._rotated.inherit(status, self._descriptor)
        self._rotated.tidy()

    def _read_beginning_s(self) -> float:
        """When the first record in the file was written, about: its own time, or now."""
        now_s = time.time()
        if not self._rotate_s or not os.fstat(self._descriptor).st_size:
            return now_s
        try:
            began_ns = line_metadata(_read(self._descriptor, 0, RECENT_BYTES).partition(b"\n")[0]).time_ns
        except OSError:
            return now_s
        return now_s if began_ns is None else min(now_s, began_ns / 1e9)

    def _what_to_write(self, line: bytes) -> bytes:
        """The line, and what must stand before it for a line that could not be written to its end."""
        if self._half is None:
            return b"\n" + line if self._is_torn else line
        half, size_bytes = self._half, os.fstat(self._descriptor).st_size
        if size_bytes == half.size_bytes:
            return half.rest if half.line == line else half.rest + line
        return b"\n" + line if size_bytes else line  # somebody else has written, or emptied it

    def _follow(self, create_s: float = CREATE_S) -> None:
        """Open the file anew where the path no longer leads to the one that is open.

        Raises OSError where that is impossible, and the open one has no name at all.
        """
        own = os.fstat(self._descriptor)
        if self._is_same(own):
            return
        if not self._is_stuck_in_old:
            until_s = time.monotonic() + create_s
            while not os.path.lexists(self._path) and time.monotonic() < until_s:
                time.sleep(CREATE_S / 10)
        try:
            self.reopen()
        except TracerError as error:
            if own.st_nlink == 0:
                raise OSError(errno.ENOENT, f"it was removed, and {error.message}") from error
            if not self._is_stuck_in_old:
                self._is_stuck_in_old = True
                warn(f"{error}; it goes on in the file that it has open")

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
        is_ours = any(torn.startswith(head) or head.startswith(torn) for head in LINE_PREFIXES)
        if not is_ours or os.fstat(descriptor).st_size != status.st_size:
            return True
        os.ftruncate(descriptor, status.st_size - len(torn))
    except OSError:
        return True
    return False


def _read_end(descriptor: int, size: int, count: int) -> bytes:
    """The last ``count`` bytes of a file that is open for writing alone.  Raises OSError."""
    return _read(descriptor, max(0, size - count), count)


def _read(descriptor: int, offset: int, count: int) -> bytes:
    reader = _reader(descriptor)
    try:
        return os.pread(reader, count, offset)
    finally:
        os.close(reader)


def _reader(descriptor: int) -> int:
    return os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
