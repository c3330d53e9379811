# SPDX-License-Identifier: Apache-2.0
"""The times that logs contain and users write -> Unix time in nanoseconds.

A time without a zone is in the zone of the calendar, by default this machine's.
"""

import re
import time
from datetime import datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

from tracer.base.clock import format_rfc3339
from tracer.base.errors import EXIT_USAGE, TracerError

MONTHS = {name: number for number, name in enumerate(b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), 1)}

_ISO = re.compile(
    rb"(\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?)?)(?:(?<=:\d\d:\d\d)[.,](\d{1,9}))? ?(Z|UTC|[+-]\d\d(?::?\d\d)?)?"
)
_DIGITS = re.compile(rb"\d+")
_MONTH_NUMBER = re.compile(rb"(\d{1,2})(?:\xe6\x9c\x88|\xec\x9b\x94)")
_CTIME = re.compile(rb"\S+ +(\S+) +(\d{1,2}) (\d\d):(\d\d):(\d\d) (\d{4})")
_CLOCK = re.compile(r"(\d{1,2}):(\d\d)(?::(\d\d))?")
_SPAN = re.compile(r"(\d{1,9}(?:\.\d{1,9})?) *([A-Za-z]+)")
_UNITS_S = {
    "us": 1e-6, "usec": 1e-6, "ms": 1e-3, "msec": 1e-3, "s": 1, "sec": 1, "second": 1, "m": 60, "min": 60,
    "minute": 60, "h": 3600, "hr": 3600, "hour": 3600, "d": 86400, "day": 86400, "w": 604800, "week": 604800,
    "M": 2629800, "month": 2629800, "y": 31557600, "year": 31557600,
}  # fmt: skip
"""As in systemd.time(7): a month is a twelfth of a year, a year 365.25 days."""
_WEEKDAY = re.compile(r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,? +(?=\d)")
_DAYS = {"yesterday": -1, "today": 0, "tomorrow": 1}
_END_NS = 253_402_300_800_000_000_000
"""The year 10000, which RFC 3339 cannot express."""
_SLACK = timedelta(days=1)
"""The clock or the zone of a log's writer may be ahead."""


def read_zone(name: str) -> tzinfo:
    """A zone by its name in the tz database.

    Raises TracerError if there is no such zone.
    """
    try:
        return timezone.utc if name == "UTC" else ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise TracerError(
            f"unknown time zone {name!r}",
            "use a name from /usr/share/zoneinfo (package tzdata), such as Europe/Berlin",
            EXIT_USAGE,
        ) from error


class Calendar:
    """Parses times. ``zone`` None is this machine's; ``latest_ns`` is when the log was last written to, for dates
    without a year."""

    def __init__(self, zone: tzinfo | None = None, latest_ns: int | None = None) -> None:
        self._zone = zone
        self._latest: datetime | None = self._at(time.time() if latest_ns is None else latest_ns / 1e9) + _SLACK
        self.assumes_year = False
        """Whether a date had no year."""
        self._second: tuple[bytes, bytes | None] = b"", None
        self._second_ns: int | None = None
        self._around: tuple[bytes, bytes] = b"", b""
        """The parts of the last timestamp in front of and behind its fraction, if the fraction has six digits."""

    def unix_ns(
        self,
        year: int,
        month: int,
        day: int,
        hour: int = 0,
        minute: int = 0,
        second: int = 0,
        zone: tzinfo | None = None,
    ) -> int | None:
        """None if there is no such time."""
        try:
            # A leap second counts as the second before it, as in the kernel.
            moment = datetime(year, month, day, hour, minute, min(second, 59), tzinfo=zone or self._zone)
            return int(moment.timestamp()) * 1_000_000_000
        except (ValueError, OverflowError, OSError):
            return None

    def follow(self) -> None:
        """From now on the log is read as it is written: a date without a year is the latest one up to the present."""
        self._latest = None

    def without_year(self, month: int, day: int, hour: int, minute: int, second: int) -> int | None:
        """The latest such time before the log was last written to."""
        latest = self._latest or self._at(time.time()) + _SLACK
        for year in range(latest.year, max(1, latest.year - 9), -1):  # 29 February may be eight years ago
            try:
                moment = datetime(year, month, day, hour, minute, min(second, 59))
            except ValueError:
                continue
            if moment <= latest.replace(tzinfo=None):
                self.assumes_year = True
                return self.unix_ns(year, month, day, hour, minute, second)
        return None

    def parse_iso(self, text: bytes) -> int | None:
        """``2026-11-24T03:51:53.123456+01:00``, also with a space or a comma, without fraction, time or zone; None
        otherwise."""
        microseconds = text[20:26]  # the lines of a report are of the same second, or of few
        if (text[:20], text[26:]) == self._around and len(microseconds) == 6 and microseconds.isdigit():
            return (self._second_ns or 0) + int(microseconds) * 1000
        match = _ISO.fullmatch(text)
        if match is None:
            return None
        second, fraction, zone = match.groups()
        if (second, zone) != self._second:
            year, month, day, *clock = (int(part) for part in _DIGITS.findall(second))
            hour, minute, seconds = (*clock, 0, 0, 0)[:3]
            second_ns = self.unix_ns(year, month, day, hour, minute, seconds, None if zone is None else _offset(zone))
            self._second, self._second_ns = (second, zone), second_ns
            is_usual = second_ns is not None and match.span(2) == (20, 26)
            self._around = (text[:20], text[26:]) if is_usual else (b"", b"")
        if self._second_ns is None or fraction is None:
            return self._second_ns
        return self._second_ns + int(fraction.ljust(9, b"0"))

    def parse_ctime(self, text: bytes) -> int | None:
        """``Tue Nov 24 03:51:53 2026``; None for anything else."""
        match = _CTIME.fullmatch(text)
        month = None if match is None else parse_month(match[1])
        if match is None or month is None:
            return None
        day, hour, minute, second, year = (int(part) for part in match.groups()[1:])
        return self.unix_ns(year, month, day, hour, minute, second)

    def parse_moment(self, text: str) -> int:
        """A time as a user writes it: as journalctl's --since accepts it (systemd.time(7)), or ``2h`` as docker's.

        Raises TracerError for anything else.
        """
        text = _WEEKDAY.sub("", text.strip(), count=1)
        found = self.parse_iso(text.encode("utf-8", "replace"))
        found = self._parse_relative(text) if found is None else found
        if found is None or found >= _END_NS:
            raise TracerError(
                f"not a valid time: {text!r}",
                "use '2026-11-24 03:51', 03:51, today, yesterday, 2h, '2 hours ago' or @SECONDS",
                EXIT_USAGE,
            )
        return found

    def _parse_relative(self, text: str) -> int | None:
        now = self._at(time.time())
        if text == "now":
            return time.time_ns()
        if re.fullmatch(r"@\d{1,10}(\.\d{1,9})?", text):
            whole, _, fraction = text[1:].partition(".")
            return int(whole) * 1_000_000_000 + int(fraction.ljust(9, "0"))
        word, _, clock = text.partition(" ")
        day = now.date()
        if word in _DAYS:
            day += timedelta(days=_DAYS[word])
        else:
            clock = text
        match = _CLOCK.fullmatch(clock)
        if match is not None or (word in _DAYS and not clock):
            hour, minute, second = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
            return self.unix_ns(day.year, day.month, day.day, hour, minute, second)
        if text.startswith("+"):
            span_ns, sign = _parse_span_ns(text[1:]), 1
        elif text.endswith(" left"):
            span_ns, sign = _parse_span_ns(text.removesuffix(" left")), 1
        else:
            ago = text.removesuffix(" ago") if text.endswith(" ago") else text.removeprefix("-")
            span_ns, sign = _parse_span_ns(ago), -1
        return None if span_ns is None else max(0, time.time_ns() + sign * span_ns)

    def _at(self, unix_s: float) -> datetime:
        return datetime.fromtimestamp(unix_s, self._zone)


class Period:
    """The period of --since and --until; None: no limit.

    Raises TracerError for an invalid time.
    """

    def __init__(self, since: str | None, until: str | None, calendar: Calendar) -> None:
        self._since = None if since is None else format_rfc3339(calendar.parse_moment(since))
        self._until = None if until is None else format_rfc3339(calendar.parse_moment(until))

    def contains(self, time: str | None) -> bool:
        """Whether a record's time is in the period; an unknown time is in no period with a limit."""
        if self._since is not None and (time is None or time < self._since):
            return False
        return self._until is None or (time is not None and time <= self._until)


def _parse_span_ns(text: str) -> int | None:
    """``1h 30min``."""
    spans = _SPAN.findall(text)
    if not spans or _SPAN.sub("", text).strip():
        return None
    total_ns = 0
    for count, unit in spans:
        name = unit if unit in _UNITS_S else unit.removesuffix("s")
        if name not in _UNITS_S:
            return None
        total_ns += round(float(count) * _UNITS_S[name] * 1e9)
    return total_ns


def parse_month(name: bytes) -> int | None:
    """The number of a month by its English name, or by its number as in Chinese, Japanese and Korean."""
    found = MONTHS.get(name)
    if found is None and (match := _MONTH_NUMBER.fullmatch(name)) is not None:
        found = int(match[1])
    return found


def digits_ns(stamp: bytes) -> int:
    """A number that distinguishes timestamps that cannot be parsed: their digits, taken as microseconds."""
    return int(b"".join(_DIGITS.findall(stamp))[:18] or b"0") * 1000


def _offset(text: bytes) -> tzinfo | None:
    if text in (b"Z", b"UTC"):
        return timezone.utc
    minutes = int(text[1:3]) * 60 + int(text[3:].lstrip(b":") or 0)
    return timezone(timedelta(minutes=-minutes if text[:1] == b"-" else minutes)) if minutes < 1440 else None
