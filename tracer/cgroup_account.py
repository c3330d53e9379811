# SPDX-License-Identifier: Apache-2.0
"""What each memory cgroup counts itself, compared with the records of its victims.

The total (tracer/audit.py) has some slack: the kernel counts the first victim of a group kill twice, unless that was
gone in between.  The victim's cgroup tells which it was, so that no kill that is missing elsewhere hides behind it;
where that is not certain the slack stays.  And the cgroups tell where the kills of a gap were.

All is of the time since ``settle``.  A cgroup that is new, or had no kill yet, begins at 0: only of those that count
something is it kept where they began.
"""

import threading
from collections.abc import Iterable
from heapq import nlargest

from tracer import cgroupfs
from tracer.event import CgroupKills

CGROUPS_MAX = 10
FORGET_AT_LEAST = 1024


class _Noted:
    """The victims of one cgroup that have a record."""

    def __init__(self) -> None:
        self.records = 0
        self.groups = 0
        """Group kills that began with a victim in it."""
        self.inode: int | None = None
        """Which cgroup of this path they were in; None: that is not known."""
        self.counted_once = 0
        """Group kills that it has counted once, for sure, when it was last read."""


class CgroupAccount:
    """Cgroups come and go: one that is gone keeps what was read last, or is left out."""

    def __init__(self) -> None:
        self._mount = cgroupfs.mounted()
        self._noted: dict[str, _Noted] = {}
        self._began: dict[str, cgroupfs.Count] | None = {}
        """None: not known (yet)."""
        self._found: dict[str, cgroupfs.Count] | None = None
        """What ``learn`` has found."""
        self._is_settled = True
        self._forget_at = FORGET_AT_LEAST

    def learn(self) -> None:
        """Begin with what the cgroups count now; until a thread has found that out, nothing can be compared."""
        self._began, self._is_settled = None, False
        threading.Thread(target=self._learn, name="cgroups", daemon=True).start()

    def _learn(self) -> None:
        self._found = _all_counts()

    def note(self, killed_ns: int, path: str | None, *, group_begins: bool) -> None:
        """A kill in this cgroup (CLOCK_BOOTTIME) has a record; its incident is over, and all of it counted.

        ``group_begins``: it is the first one of a group kill.
        """
        self._begin_if_found()
        if path is None:
            return
        began = (self._began or {}).get(path)
        if began is not None and killed_ns <= began.read_ns:
            return
        noted = self._noted.setdefault(path, _Noted())
        noted.records += 1
        noted.groups += group_begins
        if noted.groups:  # it may be gone soon
            self._compare(path, noted)

    def counted_once(self) -> int:
        """How many group kills' first victims the kernel has certainly not counted twice, at least."""
        if self._began is None:
            return 0
        for path, noted in self._noted.items():
            if noted.groups:
                self._compare(path, noted)
        return sum(noted.counted_once for noted in self._noted.values())

    def unexplained(self) -> list[CgroupKills]:
        """The cgroups that count more than the records explain; all that count kills if that is not known.

        All cgroups are read, and begin anew.
        """
        counts, began = _all_counts(), self._began
        found: list[CgroupKills] = []
        for path, count in counts.items():
            noted = self._noted.get(path, _Noted())
            if began is None:
                found.append({"cgroup": path, "oom_kills": count.oom_kills, "records": None})
            elif (kills := _since(began.get(path), count)) > noted.records + noted.groups:
                found.append({"cgroup": path, "oom_kills": kills, "records": noted.records})
        self._noted, self._began = {}, counts
        return nlargest(CGROUPS_MAX, found, key=lambda each: each["oom_kills"] - (each["records"] or 0))

    def settle(self) -> None:
        """All is explained: begin anew."""
        noted, self._noted, self._is_settled = self._noted, {}, True
        self._begin_if_found()
        if self._began is None:
            return
        self._read(self._began, noted)
        if len(self._began) > self._forget_at:
            self._read(self._began, list(self._began))
            self._forget_at = max(FORGET_AT_LEAST, 2 * len(self._began))

    def _begin_if_found(self) -> None:
        if self._began is None and self._is_settled and not self._noted:  # else it began before that was found
            self._began = self._found

    def _read(self, counts: dict[str, cgroupfs.Count], paths: Iterable[str]) -> None:
        for path in paths:
            count = self._count_of(path)
            if count is not None:
                counts[path] = count
            else:
                counts.pop(path, None)

    def _count_of(self, path: str) -> cgroupfs.Count | None:
        return cgroupfs.count_of(self._mount, path) if self._mount is not None else None

    def _compare(self, path: str, noted: _Noted) -> None:
        count = self._count_of(path)
        if count is None:
            return
        if noted.records == 1:
            noted.inode = count.inode
        if noted.inode != count.inode:  # made anew under the same name, as services are
            return
        over = _since((self._began or {}).get(path), count) - noted.records
        # Less than nothing: the memory was another cgroup's, as after a vfork().
        noted.counted_once = max(0, noted.groups - over) if over >= 0 else 0


def _since(began: cgroupfs.Count | None, count: cgroupfs.Count) -> int:
    is_same = began is not None and began.inode == count.inode
    return count.oom_kills - (began.oom_kills if began is not None and is_same else 0)


def _all_counts() -> dict[str, cgroupfs.Count]:
    """Of all cgroups that count a kill."""
    return {path: count for path, count in cgroupfs.counts() if count.oom_kills > 0}
