# SPDX-License-Identifier: Apache-2.0
"""Compares what the kernel has counted with what has a record.

The kernel counts a kill in /proc/vmstat (oom_kill) before it can be seen, and a group kill's first victim twice, unless
that was gone in between: so many more are nothing to tell of, but for those whose cgroup tells that it counted once.
A victim that is slow to die counts again in each later group kill that it is in: of these the BPF programs tell.

Where kills are less than QUIET_NS apart the count is read in between, and compared QUIET_NS later with the records of
what was killed before: whoever has processes killed all the time keeps nothing from being compared.
"""

from collections import deque
from collections.abc import Callable

from tracer.accounting.cgroup_counts import CgroupCounts
from tracer.accounting.ledger import Ledger, LedgerEntry
from tracer.base.clock import boottime_ns, boottime_to_rfc3339
from tracer.records.model import HOST_PLACEHOLDER, SCHEMA, Gap, Victim

QUIET_NS = 1_000_000_000
"""So long after the last event the counts are compared, and again when they differ: a kill may be under way."""
GROUPS_MAX = 8192
"""Group kills of the last seconds: the kernel needs a millisecond for one."""
UNDER_WAY_NS = 1_000_000
"""So long before it was seen a kill may have begun where that is not known."""


class _Sample:
    """The kernel's count now, and what is noted from here on of later kills."""

    def __init__(self, counted: int) -> None:
        self.counted = counted
        self.at_ns = boottime_ns()
        self.kills = self.groups = 0
        self.is_amid = False
        """A kill was under way, one at most, as one OOM killer runs at a time: it may have been counted already."""

    def note(self, killed_ns: int, began_ns: int, counts_twice: bool) -> None:
        if killed_ns > self.at_ns:
            self.kills += 1
            self.groups += counts_twice
            self.is_amid = self.is_amid or began_ns < self.at_ns


class Audit:
    """Times are of any clock that the calls share."""

    def __init__(self, ledger: Ledger, count: Callable[[], int | None]) -> None:
        self._ledger = ledger
        self._count = count
        self._cgroups = CgroupCounts()
        self._deadline_ns: int | None = None
        self._sample: _Sample | None = None
        self._sample_deadline_ns = 0
        """When to take the next one."""
        self._is_sample_judged = False
        """``kills_are_missing`` has found that by it kills are missing."""
        self._fewest: int | None = None
        """What was missing by each sample in a row, at least: kills that are under way are in one of them only."""
        self._group_kills: deque[int] = deque(maxlen=GROUPS_MAX)
        """When the latest group kills began, CLOCK_BOOTTIME."""
        self._has_counted = False
        self._suspect: tuple[int, int] | None = None
        self._earlier: set[LedgerEntry] | None = None
        """Kills that an earlier run has noted, while its last events are read again; None: not asked for yet."""
        self._began_ns = boottime_ns()
        self._group: str | None = None
        self.may_repeat_gap = True
        """Nothing was settled yet in this run: an earlier one may have told the gap that is to come."""

    def start(self, now_ns: int) -> None:
        """Compare what was before, and learn what the cgroups have counted."""
        if not self._ledger.is_new or self._ledger.since_ns is not None:  # else all since boot is compared
            self._cgroups.snapshot()
        self.rearm(now_ns)

    def note_kill(self, killed_ns: int, victim: Victim, group: str | None, began_ns: int | None = None) -> None:
        """A kill has a record; ``group`` names the incident where ``memory.oom.group`` is set.

        ``began_ns``: when the OOM killer began, CLOCK_BOOTTIME.
        """
        tid = victim["tid"]
        if self._is_noted(killed_ns, tid):
            return
        is_first = group not in (None, self._group)
        self._note(killed_ns, began_ns, tid, counts_twice=is_first)
        # Of the chosen one alone, which has points, it is certain that the kernel killed it before the others.
        self._cgroups.note_kill(killed_ns, victim["cgroup"], group_begins=is_first and victim["points"] is not None)
        self._group = group

    def note_repeated_kill(self, killed_ns: int, tid: int) -> None:
        """The kernel has killed a victim once more that has a record."""
        if not self._is_noted(killed_ns, tid):
            self._note(killed_ns, None, tid, counts_twice=False)

    def _note(self, killed_ns: int, began_ns: int | None, tid: int, *, counts_twice: bool) -> None:
        self._ledger.note(killed_ns, tid, counts_twice)
        if self._sample is not None:
            if began_ns is None or began_ns >= killed_ns:
                began_ns = killed_ns - UNDER_WAY_NS
            self._sample.note(killed_ns, began_ns, counts_twice)
        if counts_twice:
            self._group_kills.append(killed_ns)

    def _is_noted(self, killed_ns: int, tid: int) -> bool:
        """Whether an earlier run has noted this kill, whose event is read again."""
        if killed_ns >= self._began_ns:
            self._earlier = set()
        elif self._earlier is None:
            self._earlier = set(self._ledger.entries())
        return bool(self._earlier) and LedgerEntry(killed_ns, tid) in self._earlier

    def rearm(self, now_ns: int) -> None:
        """Something happened: the counts will have to be compared."""
        if self._deadline_ns is None:
            self._sample_deadline_ns = now_ns + QUIET_NS
        self._deadline_ns = now_ns + QUIET_NS

    def deadline_ns(self) -> int | None:
        """When ``kills_are_missing`` has to be asked; None: there is no need."""
        if self._deadline_ns is None:
            return None
        return min(self._deadline_ns, self._sample_deadline_ns)

    def kills_are_missing(self, now_ns: int) -> bool:
        """Whether the kernel has counted kills that have no record; asked too early it says no."""
        if self._is_sample_judged:  # and the kernel log was no help: an incident was open
            self._sample, self._is_sample_judged = None, False
        if self._deadline_ns is None:
            return False
        if now_ns < self._deadline_ns:
            return self._are_missing_between(now_ns)
        self._deadline_ns = self._sample = self._fewest = None
        counted = self._count()
        if counted is None:
            if self._has_counted:  # no descriptor is free
                self.rearm(now_ns)
            return False
        self._has_counted = True
        if self._missing(counted) <= 0:
            self._suspect = None
            self._mark_explained(counted)
            return False
        seen = counted, self._ledger.explained
        if seen != self._suspect:
            self._suspect = seen
            self._deadline_ns = self._sample_deadline_ns = now_ns + QUIET_NS
            return False
        return True

    def _are_missing_between(self, now_ns: int) -> bool:
        """The same while kills go on."""
        if now_ns < self._sample_deadline_ns:
            return False
        self._sample_deadline_ns, sample = now_ns + QUIET_NS, self._sample
        if sample is None:
            counted = self._count()
            self._sample = None if counted is None else _Sample(counted)
            return False
        missing = self._missing_by(sample)
        if missing <= 0:
            self._mark_explained_by(sample)
            self._fewest = None
        elif missing <= sample.is_amid:
            self._sample = None
        elif self._fewest is None:
            self._fewest, self._sample = missing - sample.is_amid, None
        else:
            self._fewest = min(self._fewest, missing - sample.is_amid)
            sample.counted -= missing - self._fewest  # they were under way, and come later
            self._is_sample_judged = True
        return self._is_sample_judged

    def kill_times(self) -> dict[int, list[int]]:
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
        self._sample, self._is_sample_judged = None, False
        self._suspect = None if counted is None else (counted, self._ledger.explained)
        return 0 if counted is None else max(0, self._missing(counted))

    def certainly_missing(self) -> int:
        """As many, unless the counts have changed since this was last asked: then kills are under way, and it is 0.

        While kills go on: as many as were missing QUIET_NS ago.
        """
        if self._sample is not None and self._is_sample_judged:
            return max(0, self._missing_by(self._sample))
        if self._suspect is None or self._suspect != (self._count(), self._ledger.explained):
            return 0
        return max(0, self._missing(self._suspect[0]))

    def hold(self) -> Callable[[], None]:
        """Keep from the disk what is noted and settled from here on, until what is returned is called."""
        return self._ledger.hold()

    def start_from_now(self) -> None:
        """Compare only what comes from now on."""
        counted = self._count()
        if counted is not None:
            self._ledger.mark_explained(counted, boottime_ns())

    def close_gap(self) -> Gap | None:
        """Begin anew; what is still missing becomes a record, without what the daemon adds (seq, host).

        What the kernel has counted since it was certain that kills are missing is yet to be read.
        """
        ledger, sample = self._ledger, self._sample if self._is_sample_judged else None
        counted = sample.counted if sample else self._count() if self._suspect is None else self._suspect[0]
        if counted is None:
            return None
        missing = self._missing_by(sample) if sample else self._missing(counted)
        now_ns, later = (sample.at_ns, sample.kills) if sample else (boottime_ns(), 0)
        gap: Gap | None = None
        if missing > 0:
            gap = {
                "schema": SCHEMA,
                "type": "gap",
                "time": boottime_to_rfc3339(now_ns),
                "seq": 0,
                "host": HOST_PLACEHOLDER,
                "id": f"{ledger.boot}-{ledger.explained - ledger.kills:x}-{counted:x}",
                "since": None if ledger.since_ns is None else boottime_to_rfc3339(ledger.since_ns),
                "oom_kills": counted - (ledger.explained - ledger.kills),
                "records": ledger.kills - later,
                "missing": missing,
                "cgroups": self._cgroups.unexplained(),
            }
        if sample:
            self._mark_explained_by(sample)
        else:
            self._mark_explained(counted)
        self._suspect = self._fewest = None
        return gap

    def _mark_explained(self, counted: int) -> None:
        self._sample, self._is_sample_judged, self.may_repeat_gap = None, False, False
        self._ledger.mark_explained(counted, boottime_ns())
        self._cgroups.mark_explained()

    def _mark_explained_by(self, sample: _Sample) -> None:
        """All until then is explained."""
        # Of a group kill that had just begun the first victim may have been counted a second time after that.
        begun_ns = sample.at_ns - QUIET_NS
        groups = sum(1 for killed_ns in self._group_kills if killed_ns > begun_ns)
        # The programs see a kill before the kernel counts it: the last one may not have been counted yet.  Where the
        # count tells that, it is taken for counted; where group kills hide it, there may be one more later.
        groups += self._ledger.groups > sample.groups
        counted = max(sample.counted, self._ledger.explained - sample.kills)
        self._sample, self._is_sample_judged, self.may_repeat_gap = None, False, False
        self._ledger.mark_explained(counted, sample.at_ns, sample.kills, groups)
        self._cgroups.mark_explained(sample.at_ns)

    def _missing_by(self, sample: _Sample) -> int:
        over = sample.counted - (self._ledger.explained - sample.kills)
        return self._unexplained(over, self._ledger.groups - sample.groups, sample.at_ns)

    def _missing(self, counted: int) -> int:
        return self._unexplained(counted - self._ledger.explained, self._ledger.groups, None)

    def _unexplained(self, over: int, groups: int, until_ns: int | None) -> int:
        return over - groups + (self._cgroups.counted_once(until_ns) if over > 0 and groups else 0)
