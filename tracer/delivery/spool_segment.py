# SPDX-License-Identifier: Apache-2.0
"""Reads one segment of a spool, whatever stands in it, and whatever the disk answers.

What cannot be read now stays where it is, and is read later.  What is damaged is skipped and counted, line by line.
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
"""What is longer without a newline was not written by oomtrace."""
UNREADABLE_S = 60.0
"""What the disk fails to read for so long (EIO) is damaged."""
BLOCK_BYTES = 4096
"""What is passed over then: a disk fails in blocks, which are not larger."""
FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class SegmentGoneError(Exception):
    """There is no segment of that name, or it is something else."""


def open_segment(name: str, folder: int, max_bytes: int) -> BinaryIO:
    """Raises OSError where it cannot be opened now, GoneError where it never can."""
    try:
        descriptor = os.open(name, os.O_RDONLY | FLAGS, dir_fd=folder)
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
    """``open_file`` opens the segment, ``skip`` counts lines that are lost, ``offset`` is where to begin."""

    def __init__(self, open_file: Callable[[], BinaryIO], skip: Callable[[int], None], offset: int = 0) -> None:
        self.ahead: deque[tuple[bytes, int]] = deque()
        """Lines that were read, each with the offset of its end."""
        self.offset = offset
        """Where reading goes on."""
        self._open_file, self._skip = open_file, skip
        self._file: BinaryIO | None = None
        self._seen = 0
        """How many lines were read, or skipped."""
        self._is_begun = False
        self._is_torn = False
        """The line that was read last has not ended yet, and is not wanted."""
        self._failing_since_s: float | None = None

    def read(self, count: int, lines: int | None, size_bytes: int) -> None:
        """Read so many lines ahead; where none is there then it has ended, and what it lacks is counted.

        It should have ``lines``; where that is not known (None), ``size_bytes``.

        Raises OSError where none is there, but may be later.
        """
        while len(self.ahead) < count:
            try:
                line = self._next_line()
            except SegmentGoneError:
                line = b""
            except OSError as error:
                self.close()
                if self.ahead:  # it will fail again when these are delivered
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
                self._skip(1)

    def close(self) -> None:
        """What is read later is opened anew."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _next_line(self) -> bytes:
        """Raises OSError, GoneError."""
        if self._file is None:
            self._file = self._open_file()
            if not self._is_begun:
                is_cut = os.fstat(self._file.fileno()).st_size < self.offset
                self.offset = _line_start(self._file, self.offset)
                self._is_begun = True
                self._skip(is_cut)
            self._file.seek(self.offset)
        line = self._file.readline(LINE_MAX_BYTES)
        self._failing_since_s = None
        return line

    def _is_damage(self, error: OSError) -> bool:
        """Whether what comes next will never be read; then it is passed over."""
        now_s = time.monotonic()
        if self._failing_since_s is None:
            self._failing_since_s = now_s
        if error.errno != errno.EIO or now_s - self._failing_since_s < UNREADABLE_S:
            return False
        if not self._is_torn:
            self._is_torn = True
            self._seen += 1
            self._skip(1)
        self.offset += BLOCK_BYTES - self.offset % BLOCK_BYTES
        return True

    def _end(self, lines: int | None, size_bytes: int) -> None:
        if lines is None:
            lines = self._seen + (self.offset < size_bytes or not self._is_begun)
        self._skip(max(0, lines - self._seen))
        self._seen = max(self._seen, lines)
        self._is_begun = True


def _is_record(line: bytes) -> bool:
    try:
        return line.endswith(b"}\n") and isinstance(orjson.loads(line), dict)
    except orjson.JSONDecodeError:
        return False


def _line_start(file: BinaryIO, offset: int) -> int:
    """``offset``, but 0 where no line begins there: rather twice than never."""
    if offset:
        file.seek(offset - 1)
        if file.read(1) != b"\n":
            return 0
    return offset
