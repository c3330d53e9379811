# SPDX-License-Identifier: Apache-2.0
"""How often somebody was OOM killed, and how regularly."""

from collections.abc import Iterable
from itertools import pairwise
from statistics import median
from typing import TypedDict

from tracer.event import OomKill
from tracer.why.moment import seconds

DAY_S = 86400.0
_REGULAR_MIN = 3
"""Pauses; fewer show no rule."""
_SHORTEST_PAUSE_S = 10.0
"""What comes sooner is a burst: nothing that leaks fills a limit so fast, again and again."""
_SPREAD_MAX = 0.25
"""How far the pauses of a regular one are from their median, themselves by the median."""


class History(TypedDict):
    """OOM kills; several victims of one run of the OOM killer are one."""

    total: int
    last_day: int
    """In the 24 hours before now."""
    first: str | None
    last: str | None
    pause_s: float | None
    """The median time from one to the next."""
    regular: bool
    """Whether they come as a clock does: something fills the limit at an even pace, and again."""


def history(kills: Iterable[OomKill], now_s: float) -> History:
    first_of: dict[tuple[str | None, str], OomKill] = {}
    for kill in kills:
        first_of.setdefault((kill["host"]["name"], kill["incident"]["id"]), kill)
    times = sorted(kill["time"] for kill in first_of.values() if seconds(kill["time"]) is not None and kill["time"])
    moments = [at for at in map(seconds, times) if at is not None]
    pauses = [later - earlier for earlier, later in pairwise(moments)]
    pause_s = median(pauses) if pauses else None
    return {
        "total": len(first_of),
        "last_day": sum(now_s - DAY_S <= at for at in moments),
        "first": times[0] if times else None,
        "last": times[-1] if times else None,
        "pause_s": pause_s,
        "regular": pause_s is not None and _is_regular(pauses, pause_s),
    }


def _is_regular(pauses: list[float], pause_s: float) -> bool:
    if len(pauses) < _REGULAR_MIN or pause_s < _SHORTEST_PAUSE_S:
        return False
    return median(abs(pause - pause_s) for pause in pauses) <= _SPREAD_MAX * pause_s
