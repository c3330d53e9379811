# SPDX-License-Identifier: Apache-2.0
"""audit.py: what the kernel counts and no record tells is found, once it is certain, and told once."""

from pathlib import Path

import pytest

from tests.harness import events
from tests.harness.cgroup_tree import CgroupTree
from tests.harness.environment import wait_until
from tests.harness.records import complete
from tracer.accounting.audit import QUIET_NS, Audit
from tracer.accounting.ledger import Ledger
from tracer.base.clock import boottime_ns, boottime_to_rfc3339
from tracer.pipeline.incidents import JoinedKill
from tracer.records.model import Victim

VICTIM = complete(JoinedKill(events.victim(), None, None, (), (), ()))["victim"]
BOOT = "6a4ce4a0-ba47-11ea-b2a7-0cc47ac5979e"


NOW_NS = 2**62
"""After all that an earlier run has noted."""


class Kernel:
    """Its count."""

    oom_kills: int | None = 40

    def count(self) -> int | None:
        return self.oom_kills


class Case:
    """A ledger for which 40 kills are explained, and the kernel's count to compare it with."""

    def __init__(self) -> None:
        self.kernel, self.ledger = Kernel(), Ledger(None, BOOT)
        self.ledger.mark_explained(40, 1)
        self.audit = Audit(self.ledger, self.kernel.count)
        self.now_ns = 0

    def missing(self) -> bool:
        """Whether kills are missing, asked until there is nothing more to wait for."""
        self.audit.rearm(self.now_ns)
        for _ in range(3):
            self.now_ns += QUIET_NS
            if self.audit.kills_are_missing(self.now_ns):
                return True
            if self.audit.deadline_ns() is None:
                return False
        raise AssertionError("it never comes to an end")


@pytest.fixture(autouse=True)
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CgroupTree:
    """This machine's own kills are not the subject."""
    tree = CgroupTree(tmp_path, monkeypatch)
    for path, oom_kills in (("/a", 0), ("/b", 3), ("/c", 5)):
        tree.count(path, oom_kills)
    return tree


def victim(tid: int, cgroup: str = "/a", points: int | None = None) -> Victim:
    made = VICTIM.copy()
    made["tid"], made["cgroup"], made["points"] = tid, cgroup, points
    return made


def test_all_is_told() -> None:
    """As many records as the kernel has counted."""
    case = Case()
    case.kernel.oom_kills = 41
    case.ledger.note(5, 17, counts_twice=False)
    assert not case.missing()
    assert (case.ledger.explained, case.ledger.kills) == (41, 0)


@pytest.mark.parametrize("counted", [43, 44])
def test_group_kill(counted: int) -> None:
    """A group kill of three counts three or four."""
    case = Case()
    case.kernel.oom_kills = counted
    for pid, twice in ((17, True), (18, False), (19, False)):
        case.ledger.note(5, pid, counts_twice=twice)
    assert not case.missing()
    assert (counted, 0) == (case.ledger.explained, case.ledger.groups)


def test_killed_again() -> None:
    """A victim that is killed once more counts once more; its thread is known at both times. Read again, it is one."""
    case = Case()
    case.kernel.oom_kills = 42
    case.audit.note_kill(5, victim(17), None)
    for _ in range(2):
        case.audit.note_repeated_kill(9, 17)
        case.audit = Audit(case.ledger, case.kernel.count)
    assert case.audit.kill_times() == {17: [5, 9]}
    assert not case.missing()
    case.kernel.oom_kills = 43
    assert case.missing()


def test_missing() -> None:
    """What is missing is told once, with the cgroups that count kills."""
    case = Case()
    case.kernel.oom_kills = 43
    case.ledger.note(5, 17, counts_twice=False)
    assert case.missing()
    gap = case.audit.close_gap()
    assert gap is not None
    assert (gap["oom_kills"], gap["records"], gap["missing"]) == (3, 1, 2)
    assert gap["since"] is not None
    assert gap["since"][:19] == boottime_to_rfc3339(1)[:19]
    assert [(each["cgroup"], each["oom_kills"]) for each in gap["cgroups"]] == [("/c", 5), ("/b", 3)]
    assert [each["records"] for each in gap["cgroups"]] == [0, 0]
    assert not case.missing()


def test_missing_from_now_on(tree: CgroupTree) -> None:
    """Once all was explained only cgroups are named that count more since then than there are records."""
    case = Case()
    case.audit.start(0)
    wait_until("the cgroups are read", lambda: case.audit._cgroups._snapshot is not None)
    assert not case.missing()
    case.kernel.oom_kills = 43
    tree.count("/a", 1)
    tree.count("/b", 5)
    case.audit.note_kill(NOW_NS, victim(17, "/a"), None)
    assert case.missing()
    gap = case.audit.close_gap()
    assert gap is not None
    assert (gap["oom_kills"], gap["records"], gap["missing"]) == (3, 1, 2)
    assert gap["cgroups"] == [{"cgroup": "/b", "oom_kills": 2, "records": 0}]
    assert not case.missing()


@pytest.mark.parametrize(("points", "missing"), [(900, True), (None, False)])
def test_hidden_by_a_group_kill(tree: CgroupTree, points: int | None, missing: bool) -> None:
    """The first victim of a group kill was counted once, a kill elsewhere has no record: as much as if it was twice.

    The cgroup tells which, if it is certain that the victim was the first.
    """
    case = Case()
    case.audit.start(0)
    wait_until("the cgroups are read", lambda: case.audit._cgroups._snapshot is not None)
    assert not case.missing()
    case.kernel.oom_kills = 43
    tree.count("/a", 2)
    tree.count("/b", 4)
    case.audit.note_kill(NOW_NS, victim(17, "/a", points), "group")
    case.audit.note_kill(NOW_NS, victim(18, "/a"), "group")
    assert case.missing() == missing
    gap = case.audit.close_gap()
    told = (gap["missing"], gap["cgroups"]) if gap else None
    assert told == ((1, [{"cgroup": "/b", "oom_kills": 1, "records": 0}]) if missing else None)


def test_found_in_time() -> None:
    """What was missing and is found elsewhere is no gap."""
    case = Case()
    case.kernel.oom_kills = 41
    assert case.missing()
    case.ledger.note(5, 17, counts_twice=False)
    assert case.audit.close_gap() is None
    assert not case.missing()


def test_under_way() -> None:
    """The kernel counts a kill before it can be seen: the first difference tells nothing."""
    case = Case()
    case.kernel.oom_kills = 41
    case.audit.rearm(0)
    assert not case.audit.kills_are_missing(QUIET_NS - 1)
    assert not case.audit.kills_are_missing(QUIET_NS)
    case.ledger.note(5, 17, counts_twice=False)
    assert not case.audit.kills_are_missing(2 * QUIET_NS)
    assert case.audit.deadline_ns() is None


def test_more_under_way() -> None:
    """Another difference than before is a new one."""
    case = Case()
    case.kernel.oom_kills = 41
    case.audit.rearm(0)
    assert not case.audit.kills_are_missing(QUIET_NS)
    case.kernel.oom_kills = 42
    assert not case.audit.kills_are_missing(2 * QUIET_NS)
    assert case.audit.kills_are_missing(3 * QUIET_NS)


def test_noted_by_an_earlier_run() -> None:
    """What was noted and is read again, as its record was not written, is not noted twice."""
    case = Case()
    case.ledger.note(5, 17, counts_twice=False)
    again = Audit(case.ledger, case.kernel.count)
    again.note_kill(5, victim(17), None)
    assert case.ledger.explained == 41
    again.note_kill(6, victim(18), None)
    assert case.ledger.explained == 42


def test_group_kills_are_noted() -> None:
    """One kill of each group kill may be counted twice."""
    case = Case()
    for number, group in enumerate(("a", "a", "b", None, "c")):
        case.audit.note_kill(NOW_NS, victim(number), group)
    assert (case.ledger.explained, case.ledger.groups) == (45, 3)


def test_known() -> None:
    """Kills with a record, by thread."""
    case = Case()
    for killed_ns, tid in ((5, 17), (6, 18), (7, 17)):
        case.audit.note_kill(killed_ns, victim(tid), None)
    assert case.audit.kill_times() == {17: [5, 7], 18: [6]}


def test_no_count() -> None:
    """A kernel that does not count is not compared with."""
    case = Case()
    case.kernel.oom_kills = None
    assert not case.missing()
    assert case.audit.close_gap() is None


def test_more_while_it_is_explained() -> None:
    """A kill that the kernel counts while the log is read is not missing: its event is yet to be read."""
    case = Case()
    case.kernel.oom_kills = 42
    case.ledger.note(5, 17, counts_twice=False)
    assert case.missing()
    assert case.audit.certainly_missing() == 1
    case.kernel.oom_kills = 43
    assert case.audit.certainly_missing() == 0
    gap = case.audit.close_gap()
    assert gap is not None
    assert (gap["oom_kills"], gap["missing"]) == (2, 1)
    case.ledger.note(6, 18, counts_twice=False)
    assert not case.missing()


def test_noted_while_it_is_explained() -> None:
    """A kill that is read meanwhile must not hide one that is missing."""
    case = Case()
    case.kernel.oom_kills = 41
    assert case.missing()
    case.kernel.oom_kills = 42
    case.ledger.note(5, 17, counts_twice=False)
    assert case.audit.certainly_missing() == 0
    assert case.audit.missing() == case.audit.certainly_missing() == 1


class Steady:
    """Kills that are less than QUIET_NS apart, each counted by the kernel before it is noted."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.most = 0
        """So many kills waited to be compared."""

    def go_on(self, kills: int) -> int:
        """So many more, 0.3 s apart; how many are told as missing meanwhile."""
        case, missing = self.case, 0
        for number in range(kills):
            began_ns = boottime_ns()
            case.kernel.oom_kills = (case.kernel.oom_kills or 0) + 1
            case.audit.note_kill(boottime_ns(), victim(number), None, began_ns)
            case.audit.rearm(case.now_ns)
            case.now_ns += QUIET_NS * 3 // 10
            assert case.audit.deadline_ns() is not None
            if case.audit.kills_are_missing(case.now_ns) and case.audit.certainly_missing():
                gap = case.audit.close_gap()
                assert gap is not None
                missing += gap["missing"]
                assert gap["oom_kills"] == gap["records"] + gap["missing"]
            self.most = max(self.most, case.ledger.kills)
        return missing


def test_without_a_pause() -> None:
    """Where kills never stop, what was before is compared all the same, and nothing piles up."""
    steady = Steady(Case())
    assert steady.go_on(1000) == 0
    assert steady.most < 20
    assert not steady.case.missing()
    assert steady.case.ledger.explained == steady.case.kernel.oom_kills


def test_missing_without_a_pause() -> None:
    """What is missing among them is told in time, once, and nothing else is."""
    steady = Steady(Case())
    steady.go_on(20)
    assert steady.case.kernel.oom_kills is not None
    steady.case.kernel.oom_kills += 3
    assert steady.go_on(20) == 3
    assert steady.go_on(100) == 0
    assert not steady.case.missing()


def test_under_way_without_a_pause() -> None:
    """A kill that is counted when the count is read, and noted a moment later, is no gap."""
    case = Case()
    missing = 0
    for number in range(300):
        case.kernel.oom_kills = (case.kernel.oom_kills or 0) + 1
        case.now_ns += QUIET_NS * 3 // 10
        began_ns = boottime_ns()
        if case.audit.kills_are_missing(case.now_ns):  # reads the count between the kernel's and the daemon's
            missing += case.audit.certainly_missing()
        case.audit.note_kill(boottime_ns(), victim(number), None, began_ns)
        case.audit.rearm(case.now_ns)
    assert missing == 0
    assert not case.missing()


def test_group_kills_without_a_pause() -> None:
    """A group's first victim is counted again after the count was read: that is no gap."""
    case = Case()
    for number in range(300):
        case.kernel.oom_kills = (case.kernel.oom_kills or 0) + 1
        case.audit.note_kill(boottime_ns(), victim(number), f"group {number}")
        case.audit.rearm(case.now_ns)
        case.now_ns += QUIET_NS * 3 // 10
        assert not (case.audit.kills_are_missing(case.now_ns) and case.audit.certainly_missing())
        case.kernel.oom_kills += 1
    assert not case.missing()


@pytest.mark.parametrize("every", [0, 1, 7])
def test_counted_late_without_a_pause(every: int) -> None:
    """A kill that the programs have seen, and the kernel counts a moment after its count was read, is no gap.

    ``every``: so often it is a group kill, whose first victim is counted once or twice.
    """
    case = Case()
    for number in range(600):
        is_group = bool(every and number % every == 0)
        began_ns = boottime_ns()
        case.audit.note_kill(boottime_ns(), victim(number), f"group {number}" if is_group else None, began_ns)
        case.audit.rearm(case.now_ns)
        case.now_ns += QUIET_NS * 3 // 10
        if number % 3:  # else it is counted in time
            assert not (case.audit.kills_are_missing(case.now_ns) and case.audit.certainly_missing())
        case.kernel.oom_kills = (case.kernel.oom_kills or 0) + 1 + (is_group and number % 2)
        if not number % 3:
            assert not (case.audit.kills_are_missing(case.now_ns) and case.audit.certainly_missing())
    assert not case.missing()
