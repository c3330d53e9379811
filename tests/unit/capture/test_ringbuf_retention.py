# SPDX-License-Identifier: Apache-2.0
"""ringbuf_retention.py: nothing is let go of that is still needed, and nothing is kept for ever."""

from hypothesis import given
from hypothesis import strategies as st

from tracer.capture.ringbuf_retention import Backlog


def test_an_open_incident_stays() -> None:
    """Until an incident is told, it is needed from its first event on."""
    backlog = Backlog()
    backlog.read(7, 100)
    backlog.read(7, 160)
    assert backlog.first_needed(200, incident_is_open=True) == 100
    assert backlog.first_needed(200, incident_is_open=False) == 200


def test_the_incident_before() -> None:
    """An incident whose end was lost is told when the next one begins."""
    backlog = Backlog()
    backlog.read(6, 50)
    backlog.read(7, 100)
    backlog.read(8, 160)
    assert [backlog.incident(incident_ns) for incident_ns in (6, 7, 8)] == [None, 100, 160]
    assert backlog.first_needed(200, incident_is_open=True) == 160


def test_a_line_stays_until_it_is_taken() -> None:
    """A kill's events go when its line was taken, not when it was written."""
    backlog = Backlog()
    backlog.read(7, 100)
    backlog.written(3, backlog.incident(7))
    assert backlog.waits()
    backlog.settled(3)
    assert backlog.first_needed(200, incident_is_open=False) == 100
    backlog.settled(4)
    assert not backlog.waits()
    assert backlog.first_needed(200, incident_is_open=False) == 200


def test_an_output_that_is_stuck() -> None:
    """What had to be let go of is not waited for, nor does it pile up."""
    backlog = Backlog()
    for number in range(1000):
        backlog.written(number, 100 * number)
        backlog.released(100 * number - 250)
        assert len(backlog._lines) <= 4
    assert backlog.first_needed(10**6, incident_is_open=False) == 99_700
    backlog.released(10**6)
    assert not backlog.waits()


def test_an_exit_stays() -> None:
    """An exit waits for its runtime's word, while later kills come and go."""
    backlog = Backlog()
    backlog.read_exit("a", 50)
    backlog.read_exit("b", 80)
    backlog.written(0, 120)
    backlog.settled(1)
    assert backlog.first_needed(200, incident_is_open=False) == 50
    backlog.written(1, backlog.take_exit("a"))
    assert backlog.first_needed(200, incident_is_open=False) == 50
    backlog.settled(2)
    assert backlog.first_needed(200, incident_is_open=False) == 80
    backlog.written(2, backlog.take_exit("b"))
    backlog.settled(3)
    assert backlog.first_needed(200, incident_is_open=False) == 200


def test_what_is_not_known_holds_nothing() -> None:
    """Lines that come from no event, and exits that were never read."""
    backlog = Backlog()
    backlog.written(0, None)
    backlog.written(1, backlog.take_exit("c"))
    backlog.written(2, backlog.incident(1))
    assert not backlog.waits()


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 3)), max_size=60))
def test_first_needed(steps: list[tuple[int, int]]) -> None:
    """The smallest position of all lines that were not taken."""
    backlog = Backlog()
    taken = 0
    for number, (position, take) in enumerate(steps):
        backlog.written(number, position)
        taken = min(number + 1, taken + take)
        backlog.settled(taken)
        waiting = [position for position, _ in steps[taken : number + 1]]
        assert min([1000, *waiting]) == backlog.first_needed(1000, incident_is_open=False)
