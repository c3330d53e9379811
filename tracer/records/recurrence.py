# SPDX-License-Identifier: Apache-2.0
"""When something was killed -> whether that looks like a leak, like a burst, or like neither.

A leak fills the limit in about the same time again and again: a saw-tooth.  A burst is load, or a limit that is too low
for the start: many kills in a row, then silence.  Kills without any pattern come in intervals of all lengths.
"""

from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from typing import Literal, NamedTuple

KILLS_MIN = 5
"""Kills; of fewer nothing can be said.  of intervals without a pattern three series in a hundred look regular."""
NEAR_MEDIAN_SHARE = 0.25
"""An interval is like the others if it differs from the median by at most this part."""
SAW_TOOTH_SHARE = 0.8
"""So many of them must be, for a saw-tooth: one kill that nobody saw, or a night without load, does not hide it."""
SAW_TOOTH_MIN_S = 10.0
"""Nothing starts, leaks and dies faster; what seems to is several processes of the same load."""
BURST_INTERVAL_S = 60.0
"""Kills that follow each other this quickly belong together."""

Pattern = Literal["too few", "saw-tooth", "burst", "irregular"]


class Regularity(NamedTuple):
    """Of the intervals between the kills of one workload."""

    pattern: Pattern
    incidents: int
    median_s: float | None
    shortest_s: float | None
    longest_s: float | None
    near_median: int
    """Intervals within NEAR of the median."""
    bursts: int
    """Rows of three moments or more, each soon after the one before."""
    largest_burst: int
    """Moments in the largest of them; 0: there is none."""


def assess_regularity(times_s: Sequence[float]) -> Regularity:
    """Judge moments in any order, seconds of any clock; victims of one incident are one moment."""
    times = sorted(times_s)
    intervals = [later - earlier for earlier, later in pairwise(times)]
    if not intervals:
        return Regularity("too few", len(times), None, None, None, 0, 0, 0)
    middle = median(intervals)
    near = sum(abs(interval - middle) <= NEAR_MEDIAN_SHARE * middle for interval in intervals)
    soon_s = max(BURST_INTERVAL_S, (times[-1] - times[0]) / len(intervals) / 10)
    rows = [row for row in _rows(intervals, soon_s) if row >= 3]
    in_rows = sum(row - 1 for row in rows)
    pattern: Pattern = "irregular"
    if len(times) < KILLS_MIN:
        pattern = "too few"
    elif middle >= SAW_TOOTH_MIN_S and near >= SAW_TOOTH_SHARE * len(intervals):
        pattern = "saw-tooth"
    elif in_rows > len(intervals) / 2:
        pattern = "burst"
    return Regularity(
        pattern, len(times), middle, min(intervals), max(intervals), near, len(rows), max(rows, default=0)
    )


def _rows(intervals: Sequence[float], soon_s: float) -> list[int]:
    """Lengths of the rows of moments that follow each other soon."""
    rows = [1]
    for interval in intervals:
        if interval <= soon_s:
            rows[-1] += 1
        else:
            rows.append(1)
    return rows
