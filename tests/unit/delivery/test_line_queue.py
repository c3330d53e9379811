# SPDX-License-Identifier: Apache-2.0
"""line_queue.py: which lines are acknowledged, for any sequence of lines taken, dropped and skipped."""

from hypothesis import given
from hypothesis import strategies as st

from tracer.delivery import line_queue
from tracer.delivery.line_queue import LineQueue

LINE = b"x" * (line_queue.MAX_BYTES // 8)


@given(st.lists(st.sampled_from(["put", "put", "skip", "acknowledge"]), max_size=100))
def test_settled(wanted: list[str]) -> None:
    """A line is acknowledged when it and all lines before it have left, or were dropped or skipped."""
    queue = LineQueue()
    waiting: list[bool] = []
    """For each line, whether it waits."""
    dropped = 0
    for what in wanted:
        if what == "put":
            has_room = sum(waiting) < 8
            assert queue.has_room(LINE) == has_room
            queue.put(LINE)
            waiting.append(has_room)
            dropped += not has_room
        elif what == "skip":
            queue.skip()
            waiting.append(False)
        elif any(waiting):
            queue.acknowledge()
            waiting[waiting.index(True)] = False
        assert queue.acknowledged == (waiting.index(True) if any(waiting) else len(waiting))
        assert queue.dropped == dropped
        assert bool(queue.first()) == any(waiting)
        assert queue.is_full == (sum(waiting) == 8)
        assert (queue.dropped_since_ns is None) == (dropped == 0)
    assert queue.lines == sum(waiting)


def test_batch() -> None:
    """The lines of a batch are consecutive."""
    queue = LineQueue()
    for line in (b"1", b"2", b"3"):
        queue.put(line)
    queue.skip()
    queue.put(b"4")
    assert queue.first(2) == [b"1", b"2"]
    assert queue.first(10) == [b"1", b"2", b"3"]
    queue.acknowledge(3)
    assert (queue.acknowledged, queue.first(10)) == (4, [b"4"])


def test_line_larger_than_the_queue() -> None:
    """A line that is too large is taken by an empty queue."""
    queue = LineQueue()
    queue.put(b"x" * (2 * line_queue.MAX_BYTES))
    queue.put(b"y")
    assert (queue.dropped, len(queue.first(2))) == (1, 1)
