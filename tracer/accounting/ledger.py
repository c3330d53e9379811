# SPDX-License-Identifier: Apache-2.0
"""The ledger: which kills of this boot have a record, written by any run of oomtrace.

The kernel's count is compared with it (tracer/accounting/audit.py), and so are the kills in the kernel log.
It is kept in a file that is valid after a SIGKILL at any moment: entries are written first, then a header that counts
them.  There are two headers, written in turn; the newest one with a valid checksum counts.
"""

import contextlib
import os
import struct
from binascii import crc32
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from tracer.base.hung_disk import OPEN_TIMEOUT_S, call_with_timeout
from tracer.base.log import warn

ENTRIES_MAX = 16384
"""The latest kills; older ones are only counted.  The ring buffers hold fewer (bpf/brief.h)."""
_MAGIC, _OLD_MAGIC = b"oomled2\n", b"oomled1\n"
_OLD_ENTRIES_MAX = 4096
"""Of the first version's file."""
_HEADER = struct.Struct("=8s16sQQQQQQ")
_CRC = struct.Struct("=I")
_HEADER_STEP = 128
_ENTRY = struct.Struct("=QI4x")
_ENTRIES_AT = 2 * _HEADER_STEP


class LedgerEntry(NamedTuple):
    killed_ns: int
    """CLOCK_BOOTTIME."""
    tid: int
    """The thread that the kernel named: the kernel log has no other id."""


class _LedgerHeader(NamedTuple):
    magic: bytes
    boot_id: bytes
    generation: int
    explained: int
    """The kernel's count when last all of it was explained by records or gaps."""
    since_ns: int
    """The time of that, CLOCK_BOOTTIME."""
    first: int
    """Number of the first entry since then."""
    end: int
    """Number of entries in this boot."""
    groups: int
    """Group kills among the entries since then: the kernel may have counted the first victim of each twice."""


class Ledger:
    """Changes are on disk after ``save``; they are in memory only if ``path`` is None or the file cannot be written.

    In the second case ``error`` says why.
    """

    def __init__(self, path: str | None, boot_id: str | None) -> None:
        self.error: OSError | None = None
        self.is_new = True
        """The file has nothing of this boot."""
        self.is_damaged = False
        """The file had content without a valid header."""
        self._entries = bytearray(ENTRIES_MAX * _ENTRY.size)
        self._file: int | None = None
        boot = bytes.fromhex((boot_id or "").replace("-", "")).ljust(16, b"\0")[:16]
        self._header = self._saved = _LedgerHeader(_MAGIC, boot, 0, 0, 0, 0, 0, 0)
        """The header in memory, and the one on disk."""
        self._held: list[_LedgerHeader] = []
        """The header at the begin of each ``hold`` that was not released."""
        self._path = path
        if path is None:
            return
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o640)
            found = [header for place in (0, 1) if (header := self._read_header(place))]
            self.is_damaged = not found and os.fstat(self._file).st_size > 0
            of_this_boot = [header for header in found if header.boot_id == boot]
            if of_this_boot:
                self.is_new = False
                self._header = self._saved = max(of_this_boot, key=lambda header: header.generation)
            raw = os.pread(self._file, len(self._entries), _ENTRIES_AT)
        except OSError as error:
            self._fail(error)
            return
        self._entries[: len(raw)] = raw
        if self._header.magic == _OLD_MAGIC:
            self._convert(raw)
        with contextlib.suppress(OSError):  # the file needs no room when the disk is full later
            os.posix_fallocate(self._file, 0, _ENTRIES_AT + ENTRIES_MAX * _ENTRY.size)

    @property
    def explained(self) -> int:
        """The least that the kernel must have counted."""
        return self._header.explained + self.kills

    @property
    def groups(self) -> int:
        """How many more it may have counted: the first victims of group kills, which may count twice."""
        return self._header.groups

    @property
    def boot(self) -> str:
        """This boot's prefix in the ids of records."""
        return self._header.boot_id.hex()[:8]

    @property
    def kills(self) -> int:
        """Number of kills since all was explained."""
        return self._header.end - self._header.first

    @property
    def since_ns(self) -> int | None:
        """When last all was explained, CLOCK_BOOTTIME; None: never in this boot."""
        return self._header.since_ns or None

    def entries(self) -> Iterator[LedgerEntry]:
        """The latest kills."""
        for number in range(max(0, self._header.end - ENTRIES_MAX), self._header.end):
            yield LedgerEntry(*_ENTRY.unpack_from(self._entries, _place(number)))

    def note(self, killed_ns: int, tid: int, counts_twice: bool) -> None:
        """Add a kill that has or is about to get a record; its event stays in the ring buffer until it is saved."""
        header = self._header
        _ENTRY.pack_into(self._entries, _place(header.end), killed_ns, tid & 0xFFFFFFFF)  # a log may contain any number
        self._header = header._replace(end=header.end + 1, groups=header.groups + counts_twice)

    def mark_explained(self, counted: int, now_ns: int, later_kills: int = 0, later_groups: int = 0) -> None:
        """All that the kernel has ``counted`` until ``now_ns`` (CLOCK_BOOTTIME) has a record, or is in a gap record.

        ``later_kills``, ``later_groups``: how many of the noted kills and group kills are not part of ``counted``.
        """
        header = self._header
        first = header.end - later_kills
        self._header = header._replace(explained=counted, since_ns=now_ns, first=first, groups=later_groups)

    def hold(self) -> Callable[[], None]:
        """Keep later changes from the disk until the returned function is called: when they are acknowledged."""
        held = self._header
        self._held.append(held)
        return lambda: self._held.remove(held)

    @property
    def is_saved(self) -> bool:
        """Whether all changes are on disk, or cannot be saved."""
        return self._file is None or self._saved[3:] == self._header[3:]

    def save(self) -> None:
        """Write to disk what no ``hold`` keeps; one thread may save while another one notes."""
        header = self._held[0] if self._held else self._header
        if self._file is None or header[3:] == self._saved[3:]:
            return
        header = header._replace(generation=self._saved.generation + 1)
        try:
            for number in range(max(self._saved.end, header.end - ENTRIES_MAX), header.end):
                at = _place(number)
                os.pwrite(self._file, self._entries[at : at + _ENTRY.size], _ENTRIES_AT + at)
            raw = _HEADER.pack(*header)
            os.pwrite(self._file, raw + _CRC.pack(crc32(raw)), header.generation % 2 * _HEADER_STEP)
        except OSError as error:
            self._fail(error)
        self._saved = header

    def close(self) -> None:
        """Close the file; later changes are in memory only."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _convert(self, raw: bytes) -> None:
        """Convert the entries of the first version's file; the next ``save`` writes all of them."""
        first, size = max(0, self._header.end - _OLD_ENTRIES_MAX), _ENTRY.size
        self._entries = bytearray(ENTRIES_MAX * size)
        for number in range(first, self._header.end):
            at = number % _OLD_ENTRIES_MAX * size
            self._entries[_place(number) : _place(number) + size] = raw[at : at + size].ljust(size, b"\0")
        self._header = self._header._replace(magic=_MAGIC)
        self._saved = self._header._replace(end=0)

    def _read_header(self, place: int) -> _LedgerHeader | None:
        assert self._file is not None
        raw = os.pread(self._file, _HEADER.size + _CRC.size, place * _HEADER_STEP)
        if len(raw) < _HEADER.size + _CRC.size or _CRC.unpack_from(raw, _HEADER.size)[0] != crc32(raw[: _HEADER.size]):
            return None
        header = _LedgerHeader(*_HEADER.unpack_from(raw))
        return header if header.magic in (_MAGIC, _OLD_MAGIC) and header.first <= header.end else None

    def _fail(self, error: OSError) -> None:
        """Continue in memory; the file has too few kills then, and the next run reports a gap."""
        self.error = error
        self.close()
        warn(f"{self._path}: {error.strerror or error}; kills are counted in memory only")


def open_ledger(path: str | None, boot_id: str | None) -> Ledger:
    """The ledger; in memory only, with a warning, if its disk hangs."""
    try:
        return call_with_timeout(OPEN_TIMEOUT_S, partial(Ledger, path, boot_id))
    except TimeoutError as error:
        warn(f"{path}: {error.strerror}; kills are counted in memory only")
        return Ledger(None, boot_id)


def _place(number: int) -> int:
    return number % ENTRIES_MAX * _ENTRY.size
