# SPDX-License-Identifier: Apache-2.0
"""Kills that nothing recorded, from the kernel log.

The log's times are of printk's clock (local_clock()), which counts from boot, stands still in suspend as
CLOCK_MONOTONIC does, but follows neither NTP's corrections nor a virtual machine's pause.  It is compared with
CLOCK_BOOTTIME when the log is read: what was suspended since a kill, and how far the clocks ran apart since boot
(NTP corrects by 500 ppm at most), is the error of the time in a record.
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
"""Whether a kill has a record: by the thread that the kernel named (`victim.tid`) and the time of CLOCK_BOOTTIME, which
may be off by `tolerance_ns()`."""

LoggedKill = tuple[OomKill, int]
"""A record, and when the kill was, CLOCK_BOOTTIME."""

_LEAST_TOLERANCE_NS = 2_000_000_000
_DRIFT = 2000
"""One part in so many: 500 ppm, adjtimex(2)."""


def tolerance_ns(kill_ns: int) -> int:
    """How far the log's time of a kill at ``kill_ns`` (CLOCK_BOOTTIME) may be from the clock's."""
    return _LEAST_TOLERANCE_NS + kill_ns // _DRIFT


def find_kills(
    kmsg: Kmsg, boot: str, known: IsRecorded, since_ns: int = 0, until_ns: int | None = None
) -> Iterator[LoggedKill]:
    """The kills in the log, from where ``kmsg`` stands, that have no record, oldest first, each once, and their times.

    ``boot`` names this boot in the ids.  ``since_ns`` and ``until_ns`` (CLOCK_BOOTTIME) bound when they were, give or
    take the tolerance: ask about a time that was seen in part, and let ``known`` tell what was seen.
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
        if not known(report.tid, kill_ns):
            yield records.oom_kill(report), kill_ns


class Backfill:
    """The kernel log of this boot, opened while that is still allowed.

    Raises OSError where it cannot be.
    """

    def __init__(self, boot: str) -> None:
        self._kmsg = Kmsg()
        self._boot = boot

    def find_kills(self, since_ns: int) -> list[LoggedKill]:
        """The kills since then (CLOCK_BOOTTIME), or somewhat before, oldest first."""
        self._kmsg.rewind()
        return list(find_kills(self._kmsg, self._boot, lambda _tid, _kill_ns: False, since_ns))


def open_backfill(boot: str) -> Backfill | None:
    """None, and a line on stderr, where the kernel log cannot be opened."""
    try:
        return Backfill(boot)
    except OSError as error:
        reason = error.strerror or error
        warn(f"{error.filename}: {reason}; kills that nobody saw are told as gaps")
    return None


def select_unrecorded(logged: Iterable[LoggedKill], known: dict[int, list[int]], missing: int) -> list[LoggedKill]:
    """The latest ``missing`` of those of which there is no record: what the log tells of earlier was told.

    ``known`` tells when threads were killed (CLOCK_BOOTTIME), by their ids.
    """
    found = [
        (record, kill_ns)
        for record, kill_ns in logged
        if all(abs(kill_ns - known_ns) > tolerance_ns(kill_ns) for known_ns in known.get(record["victim"]["tid"], ()))
    ]
    return found[max(0, len(found) - missing) :]


def _reports(kmsg: Kmsg) -> Iterator[VictimReport]:
    reports = ReportAssembler()
    for line in kmsg.read():
        yield from reports.feed(line)
    yield from reports.end()
