# SPDX-License-Identifier: Apache-2.0
"""Read one segment of a spool, whatever its content and the state of the disk.

What cannot be read now stays in place, and is read later.  Damaged lines are skipped and counted.
"""

import errno
import os
import stat
import time
from collections import deque
from collections.abc import Callable
from typing import BinaryIO

import orjson

LINE_MAX_BYTES = 4 << 20
"""oomtrace writes no longer line."""
UNREADABLE_S = 60.0
"""What the disk fails to read (EIO) for so long counts as damaged."""
BLOCK_BYTES = 4096
"""Bytes to skip after such a failure: disks fail in blocks, which are not larger."""
FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class SegmentGoneError(Exception):
    """There is no segment of that name, or its file is not a segment."""


def open_segment(name: str, directory: int, max_bytes: int) -> BinaryIO:
    """Open a segment in the directory with the descriptor ``directory``.

    Raises OSError if it cannot be opened now, SegmentGoneError if it never can.
    """
    try:
        descriptor = os.open(name, os.O_RDONLY | FLAGS, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
            raise SegmentGoneError from error
        raise
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size > max_bytes + LINE_MAX_BYTES:
        os.close(descriptor)
        raise SegmentGoneError
    return open(descriptor, "rb")


class SegmentReader:
    """``open_file`` opens the segment, ``count_damaged`` counts lost lines, ``offset`` is where to begin."""

    def __init__(
        self, open_file: Callable[[], BinaryIO], count_damaged: Callable[[int], None], offset: int = 0
    ) -> None:
        self.ahead: deque[tuple[bytes, int]] = deque()
        """Lines read ahead, each with the offset of its end."""
        self.offset = offset
        """Where the next read begins."""
        self._open_file, self._count_damaged = open_file, count_damaged
        self._file: BinaryIO | None = None
        self._seen = 0
        """Number of lines read or counted as damaged."""
        self._is_begun = False
        self._is_torn = False
        """Whether the next bytes are the rest of a line that counts as damaged."""
        self._failing_since_s: float | None = None

    def read(self, count: int, lines: int | None, size_bytes: int) -> None:
        """Read ahead until there are ``count`` lines.  At the end of the segment, count the lines that it lacks.

        The segment should have ``lines`` lines or, if that is unknown (None), ``size_bytes`` bytes.

        Raises OSError if nothing can be read now, and nothing was read ahead.
        """
        while len(self.ahead) < count:
            try:
                line = self._next_line()
            except SegmentGoneError:
                line = b""
            except OSError as error:
                self.close()
                if self.ahead:  # the error recurs once these are delivered
                    return
                if not self._is_damage(error):
                    raise
                continue
            if not line:
                self._end(lines, size_bytes)
                return
            self.offset += len(line)
            was_torn, self._is_torn = self._is_torn, not line.endswith(b"\n")
            if was_torn:
                continue
            self._seen += 1
            if _is_record(line):
                self.ahead.append((line, self.offset))
            else:
                self._count_damaged(1)

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _next_line(self) -> bytes:
        """Raises OSError, SegmentGoneError."""
        if self._file is None:
            self._file = self._open_file()
            if not self._is_begun:
                is_cut = os.fstat(self._file.fileno()).st_size < self.offset
                self.offset = _line_start(self._file, self.offset)
                self._is_begun = True
                self._count_damaged(is_cut)
            self._file.seek(self.offset)
        line = self._file.readline(LINE_MAX_BYTES)
        self._failing_since_s = None
        return line

    def _is_damage(self, error: OSError) -> bool:
        """Whether the next block will never be readable; if so, skip it."""
        now_s = time.monotonic()
        if self._failing_since_s is None:
            self._failing_since_s = now_s
        if error.errno != errno.EIO or now_s - self._failing_since_s < UNREADABLE_S:
            return False
        if not self._is_torn:
            self._is_torn = True
            self._seen += 1
            self._count_damaged(1)
        self.offset += BLOCK_BYTES - self.offset % BLOCK_BYTES
        return True

    def _end(self, lines: int | None, size_bytes: int) -> None:
        if lines is None:
            lines = self._seen + (self.offset < size_bytes or not self._is_begun)
        self._count_damaged(max(0, lines - self._seen))
        self._seen = max(self._seen, lines)
        self._is_begun = True


def _is_record(line: bytes) -> bool:
    try:
        return line.endswith(b"}\n") and isinstance(orjson.loads(line), dict)
    except orjson.JSONDecodeError:
        return False


def _line_start(file: BinaryIO, offset: int) -> int:
    """``offset``, or 0 if no line begins there: a duplicate is better than a loss."""
    if offset:
        file.seek(offset - 1)
        if file.read(1) != b"\n":
            return 0
    return offset
