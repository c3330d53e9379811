# SPDX-License-Identifier: Apache-2.0
"""What filled the limit that a kill was for."""

from typing import TypedDict

from tracer.event import NO_LIMIT_BYTES, Breakdown, Level, OomKill


class Memory(TypedDict):
    """What filled the limit."""

    cgroup: str
    level: Level
    limit_bytes: int | None
    usage_bytes: int | None
    victim_rss_bytes: int | None
    breakdown: Breakdown | None


def memory(kill: OomKill) -> Memory | None:
    """Null where no memory cgroup's limit was hit, or it is not known which."""
    limit = kill["limit"]
    if limit is None:
        return None
    bound = limit["limit_bytes"]
    if bound is None or bound >= NO_LIMIT_BYTES:
        bound = limit["memsw_limit_bytes"]
    return {
        "cgroup": limit["cgroup"],
        "level": limit["level"],
        "limit_bytes": None if bound is None or bound >= NO_LIMIT_BYTES else bound,
        "usage_bytes": limit["usage_bytes"],
        "victim_rss_bytes": kill["victim"]["rss_bytes"],
        "breakdown": limit["breakdown"],
    }
