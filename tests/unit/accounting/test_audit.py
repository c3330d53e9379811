# SPDX-License-Identifier: Apache-2.0
"""audit.py: kills that the kernel counts and no record has are found once it is certain, and reported once."""

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
"""After everything that an earlier run has noted."""


class Kernel:
    """The kernel's count."""

    oom_kills: int | None = 40

    def count(self) -> int | None:
        return self.oom_kills


class Case:
    """A ledger with 40 explained kills, and the kernel's count."""

    def __init__(self) -> None:
        self.kernel, self.ledger = Kernel(), Ledger(None, BOOT)
        self.ledger.mark_explained(40, 1)
        self.audit = Audit(self.ledger, self.kernel.count)
        self.now_ns = 0

    def missing(self) -> bool:
        """Whether kills are missing, when all deadlines have passed."""
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
    """Cgroups without this machine's own kills."""
    tree = CgroupTree(tmp_path, monkeypatch)
    for path, oom_kills in (("/a", 0), ("/b", 3), ("/c", 5)):
        tree.count(path, oom_kills)
    return tree


def victim(tid: int, cgroup: str = "/a", points: int | None = None) -> Victim:
    made = VICTIM.copy()
    made["tid"], made["cgroup"], made["points"] = tid, cgroup, points
    return made


def test_all_is_told() -> None:
    """The kernel has counted as many kills as there are records."""
    case = Case()
    case.kernel.oom_kills = 41
    case.ledger.note(5, 17, counts_twice=False)
    assert not case.missing()
    assert (case.ledger.explained, case.ledger.kills) == (41, 0)


@pytest.mark.parametrize("counted", [43, 44])
def test_group_kill(counted: int) -> None:
    """A group kill of three victims counts three or four times."""
    case = Case()
    case.kernel.oom_kills = counted
    for pid, twice in ((17, True), (18, False), (19, False)):
        case.ledger.note(5, pid, counts_twice=twice)
    assert not case.missing()
    assert (counted, 0) == (case.ledger.explained, case.ledger.groups)


def test_killed_again() -> None:
    """A repeated kill counts again; its thread is known at both times. Read again, it is not noted twice."""
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
    """Missing kills are reported once, with the cgroups that count kills."""
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
    """After a complete comparison only cgroups are named that count more kills since then than there are records."""
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
    """A group kill's first victim counted once and a missing kill elsewhere sum up as if it had counted twice.

    The cgroup shows which case it is, if the victim was certainly the first.
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
    """Missing kills that are found elsewhere are no gap."""
    case = Case()
    case.kernel.oom_kills = 41
    assert case.missing()
    case.ledger.note(5, 17, counts_twice=False)
    assert case.audit.close_gap() is None
    assert not case.missing()


def test_under_way() -> None:
    """The kernel counts a kill before its event: the first difference is not certain."""
    case = Case()
    case.kernel.oom_kills = 41
    case.audit.rearm(0)
    assert not case.audit.kills_are_missing(QUIET_NS - 1)
    assert not case.audit.kills_are_missing(QUIET_NS)
    case.ledger.note(5, 17, counts_twice=False)
    assert not case.audit.kills_are_missing(2 * QUIET_NS)
    assert case.audit.deadline_ns() is None


def test_more_under_way() -> None:
    """A difference that has changed is not certain again."""
    case = Case()
    case.kernel.oom_kills = 41
    case.audit.rearm(0)
    assert not case.audit.kills_are_missing(QUIET_NS)
    case.kernel.oom_kills = 42
    assert not case.audit.kills_are_missing(2 * QUIET_NS)
    assert case.audit.kills_are_missing(3 * QUIET_NS)


def test_noted_by_an_earlier_run() -> None:
    """A noted kill whose event is read again is not noted twice."""
    case = Case()
    case.ledger.note(5, 17, counts_twice=False)
    again = Audit(case.ledger, case.kernel.count)
    again.note_kill(5, victim(17), None)
    assert case.ledger.explained == 41
    again.note_kill(6, victim(18), None)
    assert case.ledger.explained == 42


def test_group_kills_are_noted() -> None:
    """One victim of each group kill may count twice."""
    case = Case()
    for number, group in enumerate(("a", "a", "b", None, "c")):
        case.audit.note_kill(NOW_NS, victim(number), group)
    assert (case.ledger.explained, case.ledger.groups) == (45, 3)


def test_known() -> None:
    """The times of kills with a record, by thread."""
    case = Case()
    for killed_ns, tid in ((5, 17), (6, 18), (7, 17)):
        case.audit.note_kill(killed_ns, victim(tid), None)
    assert case.audit.kill_times() == {17: [5, 7], 18: [6]}


def test_no_count() -> None:
    """A kernel without a count is not compared."""
    case = Case()
    case.kernel.oom_kills = None
    assert not case.missing()
    assert case.audit.close_gap() is None


def test_more_while_it_is_explained() -> None:
    """A kill that the kernel counts while the log is read is not missing: its event follows."""
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
    """A kill that is read meanwhile must not hide a missing one."""
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
        """How many kills wait for a comparison."""

    def go_on(self, kills: int) -> int:
        """Make so many kills, 0.3 s apart; how many are reported as missing meanwhile."""
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
    """While kills never stop, earlier ones are compared, and nothing accumulates."""
    steady = Steady(Case())
    assert steady.go_on(1000) == 0
    assert steady.most < 20
    assert not steady.case.missing()
    assert steady.case.ledger.explained == steady.case.kernel.oom_kills


def test_missing_without_a_pause() -> None:
    """Missing kills among them are reported in time, once, and nothing else."""
    steady = Steady(Case())
    steady.go_on(20)
    assert steady.case.kernel.oom_kills is not None
    steady.case.kernel.oom_kills += 3
    assert steady.go_on(20) == 3
    assert steady.go_on(100) == 0
    assert not steady.case.missing()


def test_under_way_without_a_pause() -> None:
    """A kill that is counted at the sample and noted shortly later is no gap."""
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
    """A group kill's first victim that counts again after the sample is no gap."""
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
    """A kill that the programs have seen and the kernel counts shortly after the sample is no gap.

    ``every``: each kill of this number is a group kill, whose first victim counts once or twice.
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
