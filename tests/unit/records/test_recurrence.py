# SPDX-License-Identifier: Apache-2.0
"""recurrence.py: series of known patterns, and how often random series look like one."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.records.recurrence import KILLS_MIN, assess_regularity

HOUR_S = 3600.0


def series(intervals: list[float]) -> list[float]:
    times = [1.8e9]
    for interval in intervals:
        times.append(times[-1] + interval)
    return times


@pytest.mark.parametrize("kills", [5, 6, 8, 13, 50])
def test_chance(kills: int) -> None:
    """Random kills: of 2,000 series at most 3 % look like a leak, 1 % like bursts."""
    chance = random.Random(kills)
    found = [
        assess_regularity(series([chance.expovariate(1 / HOUR_S) for _ in range(kills - 1)])).pattern
        for _ in range(2000)
    ]
    assert found.count("saw-tooth") <= 60
    assert found.count("burst") <= 20
    assert found.count("irregular") >= 1900


@pytest.mark.parametrize("kills", [6, 8, 13, 50])
@pytest.mark.parametrize("tooth_s", [30.0, HOUR_S, 30 * HOUR_S])
def test_leak(kills: int, tooth_s: float) -> None:
    """A leak under load that varies by an eighth is recognized at least 9 times of 10."""
    chance = random.Random(kills)
    found = [
        assess_regularity(series([max(1, chance.gauss(tooth_s, tooth_s / 8)) for _ in range(kills - 1)])).pattern
        for _ in range(200)
    ]
    assert found.count("saw-tooth") >= 180


def test_leak_with_a_hole() -> None:
    """A night without load, or a missed kill, does not hide a leak."""
    found = assess_regularity(series([HOUR_S] * 7 + [9 * HOUR_S] + [HOUR_S] * 8))
    assert (found.pattern, found.incidents, found.near_median, found.median_s) == ("saw-tooth", 17, 15, HOUR_S)
    assert (found.shortest_s, found.longest_s) == (HOUR_S, 9 * HOUR_S)


def test_bursts() -> None:
    """The number of bursts, and of kills in the largest."""
    found = assess_regularity(series([2, 3, 2, 86400, 1, 1, 2, 5, 1, 90000, 4, 2]))
    assert (found.pattern, found.bursts, found.largest_burst) == ("burst", 3, 6)


def test_storm() -> None:
    """Kills too fast for a leak are a burst, however regular."""
    found = assess_regularity(series([0.05] * 42))
    assert (found.pattern, found.bursts, found.largest_burst) == ("burst", 1, 43)


def test_slow_bursts() -> None:
    """The interval within a burst is relative to the series: five kills in 20 minutes, once a week."""
    week = [120.0, 700.0, 60.0, 400.0, 7 * 86400.0]
    assert assess_regularity(series(week * 4)).pattern == "burst"


@pytest.mark.parametrize("kills", range(KILLS_MIN))
def test_too_few(kills: int) -> None:
    """Few kills have no pattern, however regular."""
    found = assess_regularity(series([HOUR_S] * (kills - 1)) if kills else [])
    assert (found.pattern, found.incidents) == ("too few", kills)
    assert found.median_s == (HOUR_S if kills > 1 else None)


@given(st.lists(st.floats(0, 4e9), max_size=40), st.randoms(use_true_random=False))
def test_any_times(times_s: list[float], shuffle: random.Random) -> None:
    """The order is irrelevant, nothing raises, and the numbers are consistent."""
    found = assess_regularity(times_s)
    shuffled = list(times_s)
    shuffle.shuffle(shuffled)
    assert assess_regularity(shuffled) == found
    assert found.incidents == len(times_s)
    assert (found.pattern == "too few") == (len(times_s) < KILLS_MIN)
    assert found.largest_burst <= found.incidents
    assert 0 <= found.near_median <= max(0, found.incidents - 1)
    if found.median_s is not None:
        assert found.shortest_s is not None
        assert found.longest_s is not None
        assert 0 <= found.shortest_s <= found.median_s <= found.longest_s
