# SPDX-License-Identifier: Apache-2.0
"""One line of a kernel log, in whatever format the log is."""

from collections.abc import Callable
from typing import Literal, NamedTuple

Clock = Literal["printk", "realtime", "unknown"]
"""``unknown`` is the clock of a timestamp that cannot be parsed: it distinguishes lines, but gives neither a time nor
an interval."""


class Origin(NamedTuple):
    """The host and boot that a line is from; None: the log does not say."""

    host: str | None = None
    boot_id: str | None = None


UNKNOWN_ORIGIN = Origin()


class LogLine(NamedTuple):
    """One printk record, without its prefix and unescaped; in formats that split records, one line of it.

    A last line without a newline may be cut, and must not become a LogLine.
    """

    text: bytes
    time_ns: int | None = None
    """Nanoseconds of `clock`."""
    clock: Clock | None = None
    caller: bytes | None = None
    """The thread or CPU that printed it, as CONFIG_PRINTK_CALLER shows it (`T123`, `C1`)."""
    wall_ns: int | None = None
    """Unix time by the log's wall clock, if the log has one beside or instead of printk's."""
    origin: Origin = UNKNOWN_ORIGIN


IGNORED = LogLine(b"")
"""Stands for a line that is in the format of its reader, but from another program, or has nothing to read; compared by
identity."""

FormatReader = Callable[[bytes], LogLine | None]
"""Reads a line, without its newline, in one format.  None: the line is not in this format."""
