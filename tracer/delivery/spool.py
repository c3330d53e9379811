# SPDX-License-Identifier: Apache-2.0
"""Undelivered lines of an output on disk, in order, for this run or a later one.

    STATE/file-2f0c1d9ab7e35864/     mode 0700, one per output
        uri                          the output's URI, without secrets
        0000000000000007.ndjson      segments: lines as they were appended; the oldest segment is delivered first
        rejected.ndjson              lines that the server will never accept, for inspection
        cursor                       segment number, offset, checksum; everything before it was delivered

The spool survives the end of the process by any signal: a line is in the page cache when ``append`` returns, and the
cursor moves with every delivered line.  Against a crash of the machine, a segment is synced (fsync(2)) once it is
complete, and the last one by ``close``.  Lines are not synced one by one: that would take milliseconds each, and a
crash of the machine loses the ring buffer as well.

tracer/delivery/spool_segment.py reads a segment.  A missing segment counts as many lost lines as this run wrote to it,
or as one if an earlier run wrote it, because then their number is unknown.
"""

import os
import re
from binascii import crc32
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import BinaryIO

from tracer.base.errors import TracerError
from tracer.delivery import spool_dir
from tracer.delivery.spool_segment import FLAGS, LINE_MAX_BYTES, SegmentGoneError, SegmentReader, open_segment

MAX_BYTES = 64 << 20
SEGMENT_BYTES = 1 << 20
REJECTED_MAX_BYTES = 1 << 20
RECENT_SEGMENTS = 4

_CURSOR_BYTES = 64


class Spool:
    """Undelivered lines of one output, in a directory of its own below ``state_dir``.  Not thread-safe.

    Raises TracerError if its directory cannot be used.
    """

    def __init__(self, state_dir: str, uri: str, max_bytes: int = MAX_BYTES) -> None:
        self.damaged = 0
        """Number of damaged lines, missing lines, and missing segments."""
        self._max_bytes = max_bytes
        self.path, self._directory = spool_dir.open_spool_dir(state_dir, uri)
        self._sizes: dict[int, int] = {}
        self._counts: dict[int, int] = {}
        """Number of lines that this run has appended to each segment."""
        self._segments: deque[int] = deque()
        self._next = 1
        self._appending: int | None = None
        """Descriptor of the last segment."""
        self._complete: list[int] = []
        """Descriptors of segments that wait to be synced."""
        self._cursor: int | None = None
        """Descriptor of the cursor."""
        self._delivered_bytes = 0
        """Offset up to which the first segment was delivered."""
        self._reader: SegmentReader | None = None
        """Reader of the first segment."""
        self._pending_advance = 0
        """Number of the oldest lines that were delivered and not yet passed over."""
        try:
            self._load()
        except OSError as error:
            os.close(self._directory)
            raise TracerError(f"cannot read {self.path} ({error.strerror})", "try again later") from error

    @property
    def is_empty(self) -> bool:
        return not self._segments

    @property
    def size_bytes(self) -> int:
        """Size of all segments, delivered lines included."""
        return sum(list(self._sizes.values()))

    def append(self, line: bytes) -> bool:
        """Append a line; return False, and write nothing, if the spool or the disk is full."""
        if self.size_bytes + len(line) > self._max_bytes:
            return False
        try:
            descriptor = self._last_segment()
            if not os.fstat(descriptor).st_nlink:  # the file was removed
                self._end_segment()
                descriptor = self._last_segment()
            written = 0
            while written < len(line):
                written += os.write(descriptor, line[written:])
        except OSError:
            self._undo_append()
            return False
        self._sizes[self._segments[-1]] += len(line)
        self._counts[self._segments[-1]] += 1
        return True

    def peek(self, count: int) -> list[bytes]:
        """The oldest lines, ``count`` at most; an empty list if the spool is empty.

        Raises OSError if they cannot be read now.
        """
        self._advance_now()
        return self._first(count)

    def advance(self, count: int) -> None:
        """The oldest ``count`` lines were delivered."""
        self._pending_advance += count
        with suppress(OSError):  # the next peek() tries again
            self._advance_now()

    def _advance_now(self) -> None:
        while self._pending_advance > 0 and self._first(1):
            assert self._reader is not None
            _, self._delivered_bytes = self._reader.ahead.popleft()
            self._pending_advance -= 1
            if not self._pending_advance or not self._reader.ahead:
                self._write_cursor(self._segments[0])
        self._pending_advance = 0

    def _first(self, count: int) -> list[bytes]:
        while self._segments:
            number = self._segments[0]
            if self._reader is None:
                self._reader = SegmentReader(partial(self._open, number), self._count_damaged, self._delivered_bytes)
            self._reader.read(count, self._counts.get(number), self._sizes.get(number, 0))
            if self._reader.ahead:
                return [line for line, _ in islice(self._reader.ahead, count)]
            self._drop_first()
        return []

    def set_aside(self, line: bytes) -> bool:
        """Store a rejected line; return False if there is no room."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | FLAGS
        try:
            descriptor = os.open("rejected.ndjson", flags, 0o600, dir_fd=self._directory)
            with open(descriptor, "ab", buffering=0) as file:
                has_room = os.fstat(descriptor).st_size + len(line) <= REJECTED_MAX_BYTES
                return has_room and file.write(line) == len(line)
        except OSError:
            return False

    def recent(self) -> Iterator[bytes]:
        """The lines of the last RECENT_SEGMENTS segments, as they are on disk."""
        for number in list(self._segments)[-RECENT_SEGMENTS:]:
            with suppress(OSError, SegmentGoneError), self._open(number) as file:
                yield from iter(lambda file=file: file.readline(LINE_MAX_BYTES), b"")  # type: ignore[misc]

    def take_complete(self) -> list[int]:
        """Descriptors of complete segments and of their directory, for ``sync``."""
        complete, self._complete = self._complete, []
        return [*complete, os.dup(self._directory)] if complete else []

    def close(self) -> None:
        self._close_reader()
        self._end_segment()
        sync(self.take_complete())
        if self._cursor is not None:
            os.close(self._cursor)
        os.close(self._directory)

    def _load(self) -> None:
        """Find the segments of an earlier run.  New lines begin a new segment, because the last line may be torn."""
        names = [re.fullmatch(r"(\d{16,18})\.ndjson", name) for name in os.listdir(self._directory)]
        numbers = sorted(int(match[1]) for match in names if match)
        first, offset = self._read_cursor()
        if not numbers or first > numbers[-1] + 1:
            first, offset = 0, 0
        for number in numbers:
            if number < first:
                self._unlink(_name(number))  # it was delivered, and the earlier run ended before removing it
            else:
                self._segments.append(number)
                with suppress(OSError):
                    self._sizes[number] = os.stat(_name(number), dir_fd=self._directory, follow_symlinks=False).st_size
        if self._segments:
            before = [first - 1 if first else self._segments[0] - 1, *self._segments]
            self.damaged += sum(number + 1 != after for number, after in zip(before, self._segments, strict=False))
            self._delivered_bytes = offset if self._segments[0] == first else 0
        self._next = max(first, numbers[-1] + 1 if numbers else 1)

    def _open(self, number: int) -> BinaryIO:
        return open_segment(_name(number), self._directory, SEGMENT_BYTES)

    def _count_damaged(self, lines: int) -> None:
        self.damaged += lines

    def _last_segment(self) -> int:
        """Descriptor of the segment to append to, created if necessary.

        Raises OSError.
        """
        if self._appending is not None and self._sizes[self._segments[-1]] >= SEGMENT_BYTES:
            self._end_segment()
        if self._appending is None:
            if self._cursor is None:  # creating it may have failed on a full disk
                self._write_cursor(self._segments[0] if self._segments else self._next)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | FLAGS
            self._appending = os.open(_name(self._next), flags, 0o600, dir_fd=self._directory)
            self._segments.append(self._next)
            self._sizes[self._next] = self._counts[self._next] = 0
            self._next += 1
        return self._appending

    def _end_segment(self) -> None:
        if self._appending is not None:
            self._complete.append(self._appending)
            self._appending = None

    def _undo_append(self) -> None:
        """Remove the part of a line whose end could not be written."""
        if self._appending is None:
            self._next += 1  # the name may be in use
            return
        try:
            os.ftruncate(self._appending, self._sizes[self._segments[-1]])
        except OSError:
            self._end_segment()

    def _drop_first(self) -> None:
        """Remove the delivered first segment; the cursor moves first, so a segment that is missing is noticed."""
        number = self._segments.popleft()
        if not self._segments:
            self._end_segment()
        self._delivered_bytes = 0
        self._write_cursor(number + 1)
        self._unlink(_name(number))
        self._sizes.pop(number, None)
        self._counts.pop(number, None)
        self._close_reader()
        self._reader = None
        if not self._segments:
            self._complete, obsolete = [], self._complete
            for descriptor in obsolete + ([] if self._cursor is None else [self._cursor]):
                os.close(descriptor)
            self._cursor = None
            self._unlink("cursor")

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()

    def _unlink(self, name: str) -> None:
        with suppress(OSError):
            os.unlink(name, dir_fd=self._directory)

    def _write_cursor(self, number: int) -> None:
        """Write the cursor.  If that fails, lines are delivered again after a restart."""
        place = b"%d %d" % (number, self._delivered_bytes)
        with suppress(OSError):
            if self._cursor is None:
                self._cursor = os.open("cursor", os.O_WRONLY | os.O_CREAT | FLAGS, 0o600, dir_fd=self._directory)
            os.pwrite(self._cursor, (b"%s %08x" % (place, crc32(place))).ljust(_CURSOR_BYTES - 1) + b"\n", 0)

    def _read_cursor(self) -> tuple[int, int]:
        """Segment number and offset; zeros if the cursor is missing or invalid."""
        try:
            descriptor = os.open("cursor", os.O_RDONLY | FLAGS, dir_fd=self._directory)
            with open(descriptor, "rb") as file:
                data = file.read(_CURSOR_BYTES)
        except OSError:
            return 0, 0
        match = re.fullmatch(rb"((\d{1,16}) (\d{1,16})) ([0-9a-f]{8}) *\n", data)
        if match is None or int(match[4], 16) != crc32(match[1]):
            self._unlink("cursor")
            return 0, 0
        return int(match[2]), int(match[3])


def sync(descriptors: Iterable[int]) -> None:
    """Sync files to disk, which may take long, and close their descriptors."""
    for descriptor in descriptors:
        with suppress(OSError):
            os.fsync(descriptor)
        os.close(descriptor)


def _name(number: int) -> str:
    return f"{number:016d}.ndjson"
