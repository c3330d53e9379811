# SPDX-License-Identifier: Apache-2.0
"""kmsg.py and backfill.py: records as /dev/kmsg gives them, one per read, through a pipe that keeps them apart."""

import os
import time
from collections.abc import Callable, Iterator

import pytest

from tests.harness.kernel_log_files import reports
from tests.harness.kmsg_pipe import pipe
from tests.harness.records import HOST
from tests.harness.schema import validate
from tracer.accounting.backfill import find_kills, select_unrecorded, tolerance_ns
from tracer.base.clock import boottime_ns
from tracer.logs import this_boot
from tracer.logs.kmsg import Kmsg
from tracer.logs.log_line import LogLine
from tracer.logs.this_boot import ThisBoot

Feed = Callable[..., Kmsg]

KILL = (
    b"Memory cgroup out of memory: Killed process %d (a\\x0ab) total-vm:103536kB, anon-rss:30564kB, file-rss:704kB, "
    b"shmem-rss:0kB, UID:0 pgtables:100kB oom_score_adj:0"
)


@pytest.fixture
def feed() -> Iterator[Feed]:
    """Opens a log of these records."""
    with pipe() as (writer, kmsg):

        def give(*records: bytes) -> Kmsg:
            for record in records:
                os.write(writer, record)
            return kmsg

        yield give
        kmsg.close()


def test_lines(feed: Feed) -> None:
    """Text without prefix and properties, time and caller; the next read continues."""
    kmsg = feed(
        b"6,100,5140900,-;NET: Registered protocol family 10\n",
        b"4,101,5140901,-,caller=T123;two\\x0alines, \\xff and a \\x5c\n SUBSYSTEM=acpi\n DEVICE=+acpi:PNP0A03:00\n",
        b"4,102,5140902,c,caller=C1,more=x;,task_memcg=/a;b\n",
    )
    assert list(kmsg.read()) == [
        LogLine(b"NET: Registered protocol family 10", 5_140_900_000, "printk"),
        LogLine(b"two\nlines, \xff and a \\", 5_140_901_000, "printk", b"T123"),
        LogLine(b",task_memcg=/a;b", 5_140_902_000, "printk", b"C1"),
    ]
    assert list(kmsg.read()) == []
    feed(b"4,103,5140903,-;more\n")
    assert [line.text for line in kmsg.read()] == [b"more"]
    assert kmsg.dropped == 0


def test_only_the_kernel(feed: Feed) -> None:
    """Lines that a process wrote to /dev/kmsg are not the kernel's; neither are malformed records."""
    kmsg = feed(b"12,1,5,-;Killed process 1 (init)\n", b"30,2,6,-;systemd[1]: x\n", b"garbage", b"7,3,7,-;x\n")
    assert [line.text for line in kmsg.read()] == [b"x"]
    assert kmsg.dropped == 0


def test_overwritten(feed: Feed) -> None:
    """A gap in the sequence is counted, and reported at its place, in the kernel's words."""
    kmsg = feed(b"4,7,1,-;a\n", b"12,8,1,-;user\n", b"4,9,1,-;b\n", b"4,13,2,-;c\n")
    assert [line.text for line in kmsg.read()] == [b"a", b"b", b"** 3 printk messages dropped **", b"c"]
    assert kmsg.dropped == 3


def test_not_there() -> None:
    """A log that cannot be opened."""
    with pytest.raises(FileNotFoundError):
        Kmsg("/proc/self/fd/none")


def test_something_else() -> None:
    """A device that replaces the log, such as /dev/null in a container, has an end."""
    log = Kmsg("/dev/null")
    assert list(log.read()) == []
    log.close()


def test_backfill(feed: Feed) -> None:
    """Kills with a record, and those of another time, are left out; the others get a record."""
    records = [b"3,%d,%d,-;%s\n" % (n, n * 1000 * 10**6, KILL % (10 + n)) for n in range(1, 5)]
    asked = []

    def known(tid: int, kill_ns: int) -> bool:
        asked.append((tid, round((kill_ns - ahead_ns) / 1e9)))
        return tid == 12

    ahead_ns = boottime_ns() - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    ((record, _),) = find_kills(feed(*records), "6a4ce4a0", known, ahead_ns + 1500 * 10**9, ahead_ns + 3000 * 10**9)
    assert asked == [(12, 2000), (13, 3000)]
    assert (record["victim"]["tid"], record["victim"]["comm"]) == (13, "a\nb")
    assert record["id"] == f"6a4ce4a0-k{3000 * 10**6:x}-13"
    record["host"] = HOST
    validate(record)


@pytest.mark.parametrize(("missing", "told"), [(0, []), (1, [14]), (2, [12, 14]), (9, [11, 12, 14])])
def test_unknown(feed: Feed, missing: int, told: list[int]) -> None:
    """As many kills as are missing, the latest ones; none if none is missing."""
    records = [b"3,%d,%d,-;%s\n" % (n, n * 1000 * 10**6, KILL % (10 + n)) for n in range(1, 5)]
    logged = list(find_kills(feed(*records), "6a4ce4a0", lambda tid, kill_ns: False))
    known = {13: [logged[2][1]], 12: [0]}
    assert [record["victim"]["tid"] for record, _ in select_unrecorded(logged, known, missing)] == told


def test_tolerance() -> None:
    """Clocks drift apart with time."""
    assert tolerance_ns(0) == 2_000_000_000
    assert tolerance_ns(30 * 86400 * 10**9) == 1_298_000_000_000


def test_kills_of_this_boot(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills since the last call as well."""
    monkeypatch.setattr(this_boot, "Kmsg", feed)
    host = ThisBoot()
    for tid in (7, 8):
        text = KILL.replace(b"\\x0a", b"") % tid
        (report,) = reports([LogLine(text, tid * 1000, "printk")])
        assert not host.has(report)
        feed(b"3,%d,%d,-;%s\n" % (tid, tid, text))
        assert host.has(report)
        assert not host.has(report._replace(tid=9))
