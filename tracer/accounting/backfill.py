# SPDX-License-Identifier: Apache-2.0
"""Recovers kills without a record from the kernel log.

The log has times of printk's clock (local_clock()): it counts from boot and stops during suspend, as CLOCK_MONOTONIC
does, but follows neither NTP's corrections nor the pause of a virtual machine.  It is compared with CLOCK_BOOTTIME
when the log is read.  The error of a record's time is the suspend time since the kill, and the drift between the clocks
since boot (NTP corrects by 500 ppm at most).
"""

import mmap
from collections.abc import Callable, Iterable, Iterator

from tracer.base.clock import suspended_ns
from tracer.base.log import warn
from tracer.logs.kmsg import Kmsg
from tracer.logs.log_records import LogRecords
from tracer.logs.oom_report import ReportAssembler
from tracer.logs.victim_report import VictimReport
from tracer.records.model import OomKill

IsRecorded = Callable[[int, int], bool]
"""Whether a kill has a record, by the thread that the kernel named (`victim.tid`) and the time in CLOCK_BOOTTIME, which
may be off by `tolerance_ns()`."""

LoggedKill = tuple[OomKill, int]
"""A record, and the time of its kill in CLOCK_BOOTTIME."""

_MIN_TOLERANCE_NS = 2_000_000_000
_DRIFT_DIVISOR = 2000
"""One part in 2000: 500 ppm, adjtimex(2)."""


def tolerance_ns(kill_ns: int) -> int:
    """How far the log's time of a kill at ``kill_ns`` (CLOCK_BOOTTIME) may be off."""
    return _MIN_TOLERANCE_NS + kill_ns // _DRIFT_DIVISOR


def find_kills(
    kmsg: Kmsg, boot: str, is_recorded: IsRecorded, since_ns: int = 0, until_ns: int | None = None
) -> Iterator[LoggedKill]:
    """The kills in the log, from the position of ``kmsg`` on, that have no record: oldest first, each one once.

    ``boot`` names this boot in the ids.  ``since_ns`` and ``until_ns`` (CLOCK_BOOTTIME) bound their times, plus or
    minus the tolerance.
    """
    ahead_ns = suspended_ns()
    records = LogRecords(boot, mmap.PAGESIZE, ahead_ns)
    for report in _reports(kmsg):
        if report.time_ns is None:
            continue
        kill_ns = report.time_ns + ahead_ns
        tolerance = tolerance_ns(kill_ns)
        if kill_ns + tolerance < since_ns or (until_ns is not None and kill_ns - tolerance > until_ns):
            continue
        if not is_recorded(report.tid, kill_ns):
            yield records.oom_kill(report), kill_ns


class Backfill:
    """The kernel log of this boot, to be opened before capabilities are dropped.

    Raises OSError if it cannot be opened.
    """

    def __init__(self, boot: str) -> None:
        self._kmsg = Kmsg()
        self._boot = boot

    def find_kills(self, since_ns: int) -> list[LoggedKill]:
        """The kills since then (CLOCK_BOOTTIME) minus the tolerance, oldest first."""
        self._kmsg.rewind()
        return list(find_kills(self._kmsg, self._boot, lambda _tid, _kill_ns: False, since_ns))


def open_backfill(boot: str) -> Backfill | None:
    """None, and a warning, if the kernel log cannot be opened."""
    try:
        return Backfill(boot)
    except OSError as error:
        reason = error.strerror or error
        warn(f"{error.filename}: {reason}; missed kills are reported as gaps")
    return None


def select_unrecorded(logged: Iterable[LoggedKill], recorded: dict[int, list[int]], missing: int) -> list[LoggedKill]:
    """The latest ``missing`` kills without a record: earlier ones in the log were accounted for before.

    ``recorded``: the times (CLOCK_BOOTTIME) of kills with a record, by thread id.
    """
    unrecorded = [
        (record, kill_ns)
        for record, kill_ns in logged
        if all(
            abs(kill_ns - other_ns) > tolerance_ns(kill_ns) for other_ns in recorded.get(record["victim"]["tid"], ())
        )
    ]
    return unrecorded[max(0, len(unrecorded) - missing) :]


def _reports(kmsg: Kmsg) -> Iterator[VictimReport]:
    reports = ReportAssembler()
    for line in kmsg.read():
        yield from reports.feed(line)
    yield from reports.end()
