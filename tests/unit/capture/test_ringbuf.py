# SPDX-License-Identifier: Apache-2.0
"""ringbuf.py: events are read once, in order, and stay until they are released."""

import os
from collections.abc import Callable, Iterator

import pytest

from tests.harness.ring_memory import PAGE, SIZE, RingProducer
from tracer.capture import ringbuf


@pytest.fixture
def kernel() -> Iterator[RingProducer]:
    made = RingProducer()
    yield made
    os.close(made.descriptor)


@pytest.fixture
def reader(kernel: RingProducer) -> Callable[[], ringbuf.Ring]:
    return lambda: ringbuf.Ring(kernel.descriptor, SIZE)


def test_events_in_order(kernel: RingProducer, reader: Callable[[], ringbuf.Ring]) -> None:
    """Each event is read once, with its position; lengths need not be multiples of 8."""
    read = reader()
    assert read.read() == []
    written = [(kernel.write(data), data) for data in (b"", b"a", b"12345678", b"123456789", bytes(range(256)))]
    assert read.read() == written
    assert read.read() == []
    assert read.position == kernel.producer[0]


def test_event_being_written(kernel: RingProducer, reader: Callable[[], ringbuf.Ring]) -> None:
    """An incomplete event holds back later ones."""
    read = reader()
    first, busy, last = kernel.write(b"first"), kernel.reserve(b"busy"), kernel.write(b"last")
    assert read.read() == [(first, b"first")]
    assert read.read() == []
    kernel.header(busy, len(b"busy"))
    assert read.read() == [(busy, b"busy"), (last, b"last")]


def test_discarded_event(kernel: RingProducer, reader: Callable[[], ringbuf.Ring]) -> None:
    """A discarded event is skipped, also as the last one."""
    read = reader()
    kernel.write(b"gone", ringbuf.DISCARD)
    kept = kernel.write(b"kept")
    kernel.write(b"gone as well", ringbuf.DISCARD)
    assert read.read() == [(kept, b"kept")]
    assert read.position == kernel.producer[0]


def test_wrap(kernel: RingProducer, reader: Callable[[], ringbuf.Ring]) -> None:
    """Events wrap at any offset; even one as long as the buffer is read completely."""
    read = reader()
    cut = set()
    for number in range(2000):
        data = bytes((number + offset) % 256 for offset in range(number * 7 % 1000))
        at = kernel.write(data)
        assert read.read() == [(at, data)]
        cut.add((at + 8) % SIZE + len(data) > SIZE)
        read.release(read.position)
    assert cut == {True, False}
    data = bytes(range(250)) * (SIZE // 250)
    at = kernel.write(data)
    assert read.read() == [(at, data)]


def test_release_of_what_is_gone(kernel: RingProducer, reader: Callable[[], ringbuf.Ring]) -> None:
    """The consumer's position never goes back, as the kernel may have overwritten released events."""
    kernel.write(b"a")
    second = kernel.write(b"b")
    read = reader()
    read.read()
    read.release(second)
    read.release(0)
    assert kernel.consumer[0] == second


def test_release(kernel: RingProducer, reader: Callable[[], ringbuf.Ring]) -> None:
    """The next reader gets exactly the unreleased events."""
    read = reader()
    kernel.write(b"done")
    undone = kernel.write(b"undone")
    read.read()
    assert (kernel.consumer[0], read.position) == (0, kernel.producer[0])
    read.release(undone)
    assert (kernel.consumer[0], read.position) == (undone, kernel.producer[0])
    assert reader().read() == [(undone, b"undone")]
    read.release(read.position)
    assert kernel.consumer[0] == kernel.producer[0]
    assert reader().read() == []


def test_positions_beyond_32_bits(kernel: RingProducer, reader: Callable[[], ringbuf.Ring]) -> None:
    """Positions beyond 32 bits work."""
    kernel.consumer[0] = kernel.producer[0] = (1 << 32) - 16
    read = reader()
    written = [(kernel.write(data), data) for data in (b"below", b"above", b"far above")]
    assert written[-1][0] > 1 << 32
    assert read.read() == written


def test_not_a_ring_buffer(kernel: RingProducer) -> None:
    """A map of another type or size is refused."""
    os.truncate(kernel.descriptor, PAGE)
    with pytest.raises((OSError, ValueError)):
        ringbuf.Ring(kernel.descriptor, SIZE)
