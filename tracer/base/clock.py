# SPDX-License-Identifier: Apache-2.0
"""The kernel's clocks, and RFC 3339 times in UTC with nanoseconds."""

import time
from functools import lru_cache


def monotonic_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def boottime_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def suspended_ns() -> int:
    """Time since boot that the machine was suspended: CLOCK_BOOTTIME minus CLOCK_MONOTONIC."""
    return boottime_ns() - monotonic_ns()


def boottime_to_rfc3339(boot_ns: int) -> str:
    """Convert a time of CLOCK_BOOTTIME by the current difference between it and the wall clock."""
    return format_rfc3339(time.time_ns() - boottime_ns() + boot_ns)


def format_rfc3339(unix_ns: int) -> str:
    seconds, nanoseconds = divmod(unix_ns, 1_000_000_000)
    return f"{_to_the_second(seconds)}.{nanoseconds:09d}Z"


@lru_cache(maxsize=16)
def _to_the_second(unix_s: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(unix_s))


def parse_rfc3339(text: object) -> int | None:
    """Unix time in nanoseconds of a time that ``format_rfc3339`` has formatted; None: not such a time."""
    import calendar  # half a megabyte, needed by some outputs only

    try:
        seconds = calendar.timegm(time.strptime(str(text)[:19], "%Y-%m-%dT%H:%M:%S"))
        return seconds * 1_000_000_000 + int(f"{str(text)[20:].rstrip('Z'):0<9.9}")
    except ValueError:
        return None
