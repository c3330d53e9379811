# SPDX-License-Identifier: Apache-2.0
"""The older parts of a file: PATH.000001, PATH.000002, ..., a higher number for a later one.

They keep their names, so that whoever is killed has at most half of one step behind him.  All but the newest may be
compressed: who follows the file finds that one as he left it.
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
_ENDS = {"none": "", "gzip": ".gz", "zstd": ".zst"}
_UNFINISHED = ".part"
_CHUNK_BYTES = 256 << 10
_CLOSE_S = 1.0
_LOCK_RETRY_S = 1.0
LOCK_S = 60.0
"""How long another oomtrace that tidies the same parts is waited for."""
_NUMBER = r"(\d{6}|[1-9]\d{6})"
"""Not more digits: logrotate's ``dateformat .%Y%m%d`` has eight."""
_NUMBER_MAX = 9_999_999
_READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_WRITE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


class _Part(NamedTuple):
    number: int
    end: str
    """What stands behind the number: how it is compressed."""
    path: str


class RotatedFiles:
    """Those of one file."""

    def __init__(self, path: str, keep: int | None, compress: str) -> None:
        """``keep`` so many, None: all.  Raises TracerError where what compresses is not installed."""
        self._path = path
        self._keep = keep
        self._compress = compress
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_asked = False
        self._stops = threading.Event()
        self._has_told = False
        self._has_told_owner = False
        if compress == "zstd":
            _zstandard()

    def next_path(self) -> str:
        """The name of the next one.  Raises OSError."""
        parts = self._parts()
        number = parts[-1].number + 1 if parts else 1
        if number > _NUMBER_MAX:
            raise OSError(errno.ERANGE, f"there is no number after {parts[-1].path}: move the older parts away")
        return f"{self._path}.{number:06d}"

    def lock(self, what: str) -> AbstractContextManager[None]:
        """For one of several oomtraces with the same file; its name begins with a dot, so that it is none of the parts.

        Raises BlockingIOError where another one holds it, OSError where it cannot be used.
        """
        return hold_file_lock(os.path.join(self._folder, f".{os.path.basename(self._path)}.{what}"))

    def inherit(self, status: os.stat_result, descriptor: int) -> None:
        """Give a file the owner and the mode of the one before, so that who read it can go on; tell it if not."""
        try:
            for uid, gid in ((-1, status.st_gid), (status.st_uid, -1)):
                os.fchown(descriptor, uid, gid)
        except OSError as error:
            if not self._has_told_owner:
                self._has_told_owner = True
                owner, hint = f"{status.st_uid}:{status.st_gid}", f"give {self._folder} that group, and chmod g+s"
                warn(f"what follows in {self._path} cannot belong to {owner} as before: {error.strerror}; {hint}")
        with contextlib.suppress(OSError):
            os.fchmod(descriptor, status.st_mode & 0o777)

    def ends(self, max_bytes: int) -> Iterator[bytes]:
        """The last bytes of each, decompressed, so many at most, of the newest first.

        Those that cannot be read are passed over, and so are large ones that are compressed.
        """
        with contextlib.suppress(OSError):
            for part in reversed(self._parts()):
                with contextlib.suppress(OSError, EOFError, TracerError):
                    try:
                        end = _end(part, max_bytes)
                    except FileNotFoundError:  # it was compressed meanwhile
                        made = _ENDS[self._compress]
                        end = _end(part._replace(end=made, path=part.path + made), max_bytes)
                    yield end

    def tidy(self) -> None:
        """Remove and compress what is to be, in a thread of its own, which ends when that is done."""
        with self._lock:
            self._is_asked = True
            if self._thread is None and not self._stops.is_set():
                self._thread = threads.start("rotated", self._tidy_all)  # or at the next rotation

    def close(self) -> None:
        """What is not compressed then will be at the next start."""
        self._stops.set()
        thread = self._thread
        if thread is not None:
            thread.join(_CLOSE_S)

    def _tidy_all(self) -> None:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)  # of this thread: nobody waits for it
        while True:
            with self._lock:
                if not self._is_asked or self._stops.is_set():
                    self._thread = None
                    return
                self._is_asked = False
            try:
                self._tidy_alone()
                self._has_told = False
            except Exception as error:  # whatever it is, as an import without a free descriptor: it is tried again
                reason = getattr(error, "strerror", None) or error
                if not self._has_told:
                    warn(f"cannot remove or compress older parts of {self._path}: {reason}; they stay")
                self._has_told = True

    def _tidy_alone(self) -> None:
        """Two that compress the same file would take away each other's half; one may be the run before this one.

        Raises OSError.
        """
        until_s = time.monotonic() + LOCK_S
        while not self._stops.is_set():
            try:
                with self.lock("tidy"):
                    self._tidy()
                return
            except BlockingIOError:
                if time.monotonic() > until_s:
                    raise
            self._stops.wait(_LOCK_RETRY_S)

    def _tidy(self) -> None:
        for path in self._unfinished():
            os.unlink(path)
        parts = self._parts()
        numbers = sorted({part.number for part in parts})
        kept = numbers if self._keep is None else numbers[max(0, len(numbers) - self._keep) :]
        for part in parts:
            is_compressed_too = not part.end and any(each.number == part.number and each.end for each in parts)
            if part.number not in kept or is_compressed_too:
                os.unlink(part.path)
                continue
            is_due = self._compress != "none" and not part.end and part.number != numbers[-1]
            if is_due and not self._compressed(part):
                return

    def _compressed(self, part: _Part) -> bool:
        """It takes the place of the other when it is complete on disk; False: there is no time left."""
        made = part.path + _ENDS[self._compress]
        unfinished = made + _UNFINISHED
        with open(os.open(part.path, _READ_FLAGS), "rb") as source:
            status = os.fstat(source.fileno())
            with open(os.open(unfinished, _WRITE_FLAGS, status.st_mode & 0o777), "wb") as file:
                try:
                    with _writer(self._compress, file) as writer:
                        while chunk := source.read(_CHUNK_BYTES):
                            writer.write(chunk)
                            if self._stops.is_set():
                                os.unlink(unfinished)
                                return False
                    self.inherit(status, file.fileno())
                    os.utime(file.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    os.unlink(unfinished)
                    raise
        os.rename(unfinished, made)
        _sync_folder(made)
        os.unlink(part.path)
        return True

    def _parts(self) -> list[_Part]:
        """The oldest first."""
        pattern = re.compile(re.escape(os.path.basename(self._path)) + rf"\.{_NUMBER}(|\.gz|\.zst)")
        found = [(pattern.fullmatch(name), name) for name in os.listdir(self._folder)]
        parts = [
            _Part(int(match[1]), match[2], os.path.join(self._folder, name))
            for match, name in found
            if match is not None
        ]
        return sorted(parts)

    def _unfinished(self) -> list[str]:
        pattern = re.compile(re.escape(os.path.basename(self._path)) + rf"\.{_NUMBER}(?:\.gz|\.zst)\.part")
        return [os.path.join(self._folder, name) for name in os.listdir(self._folder) if pattern.fullmatch(name)]

    @property
    def _folder(self) -> str:
        return os.path.dirname(self._path) or "."


def _end(part: _Part, max_bytes: int) -> bytes:
    with open(os.open(part.path, _READ_FLAGS), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not part.end:
            return os.pread(file.fileno(), max_bytes, max(0, size - max_bytes))
        end, reader = b"", _reader(part.end, file)
        while size <= max_bytes and (chunk := reader.read(_CHUNK_BYTES)):
            end = (end + chunk)[-max_bytes:]
        return end


def _reader(end: str, file: IO[bytes]) -> Any:
    if end == ".gz":
        import gzip

        return gzip.GzipFile(fileobj=file)
    return _zstandard().ZstdDecompressor().stream_reader(file)


def _writer(compress: str, file: IO[bytes]) -> Any:
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


def _sync_folder(path: str) -> None:
    descriptor = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
