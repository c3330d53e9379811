# SPDX-License-Identifier: Apache-2.0
"""The log of the running kernel; it shows which logs without a date are of this boot."""

import errno
import mmap
import select
import time
from collections.abc import Iterator

from tracer.base.clock import suspended_ns
from tracer.logs.kmsg import PATH, Kmsg
from tracer.logs.log_file import UnopenedError
from tracer.logs.log_records import LogRecords
from tracer.logs.oom_report import ReportAssembler
from tracer.logs.victim_report import VictimReport
from tracer.records.host import read_host


class ThisBoot:
    """The kills of this machine since it booted."""

    def __init__(self) -> None:
        self.host = read_host()
        ahead_ns = suspended_ns()
        self.records = LogRecords((self.host["boot_id"] or "0").split("-")[0], mmap.PAGESIZE, ahead_ns)
        """Builds records with the ids that the daemon gives."""
        self.dated = LogRecords("0", mmap.PAGESIZE, ahead_ns)
        """Builds records with the ids of a log that does not name its boot."""
        self._kills: set[tuple[int | None, int]] = set()
        self._kmsg: Kmsg | None = None
        self._is_readable = True

    def has(self, report: VictimReport) -> bool:
        """Whether the kernel's log contains this kill: the same thread in the same microsecond."""
        kill = report.time_ns, report.tid
        if kill not in self._kills and self._is_readable:
            self._read_on()  # the kill may be newer than the last read
        return kill in self._kills

    def _read_on(self) -> None:
        try:
            self._kmsg = self._kmsg or Kmsg()
            reports = ReportAssembler()
            for line in self._kmsg.read():
                self._kills.update((each.time_ns, each.tid) for each in reports.feed(line))
            self._kills.update((each.time_ns, each.tid) for each in reports.end())
        except OSError:
            self._is_readable = False

    def reports(self, follow_s: float | None = None) -> Iterator[VictimReport | None]:
        """The reports of its kills; with ``follow_s`` those to come as well, without end.

        A report is complete after a pause of ``follow_s`` seconds. None is given at each pause, and, if there is none,
        once everything was given that was in the log at first.

        Raises UnopenedError if the log cannot be read.
        """
        kmsg = open_kmsg()
        reports, begun_s = ReportAssembler(), time.monotonic()
        while True:
            for line in kmsg.read():
                yield from reports.feed(line)
            if follow_s is None:
                yield from reports.end()
                kmsg.close()
                return
            if not select.select([kmsg], [], [], follow_s)[0]:
                yield from reports.end()
                yield None
                select.select([kmsg], [], [])
            elif time.monotonic() - begun_s > 2 * follow_s:
                yield None


def open_kmsg() -> Kmsg:
    """Open the kernel's log.

    Raises UnopenedError if it cannot be read.
    """
    try:
        return Kmsg()
    except OSError as error:
        hint = "run it as root (sudo), or give it a file with the output of dmesg"
        if error.errno in (errno.ENODEV, errno.ENOENT):
            hint = "run it on the host, not in a container, or give it a file"
        raise UnopenedError(f"cannot read {PATH} ({error.strerror})", hint) from error
