# SPDX-License-Identifier: Apache-2.0
"""Times of records, RFC 3339 in UTC, as numbers, and as a reader of this machine wants them."""

import calendar
import re
import time

from tracer.base.clock import format_rfc3339
from tracer.logs.times import Calendar
from tracer.records.conclusions import format_uptime

_MOST_NS = 1 << 63
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,9})?(?:Z|\+00:00)\Z")


def seconds(moment: str | None) -> float | None:
    """Since 1970; None: it is null, or no such time."""
    match = _RFC3339.match(moment or "")
    if match is None:
        return None
    try:
        return calendar.timegm(time.strptime(match[1], "%Y-%m-%dT%H:%M:%S")) + float(match[2] or 0)
    except ValueError:
        return None


def utc(moment: str | int | None) -> str | None:
    """What runtimes write, RFC 3339 in any zone or Unix time in nanoseconds, as records have it."""
    if isinstance(moment, str):
        moment = None if moment.startswith("0001-") else Calendar().iso(moment.encode())  # Go's zero
    return format_rfc3339(moment) if moment is not None and 0 < moment < _MOST_NS else None


def told(moment: str | None) -> str:
    """``2026-11-24 03:51:53 UTC``."""
    return "an unknown time" if seconds(moment) is None else f"{(moment or '')[:19].replace('T', ' ')} UTC"


def moment(time: str | None, uptime_s: float | None) -> str:
    """``2026-11-24 03:51:53 UTC``, or ``9.04 s after boot`` where a log has nothing else."""
    return told(time) if time is not None or uptime_s is None else format_uptime(uptime_s)


def at(time: str | None, uptime_s: float | None) -> str:
    """In a sentence: when it was."""
    return f"{'at ' if time is not None or uptime_s is None else ''}{moment(time, uptime_s)}"


def span(length_s: float) -> str:
    """About how long, in words."""
    if length_s < 1:
        return "less than a second"
    for unit, size, most in (("second", 1, 90), ("minute", 60, 90), ("hour", 3600, 48), ("day", 86400, 10**9)):
        count = round(length_s / size)
        if count < most:
            return f"{count} {unit}" + ("" if count == 1 else "s")
    return f"{round(length_s / 86400)} days"
