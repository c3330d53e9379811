# SPDX-License-Identifier: Apache-2.0
"""A BPF ring buffer in a file, with the layout of kernel/bpf/ringbuf.c: consumer page, producer page, data."""

import mmap
import os

from tracer.capture import ringbuf

PAGE = mmap.PAGESIZE
SIZE = PAGE


class RingProducer:
    """The producer: bpf_ringbuf_reserve(), bpf_ringbuf_commit()."""

    def __init__(self, size: int = SIZE) -> None:
        self.size = size
        self.descriptor = os.memfd_create("ring")
        os.truncate(self.descriptor, 2 * PAGE + size)
        memory = mmap.mmap(self.descriptor, 2 * PAGE + size)
        self.consumer = memoryview(memory)[:PAGE].cast("Q")
        self.producer = memoryview(memory)[PAGE : 2 * PAGE].cast("Q")
        self.data = memoryview(memory)[2 * PAGE :]

    def reserve(self, data: bytes) -> int:
        """Position of an event that is not committed yet; there must be room for it."""
        at, taken = self.producer[0], (8 + len(data) + 7) // 8 * 8
        assert at + taken - self.consumer[0] <= self.size
        for offset, byte in enumerate(data):
            self.data[(at + 8 + offset) % self.size] = byte
        self.header(at, len(data) | ringbuf.BUSY)
        self.producer[0] = at + taken
        return at

    def header(self, at: int, length: int) -> None:
        self.data.cast("I")[at % self.size // 4] = length

    def write(self, data: bytes, flags: int = 0) -> int:
        at = self.reserve(data)
        self.header(at, len(data) | flags)
        return at
