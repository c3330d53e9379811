# SPDX-License-Identifier: Apache-2.0
"""Times of records as text."""

from tracer.base.clock import format_rfc3339
from tracer.logs.times import Calendar
from tracer.records.conclusions import format_uptime
from tracer.records.unix_time import unix_seconds

_MAX_NS = 1 << 63


def to_rfc3339(time: str | int | None) -> str | None:
    """The time that a runtime wrote, RFC 3339 in any zone or Unix time in nanoseconds, in the form that records use."""
    if isinstance(time, str):
        time = None if time.startswith("0001-") else Calendar().parse_iso(time.encode())  # Go's zero time
    return format_rfc3339(time) if time is not None and 0 < time < _MAX_NS else None


def format_time(text: str | None) -> str:
    """``2026-11-24 03:51:53 UTC``."""
    return "an unknown time" if unix_seconds(text) is None else f"{(text or '')[:19].replace('T', ' ')} UTC"


def format_moment(time: str | None, uptime_s: float | None) -> str:
    """``2026-11-24 03:51:53 UTC``, or ``9.04 s after boot`` for a log without dates."""
    return format_time(time) if time is not None or uptime_s is None else format_uptime(uptime_s)


def at_moment(time: str | None, uptime_s: float | None) -> str:
    """``format_moment()`` with its preposition."""
    return f"{'at ' if time is not None or uptime_s is None else ''}{format_moment(time, uptime_s)}"


def format_span(length_s: float) -> str:
    """Rounded duration in words."""
    if length_s < 1:
        return "less than a second"
    for unit, size, most in (("second", 1, 90), ("minute", 60, 90), ("hour", 3600, 48), ("day", 86400, 10**9)):
        count = round(length_s / size)
        if count < most:
            return f"{count} {unit}" + ("" if count == 1 else "s")
    return f"{round(length_s / 86400)} days"
