# SPDX-License-Identifier: Apache-2.0
"""The count of each memory cgroup (memory.events.local, memory.oom_control), compared with the records of its victims.

The total (tracer/accounting/audit.py) has some slack: the kernel counts the first victim of a group kill twice, unless
the victim is gone before the second time.  The victim's cgroup shows which case it was, so that a kill missing
elsewhere is not mistaken for a second count; if that is uncertain, the slack stays.  The cgroups also show where the
kills of a gap were.

All counts are since ``mark_explained``.  A cgroup that is new, or had no kill yet, begins at 0: a baseline is kept only
for those that count something.

A user who may create cgroups decides how many there are and how long their paths are, so memory is bounded.  Beyond
the bound the counts by cgroup are unknown until all cgroups are read again.
"""

import time
from collections.abc import Iterable
from heapq import nlargest

from tracer.base import threads
from tracer.linux import cgroupfs
from tracer.records.model import CgroupKills

CGROUPS_MAX = 10
PRUNE_AT_LEAST = 1024
BYTES_MAX = 2 << 20
"""Bound for the victims' cgroups, and for the baselines as well."""
_ENTRY_BYTES = 400
"""Memory per cgroup, without its path."""
SNAPSHOT_RETRY_S = 60.0
"""How soon a snapshot that exceeded the bound is taken again."""


class _CgroupRecords:
    """The victims of one cgroup that have a record."""

    def __init__(self) -> None:
        self.records = 0
        self.groups = 0
        """Group kills that baseline with a victim in it."""
        self.inode: int | None = None
        """Identifies the cgroup among those that had this path; None: unknown."""
        self.counted_once = 0
        """Group kills whose first victim the cgroup has certainly counted once, when it was last read."""
        self.last_ns = 0
        """When the last victim was killed, CLOCK_BOOTTIME."""
        self.is_comparable = True
        """False: only some of its group kills are explained, and the cgroup's count does not show which."""


class CgroupCounts:
    """Counts since ``mark_explained``; a removed cgroup keeps the count that was read last, or is left out."""

    def __init__(self) -> None:
        self._mount = cgroupfs.find_mount()
        self._noted: dict[str, _CgroupRecords] = {}
        self._baseline: dict[str, cgroupfs.OomKillCount] | None = {}
        """The counts at the begin; None: unknown, or not read yet."""
        self._snapshot: dict[str, cgroupfs.OomKillCount] | None = None
        """What the thread of ``snapshot`` has read."""
        self._snapshot_number = 0
        """Number of the latest snapshot: the result of an earlier one is ignored."""
        self._is_explained = True
        self._prune_at = PRUNE_AT_LEAST
        self._noted_bytes = self._baseline_bytes = 0
        self._snapshot_retry_s: float | None = None
        """When to take the next snapshot; None: none is needed."""

    def snapshot(self) -> None:
        """Take the present counts as the baseline.  A thread reads them; until then nothing can be compared."""
        self._baseline, self._snapshot, self._is_explained = None, None, False
        self._snapshot_retry_s = time.monotonic() + SNAPSHOT_RETRY_S
        self._snapshot_number += 1
        threads.start("cgroups", self._take_snapshot, self._snapshot_number)

    def _take_snapshot(self, asked: int) -> None:
        found = _all_counts()
        if asked == self._snapshot_number:
            self._snapshot = found

    def note_kill(self, killed_ns: int, path: str | None, *, group_begins: bool) -> None:
        """A kill in a cgroup (CLOCK_BOOTTIME) has a record; the kernel has counted all kills of its incident.

        ``group_begins``: it is the first victim of a group kill.
        """
        self._start_if_read()
        if path is None:
            return
        baseline = (self._baseline or {}).get(path)
        if baseline is not None and killed_ns <= baseline.read_ns:
            return
        noted = self._noted.get(path)
        if noted is None:
            self._noted_bytes += _bytes_of(path)
            if self._noted_bytes > BYTES_MAX:
                self._give_up()
                return
            noted = self._noted[path] = _CgroupRecords()
        noted.records += 1
        noted.groups += group_begins
        noted.last_ns = max(noted.last_ns, killed_ns)
        if noted.groups:  # the cgroup may be removed soon
            self._compare(path, noted)

    def counted_once(self, until_ns: int | None = None) -> int:
        """How many first victims of group kills the kernel has certainly counted only once, at least.

        ``until_ns``: only in cgroups without a later kill.
        """
        if self._baseline is None:
            return 0
        asked = [each for each in self._noted.items() if until_ns is None or each[1].last_ns <= until_ns]
        for path, noted in asked:
            if noted.groups:
                self._compare(path, noted)
        return sum(noted.counted_once for _, noted in asked)

    def unexplained(self) -> list[CgroupKills]:
        """The cgroups that count more kills than there are records; without a baseline, all that count kills.

        All cgroups are read, and the counts read are the new baseline.
        """
        counts, baseline = _all_counts(), self._baseline
        found: list[CgroupKills] = []
        for path, count in (counts or {}).items():
            noted = self._noted.get(path, _CgroupRecords())
            if baseline is None:
                found.append({"cgroup": path, "oom_kills": count.oom_kills, "records": None})
            elif (kills := _since(baseline.get(path), count)) > noted.records + noted.groups:
                found.append({"cgroup": path, "oom_kills": kills, "records": noted.records})
        self._noted, self._noted_bytes = {}, 0
        self._start(counts)
        return nlargest(CGROUPS_MAX, found, key=lambda each: each["oom_kills"] - (each["records"] or 0))

    def mark_explained(self, until_ns: int | None = None) -> None:
        """All kills, or all until ``until_ns`` (CLOCK_BOOTTIME), are explained: start a new period."""
        explained = [path for path, noted in self._noted.items() if until_ns is None or noted.last_ns <= until_ns]
        for path in explained:
            del self._noted[path]
            self._noted_bytes -= _bytes_of(path)
        for noted in self._noted.values():
            noted.is_comparable, noted.counted_once = False, 0
        self._is_explained = True
        self._start_if_read()
        if self._baseline is None:
            if self._snapshot_retry_s is not None and time.monotonic() >= self._snapshot_retry_s:
                self.snapshot()
            return
        self._read(self._baseline, explained)
        if len(self._baseline) > self._prune_at:
            self._read(self._baseline, list(self._baseline))
            self._prune_at = max(PRUNE_AT_LEAST, 2 * len(self._baseline))
        if self._baseline_bytes > BYTES_MAX:
            self._read(self._baseline, list(self._baseline))
            if self._baseline_bytes > BYTES_MAX:
                self._give_up()

    def _start_if_read(self) -> None:
        is_read = self._baseline is None and self._snapshot is not None
        if is_read and self._is_explained and not self._noted:  # else the period baseline before the snapshot
            self._start(self._snapshot)

    def _start(self, counts: dict[str, cgroupfs.OomKillCount] | None) -> None:
        self._snapshot_number += 1
        self._baseline, self._snapshot = counts, None
        self._baseline_bytes = sum(map(_bytes_of, counts or ()))
        self._snapshot_retry_s = time.monotonic() + SNAPSHOT_RETRY_S if counts is None else None

    def _give_up(self) -> None:
        """There are too many cgroups: their counts are unknown from now on."""
        self._noted, self._noted_bytes, self._is_explained = {}, 0, False
        self._start(None)

    def _read(self, counts: dict[str, cgroupfs.OomKillCount], paths: Iterable[str]) -> None:
        for path in paths:
            count = self._count_of(path)
            if count is not None:
                self._baseline_bytes += _bytes_of(path) if path not in counts else 0
                counts[path] = count
            elif counts.pop(path, None) is not None:
                self._baseline_bytes -= _bytes_of(path)

    def _count_of(self, path: str) -> cgroupfs.OomKillCount | None:
        return cgroupfs.read_oom_kill_count(self._mount, path) if self._mount is not None else None

    def _compare(self, path: str, noted: _CgroupRecords) -> None:
        count = self._count_of(path) if noted.is_comparable else None
        if count is None:
            return
        if noted.records == 1:
            noted.inode = count.inode
        if noted.inode != count.inode:  # created again under the same name, as for services
            return
        over = _since((self._baseline or {}).get(path), count) - noted.records
        # Negative: the memory belonged to another cgroup, as after a vfork().
        noted.counted_once = max(0, noted.groups - over) if over >= 0 else 0


def _since(baseline: cgroupfs.OomKillCount | None, count: cgroupfs.OomKillCount) -> int:
    is_same = baseline is not None and baseline.inode == count.inode
    return count.oom_kills - (baseline.oom_kills if baseline is not None and is_same else 0)


def _all_counts() -> dict[str, cgroupfs.OomKillCount] | None:
    """The counts of all cgroups that count a kill; None: too many."""
    found: dict[str, cgroupfs.OomKillCount] = {}
    room = BYTES_MAX
    for path, count in cgroupfs.list_oom_kill_counts():
        if count.oom_kills > 0:
            room -= _bytes_of(path)
            if room < 0:
                return None
            found[path] = count
    return found


def _bytes_of(path: str) -> int:
    return len(path) + _ENTRY_BYTES
