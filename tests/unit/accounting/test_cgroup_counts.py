# SPDX-License-Identifier: Apache-2.0
"""cgroup_counts.py: what cgroups count and records do not explain, and never more than that."""

import time
from pathlib import Path

import pytest

from tests.harness.cgroup_tree import CgroupTree
from tests.harness.environment import wait_until
from tracer.accounting import cgroup_counts
from tracer.accounting.cgroup_counts import CgroupCounts
from tracer.base.clock import boottime_ns
from tracer.linux import cgroupfs


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CgroupTree:
    """Two cgroups that count from before, and one that had no kill."""
    tree = CgroupTree(tmp_path, monkeypatch)
    for path, oom_kills in (("/a", 3), ("/a/b", 5), ("/c", 0)):
        tree.count(path, oom_kills)
    return tree


def learned() -> CgroupCounts:
    """An account that begins now."""
    account = CgroupCounts()
    account.snapshot()
    wait_until("the cgroups are read", lambda: account._snapshot is not None)
    account.mark_explained()
    return account


def note(account: CgroupCounts, path: str | None, *, group: bool = False) -> None:
    account.note_kill(boottime_ns(), path, group_begins=group)


def differing(account: CgroupCounts) -> list[tuple[str, int, int | None]]:
    return [(each["cgroup"], each["oom_kills"], each["records"]) for each in account.unexplained()]


def test_since_boot(tree: CgroupTree) -> None:
    """All that they count should have a record; the largest difference is told first."""
    account = CgroupCounts()
    note(account, "/a")
    for _ in range(5):
        note(account, "/a/b")
    tree.count("/new", 7)
    assert differing(account) == [("/new", 7, 0), ("/a", 3, 1)]
    assert differing(account) == [], "it begins anew"


def test_from_now_on(tree: CgroupTree) -> None:
    """What was counted before is left out, and one that was not there begins at nothing."""
    account = learned()
    assert differing(account) == []
    tree.count("/a/b", 8)
    tree.count("/c", 1)
    tree.count("/new", 2)
    note(account, "/a/b")
    note(account, "/new")
    note(account, "/c")
    note(account, None)
    assert differing(account) == [("/a/b", 3, 1), ("/new", 2, 1)]


def test_not_yet_known(tree: CgroupTree) -> None:
    """What was missing before the account begins cannot be told by cgroup: all that count kills are named."""
    account = CgroupCounts()
    account.snapshot()
    wait_until("the cgroups are read", lambda: account._snapshot is not None)
    note(account, "/a")
    assert account.counted_once() == 0
    assert differing(account) == [("/a/b", 5, None), ("/a", 3, None)]
    tree.count("/a", 5)
    note(account, "/a")
    assert differing(account) == [("/a", 2, 1)]


def test_noted_while_they_are_read(tree: CgroupTree) -> None:
    """A kill from before the account, read after: the cgroup had counted it."""
    killed_ns = boottime_ns()
    account = learned()
    account.note_kill(killed_ns, "/a", group_begins=True)
    assert account.counted_once() == 0
    tree.count("/a", 4)
    assert differing(account) == [("/a", 1, 0)]


def test_settled(tree: CgroupTree) -> None:
    """What was explained is not told later, whether there was a group kill or not."""
    account = learned()
    tree.count("/c", 3)
    note(account, "/c", group=True)
    note(account, "/c")
    assert account.counted_once() == 0
    account.mark_explained()
    assert account.counted_once() == 0
    assert differing(account) == []


@pytest.mark.parametrize(("counted", "once"), [(4, 0), (3, 1), (5, 0)])
def test_group_kill(tree: CgroupTree, counted: int, once: int) -> None:
    """Of three victims the first one is counted twice, or once, or another one is missing."""
    account = learned()
    tree.count("/a", 3 + counted)
    note(account, "/a", group=True)
    assert account.counted_once() == 0, "the others are yet to be read"
    note(account, "/a")
    note(account, "/a")
    assert account.counted_once() == once
    assert differing(account) == ([("/a", 5, 3)] if counted == 5 else [])


def test_gone(tree: CgroupTree) -> None:
    """What was read of a group kill holds when its cgroup is gone, as it is soon; one that was never read is left."""
    account = learned()
    tree.count("/a/b", 6)
    note(account, "/a/b", group=True)
    tree.remove("/a/b")
    note(account, "/never/seen", group=True)
    assert account.counted_once() == 1
    assert differing(account) == []


@pytest.mark.parametrize("order", ["group first", "group last"])
def test_made_anew(tree: CgroupTree, order: str) -> None:
    """A service's cgroup is made anew under its name: what that counts is not held against the old one's records."""
    account = learned()
    for place, group in enumerate((True, False) if order == "group first" else (False, True)):
        if place:
            tree.remake("/a", 1 + group)
        else:
            tree.count("/a", 4 + group)
        note(account, "/a", group=group)
    assert account.counted_once() == 0
    account.mark_explained()
    tree.remake("/a", 2)
    note(account, "/a")
    assert differing(account) == [("/a", 2, 1)]


def test_others_memory(tree: CgroupTree) -> None:
    """A victim on the memory of another cgroup's process is counted there: fewer than its own records prove nothing."""
    account = learned()
    tree.count("/c", 2)
    note(account, "/a", group=True)
    assert account.counted_once() == 0


def test_forgotten(tree: CgroupTree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cgroups come and go without end, and what is kept of them does not grow."""
    monkeypatch.setattr(cgroup_counts, "PRUNE_AT_LEAST", 4)
    account = learned()
    for number in range(100):
        tree.count(f"/{number}", 1)
        note(account, f"/{number}")
        account.mark_explained()
        tree.remove(f"/{number}")
    assert account._baseline is not None
    assert len(account._baseline) <= 5
    tree.count("/a", 4)
    assert differing(account) == [("/a", 1, 0)]


def test_part_of_the_hierarchy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a hierarchy that is mounted in part only that part is compared, under the kernel's names."""
    tree = CgroupTree(tmp_path, monkeypatch, root="/docker/ab")
    tree.count("/", 1)
    tree.count("/c", 2)
    account = learned()
    tree.count("/", 2)
    tree.count("/c", 4)
    note(account, "/docker/ab", group=True)
    note(account, "/docker/ab/c", group=True)
    note(account, "/docker/abc", group=True)
    assert account.counted_once() == 1
    tree.count("/c", 6)
    assert differing(account) == [("/docker/ab/c", 4, 1)]


def test_nothing_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a hierarchy nothing is known by cgroup."""
    monkeypatch.setattr(cgroupfs, "MOUNTINFO", str(tmp_path / "none"))
    account = CgroupCounts()
    note(account, "/a", group=True)
    assert account.counted_once() == 0
    assert differing(account) == []


def test_settled_in_part(tree: CgroupTree) -> None:
    """Of a cgroup in which somebody was killed later, nothing is said to be certain; of the others it begins anew."""
    account = learned()
    tree.count("/a", 4)
    tree.count("/c", 1)
    note(account, "/a", group=True)
    until_ns = boottime_ns()
    note(account, "/c", group=True)
    assert (account.counted_once(until_ns), account.counted_once()) == (1, 2)
    account.mark_explained(until_ns)
    assert account.counted_once() == 0
    tree.count("/a", 6)
    note(account, "/a")
    assert differing(account) == [("/a", 2, 1)], "what was before is explained"


def test_too_many(tree: CgroupTree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has kills in ever more cgroups with long paths makes unknown what is known by cgroup, and no memory full."""
    monkeypatch.setattr(cgroup_counts, "BYTES_MAX", 50_000)
    monkeypatch.setattr(cgroup_counts, "SNAPSHOT_RETRY_S", 0.0)
    account = learned()
    for number in range(1000):
        note(account, f"/{number}/{'x' * 3000}")
        assert account._noted_bytes <= 50_000
        assert sum(map(len, account._noted)) <= 50_000
    assert account.counted_once() == 0
    assert [records for _, _, records in differing(account)] == [None, None]
    account.mark_explained()
    tree.count("/a", 4)
    assert differing(account) == [("/a", 1, 0)], "it is known again"


def test_too_many_from_the_start(tree: CgroupTree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where more cgroups count kills than can be kept, nothing is known until there are fewer."""
    monkeypatch.setattr(cgroup_counts, "BYTES_MAX", 10_000)
    monkeypatch.setattr(cgroup_counts, "SNAPSHOT_RETRY_S", 0.0)
    for number in range(100):
        tree.count(f"/{number}", 1)
    account = CgroupCounts()
    account.snapshot()
    time.sleep(0.3)
    account.mark_explained()
    assert account._baseline is None
    for number in range(100):
        tree.remove(f"/{number}")
    account.mark_explained()
    wait_until("the cgroups are read", lambda: account._snapshot is not None)
    account.mark_explained()
    tree.count("/a", 4)
    assert differing(account) == [("/a", 1, 0)]
