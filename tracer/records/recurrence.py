# SPDX-License-Identifier: Apache-2.0
"""When something was killed -> whether that looks like a leak, like a burst, or like neither.

A leak fills the limit in about the same time again and again: a saw-tooth.  A burst is load, or a limit that is too low
for the start: many kills in a row, then silence.  Kills without any pattern come in intervals of all lengths.
"""

from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from typing import Literal, NamedTuple

LEAST = 5
"""Kills; of fewer nothing can be said.  of intervals without a pattern three series in a hundred look regular."""
NEAR = 0.25
"""An interval is like the others if it differs from the median by at most this part."""
MOST = 0.8
"""So many of them must be, for a saw-tooth: one kill that nobody saw, or a night without load, does not hide it."""
SHORTEST_TOOTH_S = 10.0
"""Nothing starts, leaks and dies faster; what seems to is several processes of the same load."""
BURST_S = 60.0
"""Kills that follow each other this quickly belong together."""

Verdict = Literal["too few", "saw-tooth", "burst", "irregular"]


class Regularity(NamedTuple):
    """Of the intervals between the kills of one workload."""

    verdict: Verdict
    incidents: int
    median_s: float | None
    shortest_s: float | None
    longest_s: float | None
    near: int
    """Intervals within NEAR of the median."""
    bursts: int
    """Rows of three moments or more, each soon after the one before."""
    largest_burst: int
    """Moments in the largest of them; 0: there is none."""


def regularity(times_s: Sequence[float]) -> Regularity:
    """Judge moments in any order, seconds of any clock; victims of one incident are one moment."""
    times = sorted(times_s)
    intervals = [later - earlier for earlier, later in pairwise(times)]
    if not intervals:
        return Regularity("too few", len(times), None, None, None, 0, 0, 0)
    middle = median(intervals)
    near = sum(abs(interval - middle) <= NEAR * middle for interval in intervals)
    soon_s = max(BURST_S, (times[-1] - times[0]) / len(intervals) / 10)
    rows = [row for row in _rows(intervals, soon_s) if row >= 3]
    in_rows = sum(row - 1 for row in rows)
    verdict: Verdict = "irregular"
    if len(times) < LEAST:
        verdict = "too few"
    elif middle >= SHORTEST_TOOTH_S and near >= MOST * len(intervals):
        verdict = "saw-tooth"
    elif in_rows > len(intervals) / 2:
        verdict = "burst"
    return Regularity(
        verdict, len(times), middle, min(intervals), max(intervals), near, len(rows), max(rows, default=0)
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
