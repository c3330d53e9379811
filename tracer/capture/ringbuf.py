# SPDX-License-Identifier: Apache-2.0
"""Reads a BPF ring buffer; events that were read stay in it until they are released.

The format is defined by kernel/bpf/ringbuf.c: a page with the consumer's position, written by this process; a page with
the producers' position; the data, a power of two of bytes.  Positions only grow; modulo the size they are offsets.  An
event is a header of 8 bytes (its length with two flags, and an offset for the kernel's use) and its bytes, rounded up
to 8.  The kernel overwrites nothing from the consumer's position on: the next reader reads unreleased events
again, even if this one is killed.

libbpf's reader releases each event before it reads the next one, and maps the data twice, so that an event that wraps
is contiguous; each page of the second mapping would count as memory of this process.
"""

import mmap
import threading

BUSY = 1 << 31
"""BPF_RINGBUF_BUSY_BIT: being written."""
DISCARD = 1 << 30
"""BPF_RINGBUF_DISCARD_BIT: discarded by its writer."""
HEADER_BYTES = 8
"""BPF_RINGBUF_HDR_SZ."""


class Ring:
    """The only reader of a ring buffer.

    ``position`` is where the next event to be read begins; at first, where the last reader has released everything.
    Raises OSError if the descriptor is not a ring buffer of this size.
    """

    def __init__(self, descriptor: int, size_bytes: int) -> None:
        page = mmap.PAGESIZE
        ours = mmap.mmap(descriptor, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        theirs = mmap.mmap(descriptor, page + size_bytes, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        # A memoryview loads and stores a native integer at once; struct does so byte by byte in some formats.
        self._consumer = memoryview(ours).cast("Q")
        self._producer = memoryview(theirs)[:page].cast("Q")
        self._data = memoryview(theirs)[page:]
        self._lengths = self._data.cast("I")
        self._mask = size_bytes - 1
        self._fence = threading.Lock()
        self._fence.acquire()
        self.size_bytes = size_bytes
        self.position = self._consumer[0]

    @property
    def end(self) -> int:
        """Where the next event will begin."""
        return self._producer[0]

    def read(self, most: int | None = None) -> list[tuple[int, bytes]]:
        """The complete events from ``position`` on, at most ``most``, each with the position at which it begins.

        An event that is still being written ends the list: the kernel keeps the order of reservation.
        """
        end = self._producer[0]
        self._order()
        at = self.position
        found: list[tuple[int, int]] = []
        while at < end and len(found) != most:
            length = self._lengths[(at & self._mask) >> 2]
            if length & BUSY:
                break
            size = length & ~DISCARD
            if size == length:
                found.append((at, size))
            at += (HEADER_BYTES + size + 7) & ~7
        self._order()
        events = [(start, self._copy(start + HEADER_BYTES, size)) for start, size in found]
        self.position = at
        return events

    def release(self, position: int) -> None:
        """Let the kernel overwrite everything before ``position``."""
        self._order()
        self._consumer[0] = max(position, self._consumer[0])

    def _copy(self, start: int, size: int) -> bytes:
        at = start & self._mask
        head = bytes(self._data[at : at + size])
        return head if len(head) == size else head + bytes(self._data[: size - len(head)])

    def _order(self) -> None:
        """A full memory barrier, which weakly ordered processors (arm64) need.

        Data must not be read before the position or length that covers it (smp_store_release() in the kernel), and the
        consumer's position must not be written before the data is read.  Releasing a lock orders all earlier accesses
        before it, taking it orders all later ones after it, and this lock is taken after its release.
        """
        self._fence.release()
        self._fence.acquire()
