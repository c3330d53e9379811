# SPDX-License-Identifier: Apache-2.0
"""Opens logs, decompresses them, and reads them block by block, to their end or as they grow.

The standard library reads gzip, bzip2 and xz. It reads zstd only since Python 3.14; before, the program ``zstd`` does,
which every distribution has: a Python package would be a dependency for this alone.
"""

import bz2
import errno
import gzip
import io
import lzma
import os
import select
import shutil
import stat
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from typing import Any

from tracer.base.errors import TracerError, read_hint

BLOCK_BYTES = 1 << 20
STDIN = "-"
PAUSE_S = 1.0
"""Reports are complete after this long without a new line."""
_POLL_S = 0.25
_BACKLOG_S = 3.0
"""What a pipe without pauses passes within this time counts as written before it was opened."""
_MAGIC_BYTES = 8
_JOURNAL = b"LPKSHHRH"
_ZSTD = b"\x28\xb5\x2f\xfd"


class UnopenedError(TracerError):
    """The log could not be opened, or is in a format that cannot be read."""


class LogFile:
    """An open log: a file, or standard input (``-``).

    Raises UnopenedError if it cannot be opened, or its format cannot be read.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._program: subprocess.Popen[bytes] | None = None
        try:
            self._raw = _open(path)
            status = os.fstat(self._raw.fileno())
            self._is_file = stat.S_ISREG(status.st_mode)
            self.modified_ns = status.st_mtime_ns if self._is_file else time.time_ns()
            """When the log was last written to."""
            self._backlog_bytes = status.st_size if self._is_file else 0
            self._live_s = None if self._is_file else time.monotonic() + _BACKLOG_S
            if not self._is_file:
                self._raw = io.BufferedReader(_PeekedPipe(self._raw.detach()), BLOCK_BYTES)
            magic = self._raw.peek(_MAGIC_BYTES)[:_MAGIC_BYTES]
        except OSError as error:
            raise UnopenedError(f"cannot read {self.name} ({error.strerror or error})", read_hint(error)) from error
        self._is_plain = False
        try:
            self._file = self._decompressed(magic)
        except UnopenedError:
            self._raw.close()
            raise

    @property
    def name(self) -> str:
        """The name in messages."""
        return "standard input" if self.path == STDIN else self.path

    def blocks(self) -> Iterator[bytes]:
        """All blocks of the log.

        Raises TracerError if the rest cannot be read.
        """
        try:
            while block := self._file.read1(BLOCK_BYTES):  # read() loses what precedes the damage
                yield block
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            reason = getattr(error, "strerror", None) or error
            raise TracerError(f"{self.name} is damaged, and was read up to there", str(reason)) from error
        if self._program is not None and self._program.wait() != 0:
            raise TracerError(f"{self.name} is damaged, and was read up to there", "zstd reports no details")

    @property
    def is_rereadable(self) -> bool:
        """Whether `line_number_at` can read the log again."""
        return self._is_file and self.path != STDIN

    def line_number_at(self, offset: int) -> int | None:
        """The line number of a byte's offset; None: unknown. Reads the file again."""
        if offset < 0 or not self.is_rereadable:
            return None
        try:
            again = LogFile(self.path)
        except UnopenedError:
            return None
        newlines = 0
        try:
            for block in again.blocks():
                if len(block) > offset:
                    return newlines + block.count(b"\n", 0, offset) + 1
                newlines, offset = newlines + block.count(b"\n"), offset - len(block)
        except TracerError:
            pass
        finally:
            again.close()
        return None

    def follow(self) -> Iterator[bytes]:
        """All blocks, and what is added, like ``tail -F``; an empty block after each PAUSE_S without data.

        A file that is replaced is read to its end, then its successor from its begin; a file that is truncated is read
        from its begin. Raises TracerError, at once, if the log is compressed; then it is closed.
        """
        if not self._is_plain:
            self.close()
            raise TracerError(f"{self.name} is compressed, and cannot grow", "give the file that is still written to")
        return self._follow_file() if self._is_file else self._follow_pipe()

    @property
    def live_s(self) -> float:
        """Seconds since everything was read that was there when the log was opened; 0 before."""
        return 0.0 if self._live_s is None else max(0.0, time.monotonic() - self._live_s)

    def close(self) -> None:
        """Close the log, and end the program that decompresses it."""
        self._file.close()
        self._raw.close()
        if self._program is not None and self._program.poll() is None:
            self._program.kill()
            self._program.wait()

    def _decompressed(self, magic: bytes) -> io.BufferedIOBase:
        raw = self._raw
        if magic[:2] == b"\x1f\x8b":
            return gzip.GzipFile(fileobj=raw)
        if magic[:6] == b"\xfd7zXZ\0":
            return lzma.LZMAFile(raw)
        if magic[:3] == b"BZh":
            return bz2.BZ2File(raw)
        if magic[:4] == _ZSTD:
            return self._zstd()
        if magic == _JOURNAL:
            path = "PATH" if self.path == STDIN else self.path
            raise UnopenedError(f"{self.name} is a journal", f"give the output of journalctl --file={path} -k -o json")
        self._is_plain = True
        return raw

    def _zstd(self) -> io.BufferedIOBase:
        if not self._is_file:
            raise UnopenedError(f"{self.name} is compressed by zstd", "give the file itself, or the output of zstd -dc")
        program = shutil.which("zstd")
        if program is None:
            raise UnopenedError(f"{self.name} is compressed by zstd", "install the program (package zstd)")
        os.lseek(self._raw.fileno(), 0, os.SEEK_SET)
        command = [program, "--decompress", "--stdout", "--quiet"]
        self._program = subprocess.Popen(
            command, stdin=self._raw, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        )
        assert isinstance(self._program.stdout, io.RawIOBase)
        return io.BufferedReader(self._program.stdout, BLOCK_BYTES)

    def _follow_pipe(self) -> Iterator[bytes]:
        while True:
            block = self._raw.read1(BLOCK_BYTES)
            if not block:
                return
            yield block
            while not select.select([self._raw], [], [], PAUSE_S)[0]:
                yield b""

    def _follow_file(self) -> Iterator[bytes]:
        quiet_s = 0.0
        while True:
            block = self._raw.read1(BLOCK_BYTES)
            self._backlog_bytes -= len(block)
            if self._live_s is None and (self._backlog_bytes <= 0 or not block):
                self._live_s = time.monotonic()
            if block:
                quiet_s = 0.0
                yield block
                continue
            if self._is_replaced():
                yield b"\n"  # a last line without a newline stays a line
                continue
            time.sleep(_POLL_S)
            quiet_s += _POLL_S
            if quiet_s >= PAUSE_S:
                quiet_s = 0.0
                yield b""

    def _is_replaced(self) -> bool:
        """Whether the file was replaced, and its successor is open now, or truncated."""
        try:
            status, own = os.stat(self.path), os.fstat(self._raw.fileno())
            if (status.st_dev, status.st_ino) != (own.st_dev, own.st_ino):
                successor = _open(self.path)
                if self._raw.peek(1):  # written after the end was read
                    successor.close()
                    return False
                self._raw.close()
                self._raw = successor
                return True
            if own.st_size < self._raw.tell():
                self._raw.seek(0)
                return True
        except OSError:  # between removal and creation
            pass
        return False


class _PeekedPipe(io.RawIOBase):
    """A pipe whose first bytes were read, as many as identify its format: they may come one by one."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw
        self._begin = b""
        while len(self._begin) < _MAGIC_BYTES and (more := raw.read(BLOCK_BYTES)):
            self._begin += more

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def readinto(self, buffer: Any) -> int | None:
        if not self._begin:
            return self._raw.readinto(buffer)
        size = min(len(buffer), len(self._begin))
        buffer[:size], self._begin = self._begin[:size], self._begin[size:]
        return size

    def close(self) -> None:
        super().close()
        self._raw.close()


def _open(path: str) -> io.BufferedReader:
    raw: io.RawIOBase
    if path != STDIN:
        raw = open(path, "rb", buffering=0)  # noqa: SIM115
    elif sys.stdin is None:
        raise OSError(errno.EBADF, "it is closed")
    else:
        raw = os.fdopen(os.dup(sys.stdin.fileno()), "rb", buffering=0)
    return io.BufferedReader(raw, BLOCK_BYTES)
