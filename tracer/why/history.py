# SPDX-License-Identifier: Apache-2.0
"""How often the target was OOM killed, and how regularly."""

from collections.abc import Iterable
from typing import TypedDict

from tracer.records.model import OomKill
from tracer.records.recurrence import Pattern, assess_regularity
from tracer.records.unix_time import unix_seconds

DAY_S = 86400.0


class History(TypedDict):
    """OOM kills; the victims of one incident count once."""

    total: int
    last_day: int
    """In the last 24 hours."""
    first: str | None
    last: str | None
    pause_s: float | None
    """Median interval."""
    regular: bool
    """Whether the pattern is a saw-tooth: a leak that fills the limit at a steady rate."""
    pattern: Pattern
    """As in the report."""


def summarize_history(kills: Iterable[OomKill], now_s: float) -> History:
    first_of: dict[tuple[str | None, str], OomKill] = {}
    for kill in kills:
        first_of.setdefault((kill["host"]["name"], kill["incident"]["id"]), kill)
    times = sorted(
        kill["time"] for kill in first_of.values() if unix_seconds(kill["time"]) is not None and kill["time"]
    )
    moments = [at for at in map(unix_seconds, times) if at is not None]
    found = assess_regularity(moments)
    return {
        "total": len(first_of),
        "last_day": sum(now_s - DAY_S <= at for at in moments),
        "first": times[0] if times else None,
        "last": times[-1] if times else None,
        "pause_s": found.median_s,
        "regular": found.pattern == "saw-tooth",
        "pattern": found.pattern,
    }
