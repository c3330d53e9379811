# SPDX-License-Identifier: Apache-2.0
"""Memory under the limit that was hit."""

from typing import TypedDict

from tracer.records.conclusions import bound_bytes, is_limit_lowered, swap_allowance_bytes
from tracer.records.model import Breakdown, Level, OomKill


class LimitMemory(TypedDict):
    """Memory under the limit at the time of the kill."""

    cgroup: str | None
    level: Level
    limit_bytes: int | None
    usage_bytes: int | None
    swap_usage_bytes: int | None
    swap_allowance_bytes: int | None
    """NO_LIMIT_BYTES: unlimited."""
    is_lowered: bool
    """Whether the limit was lowered below the usage, which makes the kernel kill."""
    victim_rss_bytes: int | None
    breakdown: Breakdown | None


def memory_at_limit(kill: OomKill) -> LimitMemory | None:
    """None: no memory cgroup's limit was hit, or it is unknown."""
    limit = kill["limit"]
    if limit is None:
        return None
    return {
        "cgroup": limit["cgroup"],
        "level": limit["level"],
        "limit_bytes": bound_bytes(limit),
        "usage_bytes": limit["usage_bytes"],
        "swap_usage_bytes": limit["swap_usage_bytes"],
        "swap_allowance_bytes": swap_allowance_bytes(limit),
        "is_lowered": is_limit_lowered(kill),
        "victim_rss_bytes": kill["victim"]["rss_bytes"],
        "breakdown": limit["breakdown"],
    }
