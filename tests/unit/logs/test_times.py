# SPDX-License-Identifier: Apache-2.0
"""logs/times.py: times of logs and of users."""

import time
from datetime import datetime, timezone

import pytest

from tracer.base.errors import TracerError
from tracer.logs.times import Calendar, read_zone


def unix_ns(*moment: int) -> int:
    return int(datetime(*moment, tzinfo=timezone.utc).timestamp()) * 10**9  # type: ignore[misc, arg-type]


@pytest.mark.parametrize(
    ("written", "moment", "year"),
    [
        ((2026, 11, 25, 12), (11, 24, 3, 51, 53), 2026),
        ((2026, 11, 25, 12), (11, 26, 3, 51, 53), 2026),  # up to a day ahead: another zone, another clock
        ((2026, 11, 25, 12), (11, 27, 3, 51, 53), 2025),
        ((2027, 1, 2), (12, 31, 23, 59, 59), 2026),
        ((2027, 1, 2), (1, 1, 0, 0, 0), 2027),
        ((2026, 12, 31, 23), (1, 1, 0, 0, 1), 2027),
        ((2027, 3, 1), (2, 29, 0, 0, 1), 2024),
        ((2027, 1, 2), (12, 31, 23, 59, 60), 2026),
    ],
)
def test_without_year(written: tuple[int, ...], moment: tuple[int, int, int, int, int], year: int) -> None:
    """A date without a year is the latest before the log was last written to, also across New Year."""
    found = Calendar(timezone.utc, unix_ns(*written)).without_year(*moment)
    assert unix_ns(year, *moment[:4], min(moment[4], 59)) == found


@pytest.mark.parametrize("moment", [(2, 30, 0, 0, 0), (13, 1, 0, 0, 0), (0, 1, 0, 0, 0), (1, 1, 24, 0, 0)])
def test_no_date(moment: tuple[int, int, int, int, int]) -> None:
    """Dates that do not exist."""
    assert Calendar(timezone.utc).without_year(*moment) is None


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        (b"2026-11-24T03:51:53Z", "Europe/Berlin", unix_ns(2026, 11, 24, 3, 51, 53)),
        (b"2026-11-24T03:51:53.123456+01:00", "UTC", unix_ns(2026, 11, 24, 2, 51, 53) + 123_456_000),
        (b"2026-11-24T03:51:53,123456-0130", "UTC", unix_ns(2026, 11, 24, 5, 21, 53) + 123_456_000),
        (b"2026-11-24 03:51:53", "Europe/Berlin", unix_ns(2026, 11, 24, 2, 51, 53)),
        (b"2026-06-24 03:51", "Europe/Berlin", unix_ns(2026, 6, 24, 1, 51)),
        (b"2026-11-24", "UTC", unix_ns(2026, 11, 24)),
        (b"2026-11-24 03:51:53 UTC", "Europe/Berlin", unix_ns(2026, 11, 24, 3, 51, 53)),
        (b"2026-11-31", "UTC", None),
        (b"2026-11-24T03:51:53+99:00", "UTC", unix_ns(2026, 11, 24, 3, 51, 53)),
        (b"0000-00-00", "UTC", None),
        (b"", "UTC", None),
    ],
)
def test_iso(text: bytes, zone: str, expected: int | None) -> None:
    """With and without time, fraction and zone."""
    assert Calendar(read_zone(zone)).parse_iso(text) == expected


def test_ctime() -> None:
    """As in ctime(3)."""
    calendar = Calendar(timezone.utc)
    assert calendar.parse_ctime(b"Tue Nov 24 03:51:53 2026") == unix_ns(2026, 11, 24, 3, 51, 53)
    assert calendar.parse_ctime(b"Tue Nox 24 03:51:53 2026") is None
    assert calendar.parse_ctime(b"Tue Nov 31 03:51:53 2026") is None


@pytest.mark.parametrize(
    ("text", "ago_s"),
    [
        ("now", 0), ("-2h", 7200), ("2h ago", 7200), ("1 hour ago", 3600), ("-90s", 90), ("-1d", 86400),
        ("2 days ago", 172800), ("1h 30min ago", 5400), ("-1week", 604800), ("- 5 minutes", 300),
        ("2h", 7200), ("1h30m", 5400), ("90 seconds", 90), ("1.5h", 5400), ("+2h", -7200), ("2 min left", -120),
        ("1 month ago", 2629800), ("-1M", 2629800), ("1y", 31557600), ("1500ms ago", 1.5),
    ],
)  # fmt: skip
def test_ago(text: str, ago_s: float) -> None:
    """Spans before now, or after it."""
    before = time.time_ns()
    found = Calendar().parse_moment(text) + int(ago_s * 10**9)
    assert before <= found <= time.time_ns()


def test_days() -> None:
    """Days begin at midnight in the calendar's zone."""
    calendar = Calendar(timezone.utc)
    today = unix_ns(*time.gmtime()[:3])
    assert calendar.parse_moment("today") == today
    assert calendar.parse_moment("00:30") == today + 1800 * 10**9
    assert calendar.parse_moment("yesterday") == today - 86400 * 10**9
    assert calendar.parse_moment("yesterday 13:05:06") == today - 86400 * 10**9 + 47106 * 10**9
    assert calendar.parse_moment("tomorrow") == today + 86400 * 10**9
    assert calendar.parse_moment("1970-01-01T00:00:00Z") == calendar.parse_moment("@0") == 0
    assert calendar.parse_moment("@1700000000") == 1_700_000_000 * 10**9
    assert calendar.parse_moment("@1700000000.25") == 1_700_000_000_250_000_000
    assert calendar.parse_moment("Tue 2026-11-24 03:51:53 UTC") == unix_ns(2026, 11, 24, 3, 51, 53)


@pytest.mark.parametrize(
    "text",
    ["", "soon", "ago", "-", "2 parsecs ago", "25:00", "-2", "yesterday x", "@x", "2h 3", "9999-12-31 23:59-10:00"],
)
def test_no_moment(text: str) -> None:
    """Anything else is refused."""
    with pytest.raises(TracerError, match="not a valid time"):
        Calendar().parse_moment(text)


@pytest.mark.parametrize("name", ["Mars/Base", "", "../../etc/passwd", "/etc/passwd", "\0"])
def test_no_zone(name: str) -> None:
    """An unknown zone."""
    with pytest.raises(TracerError, match="unknown time zone"):
        read_zone(name)
