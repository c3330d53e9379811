# SPDX-License-Identifier: Apache-2.0
"""What each memory cgroup counts itself, compared with the records of its victims.

The total (tracer/accounting/audit.py) has some slack: the kernel counts the first victim of a group kill twice, unless
that was gone in between.  The victim's cgroup tells which it was, so that no kill that is missing elsewhere hides
behind it; where that is not certain the slack stays.  And the cgroups tell where the kills of a gap were.

All counts are since ``mark_explained``.  A cgroup that is new, or had no kill yet, begins at 0: a baseline is kept only
for those that count something.

Whoever may make cgroups chooses how many there are and how long their paths: what is kept of them has a bound.  Beyond
it nothing is known by cgroup until all are read anew.
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
"""Of the victims' cgroups, and as much again of where cgroups began."""
_ENTRY_BYTES = 400
"""What is kept of one cgroup, beside its path."""
SNAPSHOT_RETRY_S = 60.0
"""Where that was too much, how soon it is tried again."""


class _CgroupRecords:
    """The victims of one cgroup that have a record."""

    def __init__(self) -> None:
        self.records = 0
        self.groups = 0
        """Group kills that began with a victim in it."""
        self.inode: int | None = None
        """Which cgroup of this path they were in; None: that is not known."""
        self.counted_once = 0
        """Group kills that it has counted once, for sure, when it was last read."""
        self.last_ns = 0
        """When the last one was killed."""
        self.is_comparable = True
        """False: some of its group kills are settled, others are not, and its count does not tell which is which."""


class CgroupCounts:
    """Cgroups come and go: one that is gone keeps what was read last, or is left out."""

    def __init__(self) -> None:
        self._mount = cgroupfs.find_mount()
        self._noted: dict[str, _CgroupRecords] = {}
        self._baseline: dict[str, cgroupfs.OomKillCount] | None = {}
        """None: not known (yet)."""
        self._snapshot: dict[str, cgroupfs.OomKillCount] | None = None
        """What ``snapshot`` has found."""
        self._snapshot_number = 0
        """How often ``snapshot`` was asked; what it finds for an earlier time comes too late."""
        self._is_explained = True
        self._prune_at = PRUNE_AT_LEAST
        self._noted_bytes = self._baseline_bytes = 0
        self._snapshot_retry_s: float | None = None
        """When to; None: there is no need."""

    def snapshot(self) -> None:
        """Begin with what the cgroups count now; until a thread has found that out, nothing can be compared."""
        self._baseline, self._snapshot, self._is_explained = None, None, False
        self._snapshot_retry_s = time.monotonic() + SNAPSHOT_RETRY_S
        self._snapshot_number += 1
        threads.start("cgroups", self._take_snapshot, self._snapshot_number)

    def _take_snapshot(self, asked: int) -> None:
        found = _all_counts()
        if asked == self._snapshot_number:
            self._snapshot = found

    def note_kill(self, killed_ns: int, path: str | None, *, group_begins: bool) -> None:
        """A kill in this cgroup (CLOCK_BOOTTIME) has a record; its incident is over, and all of it counted.

        ``group_begins``: it is the first one of a group kill.
        """
        self._begin_if_found()
        if path is None:
            return
        began = (self._baseline or {}).get(path)
        if began is not None and killed_ns <= began.read_ns:
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
        if noted.groups:  # it may be gone soon
            self._compare(path, noted)

    def counted_once(self, until_ns: int | None = None) -> int:
        """How many group kills' first victims the kernel has certainly not counted twice, at least.

        ``until_ns``: of the cgroups in which nobody was killed after that.
        """
        if self._baseline is None:
            return 0
        asked = [each for each in self._noted.items() if until_ns is None or each[1].last_ns <= until_ns]
        for path, noted in asked:
            if noted.groups:
                self._compare(path, noted)
        return sum(noted.counted_once for _, noted in asked)

    def unexplained(self) -> list[CgroupKills]:
        """The cgroups that count more than the records explain; all that count kills if that is not known.

        All cgroups are read, and begin anew.
        """
        counts, began = _all_counts(), self._baseline
        found: list[CgroupKills] = []
        for path, count in (counts or {}).items():
            noted = self._noted.get(path, _CgroupRecords())
            if began is None:
                found.append({"cgroup": path, "oom_kills": count.oom_kills, "records": None})
            elif (kills := _since(began.get(path), count)) > noted.records + noted.groups:
                found.append({"cgroup": path, "oom_kills": kills, "records": noted.records})
        self._noted, self._noted_bytes = {}, 0
        self._begin(counts)
        return nlargest(CGROUPS_MAX, found, key=lambda each: each["oom_kills"] - (each["records"] or 0))

    def mark_explained(self, until_ns: int | None = None) -> None:
        """All is explained, or all until then (CLOCK_BOOTTIME): begin anew."""
        settled = [path for path, noted in self._noted.items() if until_ns is None or noted.last_ns <= until_ns]
        for path in settled:
            del self._noted[path]
            self._noted_bytes -= _bytes_of(path)
        for noted in self._noted.values():
            noted.is_comparable, noted.counted_once = False, 0
        self._is_explained = True
        self._begin_if_found()
        if self._baseline is None:
            if self._snapshot_retry_s is not None and time.monotonic() >= self._snapshot_retry_s:
                self.snapshot()
            return
        self._read(self._baseline, settled)
        if len(self._baseline) > self._prune_at:
            self._read(self._baseline, list(self._baseline))
            self._prune_at = max(PRUNE_AT_LEAST, 2 * len(self._baseline))
        if self._baseline_bytes > BYTES_MAX:
            self._read(self._baseline, list(self._baseline))
            if self._baseline_bytes > BYTES_MAX:
                self._give_up()

    def _begin_if_found(self) -> None:
        is_found = self._baseline is None and self._snapshot is not None
        if is_found and self._is_explained and not self._noted:  # else it began before that was found
            self._begin(self._snapshot)

    def _begin(self, counts: dict[str, cgroupfs.OomKillCount] | None) -> None:
        self._snapshot_number += 1
        self._baseline, self._snapshot = counts, None
        self._baseline_bytes = sum(map(_bytes_of, counts or ()))
        self._snapshot_retry_s = time.monotonic() + SNAPSHOT_RETRY_S if counts is None else None

    def _give_up(self) -> None:
        """There are too many cgroups: what each has counted is no longer known."""
        self._noted, self._noted_bytes, self._is_explained = {}, 0, False
        self._begin(None)

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
        if noted.inode != count.inode:  # made anew under the same name, as services are
            return
        over = _since((self._baseline or {}).get(path), count) - noted.records
        # Less than nothing: the memory was another cgroup's, as after a vfork().
        noted.counted_once = max(0, noted.groups - over) if over >= 0 else 0


def _since(began: cgroupfs.OomKillCount | None, count: cgroupfs.OomKillCount) -> int:
    is_same = began is not None and began.inode == count.inode
    return count.oom_kills - (began.oom_kills if began is not None and is_same else 0)


def _all_counts() -> dict[str, cgroupfs.OomKillCount] | None:
    """Of all cgroups that count a kill; None: they are too many."""
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
