# SPDX-License-Identifier: Apache-2.0
"""The audit: compares the kernel's count of OOM kills with the kills that have a record.

The kernel counts a kill in /proc/vmstat (oom_kill) before the BPF programs see it.  It counts the first victim of a
group kill twice, unless the victim is gone before the second time: the audit allows that many more, except where the
victim's cgroup shows that it counted once.  A victim that is slow to die counts again in each later group kill that
includes it; the BPF programs report these.

While kills are less than QUIET_NS apart, the count is sampled, and compared QUIET_NS later with the records of earlier
kills: a process that causes kills all the time cannot prevent the comparison.
"""

from collections import deque
from collections.abc import Callable

from tracer.accounting.cgroup_counts import CgroupCounts
from tracer.accounting.ledger import Ledger, LedgerEntry
from tracer.base.clock import boottime_ns, boottime_to_rfc3339
from tracer.records.model import HOST_PLACEHOLDER, SCHEMA, Gap, Victim

QUIET_NS = 1_000_000_000
"""The counts are compared this long after the last event, and again if they differ: a kill may be in progress."""
GROUPS_MAX = 8192
"""Group kills of the last seconds; the kernel takes a millisecond for each."""
IN_PROGRESS_NS = 1_000_000
"""A kill whose begin is unknown may have begun this long before it was seen."""


class _Sample:
    """The kernel's count at a moment, and the kills noted since then that happened later."""

    def __init__(self, counted: int) -> None:
        self.counted = counted
        self.at_ns = boottime_ns()
        self.kills = self.groups = 0
        self.is_kill_in_progress = False
        """A kill was in progress and may be in the count already; one at most, as one OOM killer runs at a time."""

    def note(self, killed_ns: int, began_ns: int, counts_twice: bool) -> None:
        if killed_ns > self.at_ns:
            self.kills += 1
            self.groups += counts_twice
            self.is_kill_in_progress = self.is_kill_in_progress or began_ns < self.at_ns


class Audit:
    """Times (``now_ns``, deadlines) are of any clock that the calls share."""

    def __init__(self, ledger: Ledger, count: Callable[[], int | None]) -> None:
        self._ledger = ledger
        self._count = count
        self._cgroups = CgroupCounts()
        self._deadline_ns: int | None = None
        self._sample: _Sample | None = None
        self._sample_deadline_ns = 0
        """When to take or judge the next sample."""
        self._is_sample_judged = False
        """``kills_are_missing`` has returned True because of the sample."""
        self._fewest_missing: int | None = None
        """The fewest missing kills of consecutive samples: a kill in progress is in one of them only."""
        self._group_kills: deque[int] = deque(maxlen=GROUPS_MAX)
        """Times of the latest group kills, CLOCK_BOOTTIME."""
        self._has_counted = False
        self._suspect: tuple[int, int] | None = None
        """Counted and explained kills when they last differed."""
        self._noted_earlier: set[LedgerEntry] | None = None
        """Kills that an earlier run has noted, while its last events are read again; None: not loaded yet."""
        self._began_ns = boottime_ns()
        self._group: str | None = None
        self.may_repeat_gap = True
        """Nothing was compared yet in this run: an earlier run may have written the next gap."""

    def start(self, now_ns: int) -> None:
        """Schedule the first comparison, and take a snapshot of the cgroups' counts."""
        if not self._ledger.is_new or self._ledger.since_ns is not None:  # otherwise all kills since boot are compared
            self._cgroups.snapshot()
        self.rearm(now_ns)

    def note_kill(self, killed_ns: int, victim: Victim, group: str | None, began_ns: int | None = None) -> None:
        """A kill has a record.  ``group``: the id of its incident if ``memory.oom.group`` is set.

        ``began_ns``: the begin of the incident, CLOCK_BOOTTIME.
        """
        tid = victim["tid"]
        if self._is_noted(killed_ns, tid):
            return
        is_first = group not in (None, self._group)
        self._note(killed_ns, began_ns, tid, counts_twice=is_first)
        # Only the chosen victim, which has points, is certain to be the first that the kernel killed.
        self._cgroups.note_kill(killed_ns, victim["cgroup"], group_begins=is_first and victim["points"] is not None)
        self._group = group

    def note_repeated_kill(self, killed_ns: int, tid: int) -> None:
        """The kernel has killed a victim again that has a record."""
        if not self._is_noted(killed_ns, tid):
            self._note(killed_ns, None, tid, counts_twice=False)

    def _note(self, killed_ns: int, began_ns: int | None, tid: int, *, counts_twice: bool) -> None:
        self._ledger.note(killed_ns, tid, counts_twice)
        if self._sample is not None:
            if began_ns is None or began_ns >= killed_ns:
                began_ns = killed_ns - IN_PROGRESS_NS
            self._sample.note(killed_ns, began_ns, counts_twice)
        if counts_twice:
            self._group_kills.append(killed_ns)

    def _is_noted(self, killed_ns: int, tid: int) -> bool:
        """Whether an earlier run has noted this kill: its event is read again."""
        if killed_ns >= self._began_ns:
            self._noted_earlier = set()
        elif self._noted_earlier is None:
            self._noted_earlier = set(self._ledger.entries())
        return bool(self._noted_earlier) and LedgerEntry(killed_ns, tid) in self._noted_earlier

    def rearm(self, now_ns: int) -> None:
        """An event was handled: compare the counts when no more follow."""
        if self._deadline_ns is None:
            self._sample_deadline_ns = now_ns + QUIET_NS
        self._deadline_ns = now_ns + QUIET_NS

    def deadline_ns(self) -> int | None:
        """When ``kills_are_missing`` has to be called; None: not before the next ``rearm``."""
        if self._deadline_ns is None:
            return None
        return min(self._deadline_ns, self._sample_deadline_ns)

    def kills_are_missing(self, now_ns: int) -> bool:
        """Whether the kernel has counted kills without a record; before the deadline False."""
        if self._is_sample_judged:  # the caller has not closed the gap: an incident was open
            self._sample, self._is_sample_judged = None, False
        if self._deadline_ns is None:
            return False
        if now_ns < self._deadline_ns:
            return self._are_missing_between(now_ns)
        self._deadline_ns = self._sample = self._fewest_missing = None
        counted = self._count()
        if counted is None:
            if self._has_counted:  # for example no free descriptor
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
        """As ``kills_are_missing``, while kills continue."""
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
            self._fewest_missing = None
        elif missing <= sample.is_kill_in_progress:
            self._sample = None
        elif self._fewest_missing is None:
            self._fewest_missing, self._sample = missing - sample.is_kill_in_progress, None
        else:
            self._fewest_missing = min(self._fewest_missing, missing - sample.is_kill_in_progress)
            sample.counted -= missing - self._fewest_missing  # these were in progress, and their records follow
            self._is_sample_judged = True
        return self._is_sample_judged

    def kill_times(self) -> dict[int, list[int]]:
        """The times of kills with a record, CLOCK_BOOTTIME, by thread id."""
        times: dict[int, list[int]] = {}
        for entry in self._ledger.entries():
            times.setdefault(entry.tid, []).append(entry.killed_ns)
        return times

    @property
    def since_ns(self) -> int:
        """When last all kills were explained, CLOCK_BOOTTIME."""
        return self._ledger.since_ns or 0

    def missing(self) -> int:
        """How many kills without a record the kernel has counted by now, at least."""
        counted = self._count()
        self._sample, self._is_sample_judged = None, False
        self._suspect = None if counted is None else (counted, self._ledger.explained)
        return 0 if counted is None else max(0, self._missing(counted))

    def certainly_missing(self) -> int:
        """As found last; 0 if the counts have changed since then, because kills are in progress.

        While kills continue: as many as were missing at the sample, QUIET_NS ago.
        """
        if self._sample is not None and self._is_sample_judged:
            return max(0, self._missing_by(self._sample))
        if self._suspect is None or self._suspect != (self._count(), self._ledger.explained):
            return 0
        return max(0, self._missing(self._suspect[0]))

    def hold(self) -> Callable[[], None]:
        """As ``Ledger.hold``."""
        return self._ledger.hold()

    def start_from_now(self) -> None:
        """Compare only kills from now on."""
        counted = self._count()
        if counted is not None:
            self._ledger.mark_explained(counted, boottime_ns())

    def close_gap(self) -> Gap | None:
        """Mark all kills as explained; those still missing become a gap record, without seq and host.

        Kills counted after the kills were certainly missing are not included: their events are yet to be read.
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
        self._suspect = self._fewest_missing = None
        return gap

    def _mark_explained(self, counted: int) -> None:
        self._sample, self._is_sample_judged, self.may_repeat_gap = None, False, False
        self._ledger.mark_explained(counted, boottime_ns())
        self._cgroups.mark_explained()

    def _mark_explained_by(self, sample: _Sample) -> None:
        """Mark all kills before the sample as explained."""
        # The first victim of a group kill that had just begun may be counted a second time after the sample.
        begun_ns = sample.at_ns - QUIET_NS
        groups = sum(1 for killed_ns in self._group_kills if killed_ns > begun_ns)
        # The programs see a kill before the kernel counts it, so the last one may be missing in the sample.  If the
        # count shows that, the kill is added; if group kills hide it, one more is allowed later.
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
