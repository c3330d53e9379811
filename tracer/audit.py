# SPDX-License-Identifier: Apache-2.0
"""Compares what the kernel has counted with what has a record.

The kernel counts a kill in /proc/vmstat (oom_kill) before it can be seen, and a group kill's first victim twice, unless
that was gone in between: so many more are nothing to tell of, but for those whose cgroup tells that it counted once.
A victim that is slow to die counts again in each later group kill that it is in: of these the BPF programs tell.
"""

from collections.abc import Callable

from tracer.cgroup_account import CgroupAccount
from tracer.clock import at_boottime, boottime_ns
from tracer.event import NOBODY, Gap, Victim
from tracer.ledger import Entry, Ledger

QUIET_NS = 1_000_000_000
"""So long after the last event the counts are compared, and again when they differ: a kill may be under way."""


class Audit:
    """Times are of any clock that the calls share."""

    def __init__(self, ledger: Ledger, count: Callable[[], int | None]) -> None:
        self._ledger = ledger
        self._count = count
        self._cgroups = CgroupAccount()
        self._due_ns: int | None = None
        self._suspect: tuple[int, int] | None = None
        self._earlier: set[Entry] | None = None
        """Kills that an earlier run has noted, while its last events are read again; None: not asked for yet."""
        self._began_ns = boottime_ns()
        self._group: str | None = None
        self.is_first = True
        """Nothing was settled yet in this run: an earlier one may have told the gap that is to come."""

    def start(self, now_ns: int) -> None:
        """Compare what was before, and learn what the cgroups have counted."""
        if not self._ledger.is_new or self._ledger.since_ns is not None:  # else all since boot is compared
            self._cgroups.learn()
        self.touched(now_ns)

    def note(self, killed_ns: int, victim: Victim, group: str | None) -> None:
        """A kill has a record; ``group`` names the incident where ``memory.oom.group`` is set."""
        tid = victim["tid"]
        if self._is_noted(killed_ns, tid):
            return
        is_first = group not in (None, self._group)
        self._ledger.note(killed_ns, tid, counts_twice=is_first)
        # Of the chosen one alone, which has points, it is certain that the kernel killed it before the others.
        self._cgroups.note(killed_ns, victim["cgroup"], group_begins=is_first and victim["points"] is not None)
        self._group = group

    def note_again(self, killed_ns: int, tid: int) -> None:
        """The kernel has killed a victim once more that has a record."""
        if not self._is_noted(killed_ns, tid):
            self._ledger.note(killed_ns, tid, counts_twice=False)

    def _is_noted(self, killed_ns: int, tid: int) -> bool:
        """Whether an earlier run has noted this kill, whose event is read again."""
        if killed_ns >= self._began_ns:
            self._earlier = set()
        elif self._earlier is None:
            self._earlier = set(self._ledger.entries())
        return bool(self._earlier) and Entry(killed_ns, tid) in self._earlier

    def touched(self, now_ns: int) -> None:
        """Something happened: the counts will have to be compared."""
        self._due_ns = now_ns + QUIET_NS

    def next_ns(self) -> int | None:
        """When ``kills_are_missing`` has to be asked; None: there is no need."""
        return self._due_ns

    def kills_are_missing(self, now_ns: int) -> bool:
        """Whether the kernel has counted kills that have no record; asked too early it says no."""
        if self._due_ns is None or now_ns < self._due_ns:
            return False
        self._due_ns = None
        counted = self._count()
        if counted is None:
            return False
        if self._missing(counted) <= 0:
            self._suspect = None
            self.is_first = False
            self._ledger.settle(counted, boottime_ns())
            self._cgroups.settle()
            return False
        seen = counted, self._ledger.explained
        if seen != self._suspect:
            self._suspect = seen
            self._due_ns = now_ns + QUIET_NS
            return False
        return True

    def known(self) -> dict[int, list[int]]:
        """When threads were killed of which there is a record, CLOCK_BOOTTIME, by their ids."""
        found: dict[int, list[int]] = {}
        for entry in self._ledger.entries():
            found.setdefault(entry.tid, []).append(entry.killed_ns)
        return found

    @property
    def since_ns(self) -> int:
        """When last all was explained, CLOCK_BOOTTIME."""
        return self._ledger.since_ns or 0

    def missing(self) -> int:
        """How many more the kernel has counted at this moment, at least."""
        counted = self._count()
        self._suspect = None if counted is None else (counted, self._ledger.explained)
        return 0 if counted is None else max(0, self._missing(counted))

    def certainly_missing(self) -> int:
        """As many, unless the counts have changed since this was last asked: then kills are under way, and it is 0."""
        if self._suspect is None or self._suspect != (self._count(), self._ledger.explained):
            return 0
        return max(0, self._missing(self._suspect[0]))

    def hold(self) -> Callable[[], None]:
        """Keep from the disk what is noted and settled from here on, until what is returned is called."""
        return self._ledger.hold()

    def begin(self) -> None:
        """Compare only what comes from now on."""
        counted = self._count()
        if counted is not None:
            self._ledger.settle(counted, boottime_ns())

    def settle(self) -> Gap | None:
        """Begin anew; what is still missing becomes a record, without what the daemon adds (seq, host).

        What the kernel has counted since it was certain that kills are missing is yet to be read.
        """
        counted = self._count() if self._suspect is None else self._suspect[0]
        if counted is None:
            return None
        missing, now_ns, ledger = self._missing(counted), boottime_ns(), self._ledger
        gap: Gap | None = None
        if missing > 0:
            gap = {
                "schema": 1,
                "type": "gap",
                "time": at_boottime(now_ns),
                "seq": 0,
                "host": NOBODY,
                "id": f"{ledger.boot}-{ledger.explained - ledger.kills:x}-{counted:x}",
                "since": None if ledger.since_ns is None else at_boottime(ledger.since_ns),
                "oom_kills": counted - (ledger.explained - ledger.kills),
                "records": ledger.kills,
                "missing": missing,
                "cgroups": self._cgroups.unexplained(),
            }
        else:
            self._cgroups.settle()
        ledger.settle(counted, now_ns)
        self._suspect = None
        self.is_first = False
        return gap

    def _missing(self, counted: int) -> int:
        over, groups = counted - self._ledger.explained, self._ledger.groups
        return over - groups + (self._cgroups.counted_once() if over > 0 and groups else 0)
