# SPDX-License-Identifier: Apache-2.0
"""Lines on disk that an output has not taken yet, in order, for this run or a later one.

    STATE/file-2f0c1d9ab7e35864/     mode 0700, one for each output
        uri                          whose it is, without what may be secret
        0000000000000007.ndjson      segments: lines, as they were put; the oldest is delivered first
        rejected.ndjson              what the other side will never take, for whoever looks into it
        cursor                       number of a segment, offset in it, checksum: what is before it was delivered

Everything here survives the end of the process by whatever signal: a line is in the page cache when ``append`` returns,
and the cursor moves with every line that is delivered.  Against the end of the machine a segment is synced (fsync(2))
once it is complete, and the last one by ``close``: syncing each line would cost milliseconds, and a crash of the
machine loses the ring buffer as well.

A segment is read by tracer/delivery/spool_segment.py.  One that is gone counts as many lines as it had; where an
earlier run wrote it that is not known, and it counts one.
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
    """Lines of one output below ``folder``; not for several threads at once.

    Raises TracerError where its folder cannot be used.
    """

    def __init__(self, folder: str, uri: str, max_bytes: int = MAX_BYTES) -> None:
        self.skipped = 0
        """Damaged lines, and lines and segments that are gone."""
        self._max_bytes = max_bytes
        self.path, self._folder = spool_dir.open_spool_dir(folder, uri)
        self._sizes: dict[int, int] = {}
        self._counts: dict[int, int] = {}
        """How many lines this run has put into each segment."""
        self._segments: deque[int] = deque()
        self._next = 1
        self._appending: int | None = None
        """Descriptor of the last segment."""
        self._complete: list[int] = []
        """Descriptors of segments that wait to be synced."""
        self._cursor: int | None = None
        self._delivered = 0
        """Up to this offset the first segment was delivered."""
        self._reader: SegmentReader | None = None
        """Of the first segment."""
        self._owed = 0
        """So many of the oldest lines were delivered, and are yet to be passed over."""
        try:
            self._find()
        except OSError as error:
            os.close(self._folder)
            raise TracerError(f"cannot read {self.path} ({error.strerror})", "try again later") from error

    @property
    def is_empty(self) -> bool:
        return not self._segments

    @property
    def size_bytes(self) -> int:
        """Of all segments, delivered lines included."""
        return sum(list(self._sizes.values()))

    def append(self, line: bytes) -> bool:
        """Keep a line; False, and nothing of it, where neither its share nor the disk has room."""
        if self.size_bytes + len(line) > self._max_bytes:
            return False
        try:
            descriptor = self._last_segment()
            if not os.fstat(descriptor).st_nlink:  # somebody has removed it
                self._end_segment()
                descriptor = self._last_segment()
            written = 0
            while written < len(line):
                written += os.write(descriptor, line[written:])
        except OSError:
            self._take_back()
            return False
        self._sizes[self._segments[-1]] += len(line)
        self._counts[self._segments[-1]] += 1
        return True

    def peek(self, count: int) -> list[bytes]:
        """The oldest lines, at most ``count``; none: it is empty.

        Raises OSError where they cannot be read now.
        """
        self._pass_over()
        return self._first(count)

    def advance(self, count: int) -> None:
        """So many of the oldest lines were delivered."""
        self._owed += count
        with suppress(OSError):  # then before the next ones are read
            self._pass_over()

    def _pass_over(self) -> None:
        while self._owed > 0 and self._first(1):
            assert self._reader is not None
            _, self._delivered = self._reader.ahead.popleft()
            self._owed -= 1
            if not self._owed or not self._reader.ahead:
                self._write_cursor(self._segments[0])
        self._owed = 0

    def _first(self, count: int) -> list[bytes]:
        while self._segments:
            number = self._segments[0]
            if self._reader is None:
                self._reader = SegmentReader(partial(self._open, number), self._skip, self._delivered)
            self._reader.read(count, self._counts.get(number), self._sizes.get(number, 0))
            if self._reader.ahead:
                return [line for line, _ in islice(self._reader.ahead, count)]
            self._drop_first()
        return []

    def set_aside(self, line: bytes) -> bool:
        """Keep a line that is never delivered; False where there is no room."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | FLAGS
        try:
            descriptor = os.open("rejected.ndjson", flags, 0o600, dir_fd=self._folder)
            with open(descriptor, "ab", buffering=0) as file:
                has_room = os.fstat(descriptor).st_size + len(line) <= REJECTED_MAX_BYTES
                return has_room and file.write(line) == len(line)
        except OSError:
            return False

    def recent(self) -> Iterator[bytes]:
        """The last lines that were kept, as they lie there: RECENT_SEGMENTS full of them."""
        for number in list(self._segments)[-RECENT_SEGMENTS:]:
            with suppress(OSError, SegmentGoneError), self._open(number) as file:
                yield from iter(lambda file=file: file.readline(LINE_MAX_BYTES), b"")  # type: ignore[misc]

    def take_complete(self) -> list[int]:
        """Descriptors of complete segments and of their folder, for ``sync``."""
        complete, self._complete = self._complete, []
        return [*complete, os.dup(self._folder)] if complete else []

    def close(self) -> None:
        self._close_reader()
        self._end_segment()
        sync(self.take_complete())
        if self._cursor is not None:
            os.close(self._cursor)
        os.close(self._folder)

    def _find(self) -> None:
        """What an earlier run has left.  A new segment is begun behind it: its last line may be torn."""
        names = [re.fullmatch(r"(\d{16,18})\.ndjson", name) for name in os.listdir(self._folder)]
        numbers = sorted(int(match[1]) for match in names if match)
        first, offset = self._read_cursor()
        if not numbers or first > numbers[-1] + 1:
            first, offset = 0, 0
        for number in numbers:
            if number < first:
                self._unlink(_name(number))  # it was delivered, and then there was no time to remove it
            else:
                self._segments.append(number)
                with suppress(OSError):
                    self._sizes[number] = os.stat(_name(number), dir_fd=self._folder, follow_symlinks=False).st_size
        if self._segments:
            before = [first - 1 if first else self._segments[0] - 1, *self._segments]
            self.skipped += sum(number + 1 != after for number, after in zip(before, self._segments, strict=False))
            self._delivered = offset if self._segments[0] == first else 0
        self._next = max(first, numbers[-1] + 1 if numbers else 1)

    def _open(self, number: int) -> BinaryIO:
        return open_segment(_name(number), self._folder, SEGMENT_BYTES)

    def _skip(self, lines: int) -> None:
        self.skipped += lines

    def _last_segment(self) -> int:
        """The descriptor of the segment that is written to, begun if need be.

        Raises OSError.
        """
        if self._appending is not None and self._sizes[self._segments[-1]] >= SEGMENT_BYTES:
            self._end_segment()
        if self._appending is None:
            if self._cursor is None:  # now there may be room for it
                self._write_cursor(self._segments[0] if self._segments else self._next)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | FLAGS
            self._appending = os.open(_name(self._next), flags, 0o600, dir_fd=self._folder)
            self._segments.append(self._next)
            self._sizes[self._next] = self._counts[self._next] = 0
            self._next += 1
        return self._appending

    def _end_segment(self) -> None:
        if self._appending is not None:
            self._complete.append(self._appending)
            self._appending = None

    def _take_back(self) -> None:
        """Leave no part of a line that could not be written to its end."""
        if self._appending is None:
            self._next += 1  # whatever has that name
            return
        try:
            os.ftruncate(self._appending, self._sizes[self._segments[-1]])
        except OSError:
            self._end_segment()

    def _drop_first(self) -> None:
        """The first segment was delivered: the cursor moves on before it goes, so that a missing one is known."""
        number = self._segments.popleft()
        if not self._segments:
            self._end_segment()
        self._delivered = 0
        self._write_cursor(number + 1)
        self._unlink(_name(number))
        self._sizes.pop(number, None)
        self._counts.pop(number, None)
        self._close_reader()
        self._reader = None
        if not self._segments:
            self._complete, gone = [], self._complete
            for descriptor in gone + ([] if self._cursor is None else [self._cursor]):
                os.close(descriptor)
            self._cursor = None
            self._unlink("cursor")

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()

    def _unlink(self, name: str) -> None:
        with suppress(OSError):
            os.unlink(name, dir_fd=self._folder)

    def _write_cursor(self, number: int) -> None:
        """Where that fails, lines are delivered again after a restart."""
        place = b"%d %d" % (number, self._delivered)
        with suppress(OSError):
            if self._cursor is None:
                self._cursor = os.open("cursor", os.O_WRONLY | os.O_CREAT | FLAGS, 0o600, dir_fd=self._folder)
            os.pwrite(self._cursor, (b"%s %08x" % (place, crc32(place))).ljust(_CURSOR_BYTES - 1) + b"\n", 0)

    def _read_cursor(self) -> tuple[int, int]:
        """Number of a segment and offset in it; zeros where there is no cursor, or what is there makes no sense."""
        try:
            descriptor = os.open("cursor", os.O_RDONLY | FLAGS, dir_fd=self._folder)
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
    """Bring what they are of onto the disk, which may take long, and close them."""
    for descriptor in descriptors:
        with suppress(OSError):
            os.fsync(descriptor)
        os.close(descriptor)


def _name(number: int) -> str:
    return f"{number:016d}.ndjson"
