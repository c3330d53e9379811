# SPDX-License-Identifier: Apache-2.0
"""Reads a BPF ring buffer, and keeps what was read in it until told that it may go.

The format is that of kernel/bpf/ringbuf.c: a page with the consumer's position, which is ours to write; a page with the
producers'; the data, a power of two of bytes.  Positions only grow; modulo the size they are places.  An event is a
header of 8 bytes (its length with two flags, and an offset that is the kernel's own) and its bytes, rounded up to 8.
The kernel overwrites nothing from the consumer's position on: what was not released is read once more by the next
reader, even if this one is killed.

libbpf's reader releases each event before the next one is read, and maps the data twice, so that an event that wraps
is in one piece; each page of it would count as memory of this process.
"""

import mmap
import threading

BUSY = 1 << 31
"""BPF_RINGBUF_BUSY_BIT: being written."""
DISCARD = 1 << 30
"""BPF_RINGBUF_DISCARD_BIT: taken back by who wrote it."""
HEADER_BYTES = 8
"""BPF_RINGBUF_HDR_SZ."""


class Ring:
    """The only reader of a ring buffer.

    ``position`` is where the next event to be read begins.  It starts where the last reader had released everything.
    Raises OSError where the descriptor is no ring buffer of this size.
    """

    def __init__(self, descriptor: int, size_bytes: int) -> None:
        page = mmap.PAGESIZE
        ours = mmap.mmap(descriptor, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        theirs = mmap.mmap(descriptor, page + size_bytes, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        # A memoryview loads and stores a native integer at once; struct would do that of some formats byte by byte.
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
        """All events from ``position`` on that are complete, or ``most``, each with the position at which it begins.

        One that is still being written ends them: the kernel keeps the order in which they were begun.
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
        """Everything before ``position`` is done with; the kernel may write there, and what went so is gone."""
        self._order()
        self._consumer[0] = max(position, self._consumer[0])

    def _copy(self, start: int, size: int) -> bytes:
        at = start & self._mask
        head = bytes(self._data[at : at + size])
        return head if len(head) == size else head + bytes(self._data[: size - len(head)])

    def _order(self) -> None:
        """Keep the processor from doing what comes later before what comes earlier, as arm64 would.

        A position or length that is read before what it stands for (smp_store_release() in the kernel) would be of no
        use otherwise, nor would a position that is written after it was read.  Letting go of a lock comes after all
        that was done before, taking it before all that is done then; and the lock is taken after it was let go.
        """
        self._fence.release()
        self._fence.acquire()
