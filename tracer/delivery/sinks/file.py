# SPDX-License-Identifier: Apache-2.0
"""Append lines to a regular file, each by one write(2).

Others may rename, remove or truncate the file, with or without a signal to oomtrace.
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
    "file": UriForm("file:PATH", "A file (mode 0640), reopened after a rotation; a FIFO; a terminal.", OPTIONS),
}
FILE_MODE = 0o640
RECENT_BYTES = 4 << 20
"""Bytes at the end of the file in which the latest records are looked for."""
CREATE_S = 0.1
"""Time for logrotate to create the next file (``create``) after it has renamed the current one."""

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


class _PartialLine(NamedTuple):
    """A line whose end could not be written."""

    line: bytes
    rest: bytes
    size_bytes: int
    """Size of the file after the partial write."""


def open_sink(destination: Destination) -> Sink:
    """Raises TracerError if the file cannot be opened."""
    path, options = destination.address, destination.options
    rotate_bytes, rotate_s = (int(options[name] or 0) for name in ("rotate-bytes", "rotate-seconds"))
    if is_pipe(path):
        if rotate_bytes or rotate_s:
            raise TracerError(f"{path}: only files can be rotated", "remove rotate-...", EXIT_USAGE)
        return PipeSink(destination.uri, path)
    return FileSink(destination.uri, path, rotate_bytes, rotate_s, rotated_files(destination))


def rotated_files(destination: Destination) -> RotatedFiles:
    """The rotated files of an output; opens nothing.  Raises TracerError if the compression is not installed."""
    keep = destination.options["keep"]
    return RotatedFiles(destination.address, None if keep is None else int(keep), str(destination.options["compress"]))


class FileSink:
    batch_lines = 1
    dead = False

    def __init__(self, uri: str, path: str, rotate_bytes: int, rotate_s: int, rotated_files: RotatedFiles) -> None:
        """A limit of 0 means none.  Raises TracerError if the file cannot be opened."""
        self.uri = uri
        self._path = path
        self._rotate_bytes, self._rotate_s = rotate_bytes, rotate_s
        self._rotated = rotated_files
        self._partial: _PartialLine | None = None
        self._keeps_old_file = False
        """Whether the file at the path cannot be opened, so the open one remains in use."""
        self._has_reported_rotation_error = False
        self._descriptor, self._is_torn = _open(path)
        self._descriptor_lock = threading.Lock()
        """Guards replacing the descriptor, because ``recent`` uses it in another thread."""
        self._first_record_s = self._read_first_record_s()
        self._has_tidied = not (rotate_bytes or rotate_s)

    def write(self, lines: Sequence[bytes]) -> int:
        if not self._has_tidied:  # not earlier: it starts a thread, which would keep all privileges
            self._has_tidied = True
            self._rotated.tidy()
        self._follow_path()
        line = lines[0]
        if self._is_rotation_due(len(line)):
            self._rotate()
        view = memoryview(self._bytes_to_write(line))
        while view:
            view = view[os.write(self._descriptor, view) :]
            self._partial = _PartialLine(line, bytes(view), os.fstat(self._descriptor).st_size) if view else None
            self._is_torn = False
        return 1

    def recent(self) -> set[RecordId]:
        try:
            with self._descriptor_lock:
                reader = _open_for_reading(self._descriptor)
            with open(reader, "rb") as file:
                size = os.fstat(reader).st_size
                file.seek(max(0, size - RECENT_BYTES))
                recent_ids = extract_record_ids(io.BytesIO(file.read(RECENT_BYTES)))
        except OSError:
            return set()
        if self._rotate_bytes or self._rotate_s:
            for older in self._rotated.ends(RECENT_BYTES):
                if size >= RECENT_BYTES:
                    break
                recent_ids |= extract_record_ids(io.BytesIO(older))
                size += len(older)
        return recent_ids

    def reopen(self) -> None:
        descriptor, is_torn = _open(self._path)
        with self._descriptor_lock:
            os.close(self._descriptor)
            self._descriptor = descriptor
        self._is_torn, self._partial, self._keeps_old_file = is_torn, None, False
        self._first_record_s = self._read_first_record_s()

    def close(self) -> None:
        self._rotated.close()
        os.close(self._descriptor)

    def _is_rotation_due(self, line_bytes: int) -> bool:
        size_bytes = os.fstat(self._descriptor).st_size if self._rotate_bytes or self._rotate_s else 0
        if not size_bytes or self._partial is not None or self._is_torn or self._keeps_old_file:
            return False
        is_large = self._rotate_bytes and size_bytes + line_bytes > self._rotate_bytes
        return bool(is_large or (self._rotate_s and time.time() - self._first_record_s >= self._rotate_s))

    def _rotate(self) -> None:
        """Rotate the file; if that fails, the current one remains in use."""
        status = os.fstat(self._descriptor)
        try:
            with self._rotated.lock("lock"):  # another oomtrace may write to the same file
                if not self._is_at_path(status):
                    return
                os.rename(self._path, self._rotated.next_path())
            self._has_reported_rotation_error = False
        except BlockingIOError:
            return  # the other one is rotating it
        except OSError as error:
            if not self._has_reported_rotation_error:
                self._has_reported_rotation_error = True
                warn(f"cannot rotate {self._path}: {error.strerror}; the current file remains in use")
            return
        self._follow_path(create_s=0.0)
        if not self._keeps_old_file:
            self._rotated.copy_owner_and_mode(status, self._descriptor)
        self._rotated.tidy()

    def _read_first_record_s(self) -> float:
        """Unix time of the first record in the file; the current time if it is empty or unreadable."""
        now_s = time.time()
        if not self._rotate_s or not os.fstat(self._descriptor).st_size:
            return now_s
        try:
            first_record_ns = line_metadata(_read(self._descriptor, 0, RECENT_BYTES).partition(b"\n")[0]).time_ns
        except OSError:
            return now_s
        return now_s if first_record_ns is None else min(now_s, first_record_ns / 1e9)

    def _bytes_to_write(self, line: bytes) -> bytes:
        """The line, after the rest of a partial line, or a newline that ends it."""
        if self._partial is None:
            return b"\n" + line if self._is_torn else line
        partial, size_bytes = self._partial, os.fstat(self._descriptor).st_size
        if size_bytes == partial.size_bytes:
            return partial.rest if partial.line == line else partial.rest + line
        return b"\n" + line if size_bytes else line  # another process has appended to the file, or truncated it

    def _follow_path(self, create_s: float = CREATE_S) -> None:
        """Open the file at the path, if it is not the open one.

        Raises OSError if it cannot be opened, and the open file was removed.
        """
        opened = os.fstat(self._descriptor)
        if self._is_at_path(opened):
            return
        if not self._keeps_old_file:
            deadline_s = time.monotonic() + create_s
            while not os.path.lexists(self._path) and time.monotonic() < deadline_s:
                time.sleep(CREATE_S / 10)
        try:
            self.reopen()
        except TracerError as error:
            if opened.st_nlink == 0:
                raise OSError(errno.ENOENT, f"the file was removed, and {error.message}") from error
            if not self._keeps_old_file:
                self._keeps_old_file = True
                warn(f"{error}; the open file remains in use")

    def _is_at_path(self, opened: os.stat_result) -> bool:
        try:
            at_path = os.stat(self._path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        except OSError:
            return True  # unknown
        return (opened.st_dev, opened.st_ino) == (at_path.st_dev, at_path.st_ino)


def _open(path: str) -> tuple[int, bool]:
    """Open the file, and create it if necessary; return its descriptor, and whether it ends with another's torn line.

    Raises TracerError.
    """
    try:
        _refuse_devices(path)
        descriptor = os.open(path, _FLAGS, FILE_MODE)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise TracerError(f"{path} is a symbolic link", "name the file itself: links are not followed") from error
        if error.errno == errno.ENOENT:
            raise TracerError(f"{path}: its directory does not exist", "create it, or name another file") from error
        raise TracerError(f"cannot write to {path} ({error.strerror})", "name a file that can be created") from error
    return descriptor, _repair_end(descriptor)


def _refuse_devices(path: str) -> None:
    """Opening a device may have effects: rewind a tape, or start a watchdog that reboots the host."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode) or stat.S_ISDIR(mode)):  # open(2) refuses the latter two
        raise TracerError(f"{path} is a device or a socket", "name a file, a FIFO or a terminal")


def _repair_end(descriptor: int) -> bool:
    """Remove a torn last line of an earlier run, whose record is delivered again; return whether another's remains."""
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
    """The last ``count`` bytes of a file that is open for writing only.  Raises OSError."""
    return _read(descriptor, max(0, size - count), count)


def _read(descriptor: int, offset: int, count: int) -> bytes:
    reader = _open_for_reading(descriptor)
    try:
        return os.pread(reader, count, offset)
    finally:
        os.close(reader)


def _open_for_reading(descriptor: int) -> int:
    return os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
