# SPDX-License-Identifier: Apache-2.0
"""ringbuf_retention.py: no event is released that a record still needs, and none is kept for ever."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.harness.ring_memory import RingProducer
from tracer.capture.ringbuf import Ring
from tracer.capture.ringbuf_retention import RetainedRing, Retention, release_all


@pytest.fixture
def kernel() -> Iterator[RingProducer]:
    made = RingProducer()
    yield made
    os.close(made.descriptor)


def test_held_until_released() -> None:
    """An event stays while a stage has it, however far was read."""
    retention = Retention()
    first, second = retention.issue(100), retention.issue(160)
    second.release()
    assert retention.first_needed(200, 0) == 100
    first.release()
    assert retention.first_needed(200, 0) == 200


def test_held_until_acknowledged() -> None:
    """A kill's event is released when its line is acknowledged, not when it is written."""
    retention = Retention()
    retention.issue(100).release_after(4)
    assert retention.awaits_outputs(3)
    assert retention.first_needed(200, 3) == 100
    assert not retention.awaits_outputs(4)
    assert retention.first_needed(200, 4) == 200


def test_group() -> None:
    """An event that several records need stays until all of them are acknowledged, whichever is excluded."""
    retention = Retention()
    token = retention.issue(100)
    token.add_holders(2)
    token.release_after(1)
    token.release()
    assert retention.first_needed(200, 9) == 100, "the third record is yet to be written"
    token.release_after(3)
    assert retention.first_needed(200, 2) == 100
    assert retention.first_needed(200, 3) == 200


def test_later_events_wait_for_earlier_ones() -> None:
    """An exit waits for its runtime's verdict, while later kills come and go."""
    retention = Retention()
    gone, kill, other = map(retention.issue, (50, 120, 150))
    kill.release_after(1)
    other.release_after(2)
    assert retention.first_needed(200, 2) == 50
    gone.release_after(3)
    assert retention.first_needed(200, 2) == 50
    assert retention.first_needed(200, 3) == 200


def test_an_output_that_is_stuck() -> None:
    """What had to be released is not waited for, and its tokens do not accumulate."""
    retention = Retention()
    for number in range(1000):
        retention.issue(100 * number).release_after(number + 1)
        retention.expire(100 * number - 250)
        assert len(retention._tokens) <= 4
    assert retention.awaits_outputs(0)
    assert retention.first_needed(10**6, 0) == 99_700
    retention.expire(10**6)
    assert not retention.awaits_outputs(0)
    assert retention.first_needed(10**6, 0) == 10**6


def test_covered() -> None:
    """A ring buffer is released from its beginning: the first event of an incident keeps the later ones."""
    first, other = Retention(), Retention()
    token = first.issue(100)
    assert first.issue(200).is_covered_by(token)
    assert not token.is_covered_by(first.issue(300))
    assert not other.issue(400).is_covered_by(token)


def test_precedes_run() -> None:
    """Events that were there when this run began may have been written by an earlier one."""
    retention = Retention(end_at_start=100)
    assert [retention.issue(position).precedes_run for position in (0, 96, 104)] == [True, True, False]


def test_ring(kernel: RingProducer) -> None:
    """The kernel gets the room back of what is acknowledged, once the ledger is saved."""
    for number in range(3):
        kernel.write(bytes([number]))
    retained = RetainedRing(Ring(kernel.descriptor, kernel.size))
    tokens = [token for _, token in retained.read()]
    for line, token in enumerate(tokens, 1):
        token.release_after(line)
    retained.release(2, is_saved=False)
    assert kernel.consumer[0] == 0
    retained.release(2)
    assert kernel.consumer[0] == tokens[2].position
    retained.release(3)
    assert kernel.consumer[0] == kernel.producer[0]


def test_ring_older_half(kernel: RingProducer) -> None:
    """What no output acknowledges takes half of the ring buffer at most."""
    retained = RetainedRing(Ring(kernel.descriptor, kernel.size))
    for line in range(1, 200):
        kernel.write(bytes(120))
        for _, token in retained.read():
            token.release_after(line)
        retained.release(0, is_saved=False)
        assert kernel.producer[0] - kernel.consumer[0] <= kernel.size // 2


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 3), st.booleans()), max_size=60))
def test_first_needed(steps: list[tuple[int, int, bool]]) -> None:
    """The smallest position of all events that are not released, however many records need each."""
    retention = Retention()
    acknowledged = lines = 0
    needed: list[tuple[int, int]] = []
    for number, (holders, acknowledge, is_excluded) in enumerate(steps):
        token = retention.issue(number)
        token.add_holders(holders - 1)
        if is_excluded:
            release_all([token] * holders)
        else:
            for _ in range(holders):
                lines += 1
                token.release_after(lines)
            needed.append((lines, number))
        acknowledged = min(lines, acknowledged + acknowledge)
        waiting = [position for line, position in needed if line > acknowledged]
        assert retention.first_needed(1000, acknowledged) == min([1000, *waiting])
        assert retention.awaits_outputs(acknowledged) == bool(waiting)
