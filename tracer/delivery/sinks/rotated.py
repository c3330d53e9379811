# SPDX-License-Identifier: Apache-2.0
"""Rotated files of an output: PATH.000001, PATH.000002, ..., a higher number for a later one.

Rotated files are never renamed, so a kill of the process leaves at most one step unfinished.  All but the newest may be
compressed; a program that follows the file still finds the newest one as it was.
"""

import contextlib
import errno
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import IO, Any, NamedTuple

from tracer.base import threads
from tracer.base.errors import TracerError
from tracer.base.extras import install_hint
from tracer.base.log import warn
from tracer.delivery.sinks.file_lock import hold_file_lock

COMPRESS = ("none", "gzip", "zstd")
_SUFFIXES = {"none": "", "gzip": ".gz", "zstd": ".zst"}
_UNFINISHED = ".part"
_CHUNK_BYTES = 256 << 10
_CLOSE_S = 1.0
_LOCK_RETRY_S = 1.0
LOCK_S = 60.0
"""Timeout for the lock, which another oomtrace holds while it tidies the same files."""
_NUMBER = r"(\d{6}|[1-9]\d{6})"
"""At most seven digits: logrotate's ``dateformat .%Y%m%d`` has eight."""
_NUMBER_MAX = 9_999_999
_READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_WRITE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


class _RotatedFile(NamedTuple):
    number: int
    suffix: str
    """The part after the number: "", or the suffix of the compression."""
    path: str


class RotatedFiles:
    """The rotated files of one file."""

    def __init__(self, path: str, keep: int | None, compress: str) -> None:
        """``keep``: how many, None: all.  Raises TracerError if the compression is not installed."""
        self._path = path
        self._keep = keep
        self._compress = compress
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_requested = False
        self._stop = threading.Event()
        self._has_reported_error = False
        self._has_reported_owner = False
        if compress == "zstd":
            _zstandard()

    def next_path(self) -> str:
        """Path of the next rotated file.  Raises OSError."""
        files = self._list()
        number = files[-1].number + 1 if files else 1
        if number > _NUMBER_MAX:
            raise OSError(errno.ERANGE, f"no number is left after {files[-1].path}: move the rotated files away")
        return f"{self._path}.{number:06d}"

    def lock(self, what: str) -> AbstractContextManager[None]:
        """A lock among oomtrace processes with the same file.  Its name begins with a dot, unlike rotated files.

        Raises BlockingIOError if another process holds it, OSError if it cannot be used.
        """
        return hold_file_lock(os.path.join(self._directory, f".{os.path.basename(self._path)}.{what}"))

    def copy_owner_and_mode(self, status: os.stat_result, descriptor: int) -> None:
        """Give a file the owner and mode of the previous one, so its readers keep access; warn if that fails."""
        try:
            for uid, gid in ((-1, status.st_gid), (status.st_uid, -1)):
                os.fchown(descriptor, uid, gid)
        except OSError as error:
            if not self._has_reported_owner:
                self._has_reported_owner = True
                owner, hint = f"{status.st_uid}:{status.st_gid}", f"give {self._directory} that group, and chmod g+s"
                warn(
                    f"cannot give the new {self._path} the owner {owner} of the previous one: {error.strerror}; {hint}"
                )
        with contextlib.suppress(OSError):
            os.fchmod(descriptor, status.st_mode & 0o777)

    def ends(self, max_bytes: int) -> Iterator[bytes]:
        """The last ``max_bytes`` of each file, decompressed, the newest file first.

        Skips unreadable files, and compressed ones that are larger.
        """
        with contextlib.suppress(OSError):
            for file in reversed(self._list()):
                with contextlib.suppress(OSError, EOFError, TracerError):
                    try:
                        end = _read_end(file, max_bytes)
                    except FileNotFoundError:  # it was compressed meanwhile
                        suffix = _SUFFIXES[self._compress]
                        end = _read_end(file._replace(suffix=suffix, path=file.path + suffix), max_bytes)
                    yield end

    def tidy(self) -> None:
        """Remove and compress old files in a temporary thread.  If it cannot start, the next rotation tries again."""
        with self._lock:
            self._is_requested = True
            if self._thread is None and not self._stop.is_set():
                self._thread = threads.start("rotated", self._tidy_until_done)

    def close(self) -> None:
        """Stop tidying; the next start continues."""
        self._stop.set()
        thread = self._thread
        if thread is not None:
            thread.join(_CLOSE_S)

    def _tidy_until_done(self) -> None:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)  # affects this thread only
        while True:
            with self._lock:
                if not self._is_requested or self._stop.is_set():
                    self._thread = None
                    return
                self._is_requested = False
            try:
                self._tidy_locked()
                self._has_reported_error = False
            except Exception as error:  # also of an import without a free descriptor; the next rotation tries again
                reason = getattr(error, "strerror", None) or error
                if not self._has_reported_error:
                    warn(f"cannot remove or compress rotated files of {self._path}: {reason}; they are kept")
                self._has_reported_error = True

    def _tidy_locked(self) -> None:
        """Tidy under the lock: two processes that compress the same file would remove each other's unfinished one.

        The other process may be the previous run.  Raises OSError.
        """
        deadline_s = time.monotonic() + LOCK_S
        while not self._stop.is_set():
            try:
                with self.lock("tidy"):
                    self._tidy()
                return
            except BlockingIOError:
                if time.monotonic() > deadline_s:
                    raise
            self._stop.wait(_LOCK_RETRY_S)

    def _tidy(self) -> None:
        for path in self._list_unfinished():
            os.unlink(path)
        files = self._list()
        numbers = sorted({file.number for file in files})
        kept = numbers if self._keep is None else numbers[max(0, len(numbers) - self._keep) :]
        for file in files:
            has_compressed_copy = not file.suffix and any(each.number == file.number and each.suffix for each in files)
            if file.number not in kept or has_compressed_copy:
                os.unlink(file.path)
                continue
            is_due = self._compress != "none" and not file.suffix and file.number != numbers[-1]
            if is_due and not self._compress_file(file):
                return

    def _compress_file(self, rotated: _RotatedFile) -> bool:
        """Replace a file by a compressed one, once that is complete on disk; return False if stopped."""
        compressed = rotated.path + _SUFFIXES[self._compress]
        unfinished = compressed + _UNFINISHED
        with open(os.open(rotated.path, _READ_FLAGS), "rb") as source:
            status = os.fstat(source.fileno())
            with open(os.open(unfinished, _WRITE_FLAGS, status.st_mode & 0o777), "wb") as file:
                try:
                    with _compressor(self._compress, file) as writer:
                        while chunk := source.read(_CHUNK_BYTES):
                            writer.write(chunk)
                            if self._stop.is_set():
                                os.unlink(unfinished)
                                return False
                    self.copy_owner_and_mode(status, file.fileno())
                    os.utime(file.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    os.unlink(unfinished)
                    raise
        os.rename(unfinished, compressed)
        _sync_directory(compressed)
        os.unlink(rotated.path)
        return True

    def _list(self) -> list[_RotatedFile]:
        """The rotated files, the oldest first."""
        pattern = re.compile(re.escape(os.path.basename(self._path)) + rf"\.{_NUMBER}(|\.gz|\.zst)")
        matches = [(pattern.fullmatch(name), name) for name in os.listdir(self._directory)]
        files = [
            _RotatedFile(int(match[1]), match[2], os.path.join(self._directory, name))
            for match, name in matches
            if match is not None
        ]
        return sorted(files)

    def _list_unfinished(self) -> list[str]:
        pattern = re.compile(re.escape(os.path.basename(self._path)) + rf"\.{_NUMBER}(?:\.gz|\.zst)\.part")
        return [os.path.join(self._directory, name) for name in os.listdir(self._directory) if pattern.fullmatch(name)]

    @property
    def _directory(self) -> str:
        return os.path.dirname(self._path) or "."


def _read_end(rotated: _RotatedFile, max_bytes: int) -> bytes:
    with open(os.open(rotated.path, _READ_FLAGS), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not rotated.suffix:
            return os.pread(file.fileno(), max_bytes, max(0, size - max_bytes))
        end, reader = b"", _decompressor(rotated.suffix, file)
        while size <= max_bytes and (chunk := reader.read(_CHUNK_BYTES)):
            end = (end + chunk)[-max_bytes:]
        return end


def _decompressor(suffix: str, file: IO[bytes]) -> Any:
    if suffix == ".gz":
        import gzip

        return gzip.GzipFile(fileobj=file)
    return _zstandard().ZstdDecompressor().stream_reader(file)


def _compressor(compress: str, file: IO[bytes]) -> Any:
    if compress == "gzip":
        import gzip

        return gzip.GzipFile(filename="", mode="wb", fileobj=file)
    return _zstandard().ZstdCompressor().stream_writer(file, closefd=False)


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError as error:
        hint = f"{install_hint('zstd')}; or use compress=gzip"
        raise TracerError("compress=zstd needs zstandard", hint) from error
    return zstandard


def _sync_directory(path: str) -> None:
    descriptor = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
