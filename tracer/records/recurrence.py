# SPDX-License-Identifier: Apache-2.0
"""Classifies the times of a workload's kills: a leak, a burst, or neither.

A leak fills the limit repeatedly in about the same time: a saw-tooth.  A burst, many kills in a row and then none, is
load, or a limit that is too low for the start.  Kills without a pattern have intervals of all lengths.
"""

from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from typing import Literal, NamedTuple

KILLS_MIN = 5
"""Minimum number of kills for a pattern.  With random intervals 3 % of such series look regular."""
NEAR_MEDIAN_SHARE = 0.25
"""An interval is near the median if it differs from it by at most this share of it."""
SAW_TOOTH_SHARE = 0.8
"""Minimum share of intervals near the median for a saw-tooth: one missed kill, or a night without load, does not hide
it."""
SAW_TOOTH_MIN_S = 10.0
"""Minimum median interval of a saw-tooth: faster kills are several processes of the same load."""
BURST_INTERVAL_S = 60.0
"""Kills with at most this interval are in the same burst."""

Pattern = Literal["too few", "saw-tooth", "burst", "irregular"]


class Regularity(NamedTuple):
    """Statistics of the intervals between the incidents of one workload."""

    pattern: Pattern
    incidents: int
    median_s: float | None
    shortest_s: float | None
    longest_s: float | None
    near_median: int
    """Number of intervals near the median."""
    bursts: int
    """Number of bursts: three or more incidents, each soon after the one before."""
    largest_burst: int
    """Number of incidents in the largest burst; 0: there is none."""


def assess_regularity(times_s: Sequence[float]) -> Regularity:
    """Classify incidents by their times: seconds of any clock, in any order, one per incident."""
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
    """Lengths of the rows of incidents with intervals of at most ``soon_s``."""
    rows = [1]
    for interval in intervals:
        if interval <= soon_s:
            rows[-1] += 1
        else:
            rows.append(1)
    return rows
