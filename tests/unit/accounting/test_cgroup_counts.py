# SPDX-License-Identifier: Apache-2.0
"""cgroup_counts.py: kills that cgroups count beyond the records, and never more."""

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
    """Two cgroups with earlier kills, and one without."""
    tree = CgroupTree(tmp_path, monkeypatch)
    for path, oom_kills in (("/a", 3), ("/a/b", 5), ("/c", 0)):
        tree.count(path, oom_kills)
    return tree


def with_baseline() -> CgroupCounts:
    """Counts with a baseline taken now."""
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
    """All counted kills should have a record; the largest difference comes first."""
    account = CgroupCounts()
    note(account, "/a")
    for _ in range(5):
        note(account, "/a/b")
    tree.count("/new", 7)
    assert differing(account) == [("/new", 7, 0), ("/a", 3, 1)]
    assert differing(account) == [], "it begins anew"


def test_from_now_on(tree: CgroupTree) -> None:
    """Earlier kills are excluded, and a new cgroup begins at 0."""
    account = with_baseline()
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
    """Kills missing before the baseline are unknown by cgroup: all that count kills are named."""
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
    """An earlier kill that is noted after the baseline was counted in it."""
    killed_ns = boottime_ns()
    account = with_baseline()
    account.note_kill(killed_ns, "/a", group_begins=True)
    assert account.counted_once() == 0
    tree.count("/a", 4)
    assert differing(account) == [("/a", 1, 0)]


def test_settled(tree: CgroupTree) -> None:
    """Explained kills are not reported later, with or without a group kill."""
    account = with_baseline()
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
    account = with_baseline()
    tree.count("/a", 3 + counted)
    note(account, "/a", group=True)
    assert account.counted_once() == 0, "the others are yet to be read"
    note(account, "/a")
    note(account, "/a")
    assert account.counted_once() == once
    assert differing(account) == ([("/a", 5, 3)] if counted == 5 else [])


def test_gone(tree: CgroupTree) -> None:
    """A count read after a group kill stays valid when its cgroup is removed; without one the slack stays."""
    account = with_baseline()
    tree.count("/a/b", 6)
    note(account, "/a/b", group=True)
    tree.remove("/a/b")
    note(account, "/never/seen", group=True)
    assert account.counted_once() == 1
    assert differing(account) == []


@pytest.mark.parametrize("order", ["group first", "group last"])
def test_made_anew(tree: CgroupTree, order: str) -> None:
    """A service's cgroup is created again under its name: its count is not compared with the old records."""
    account = with_baseline()
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
    """A victim on another cgroup's memory is counted there: a count below the records proves nothing."""
    account = with_baseline()
    tree.count("/c", 2)
    note(account, "/a", group=True)
    assert account.counted_once() == 0


def test_forgotten(tree: CgroupTree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory does not grow while cgroups are created and removed."""
    monkeypatch.setattr(cgroup_counts, "PRUNE_AT_LEAST", 4)
    account = with_baseline()
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
    """Of a partly mounted hierarchy only that part is compared, under the kernel's paths."""
    tree = CgroupTree(tmp_path, monkeypatch, root="/docker/ab")
    tree.count("/", 1)
    tree.count("/c", 2)
    account = with_baseline()
    tree.count("/", 2)
    tree.count("/c", 4)
    note(account, "/docker/ab", group=True)
    note(account, "/docker/ab/c", group=True)
    note(account, "/docker/abc", group=True)
    assert account.counted_once() == 1
    tree.count("/c", 6)
    assert differing(account) == [("/docker/ab/c", 4, 1)]


def test_nothing_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a hierarchy all counts are unknown."""
    monkeypatch.setattr(cgroupfs, "MOUNTINFO", str(tmp_path / "none"))
    account = CgroupCounts()
    note(account, "/a", group=True)
    assert account.counted_once() == 0
    assert differing(account) == []


def test_settled_in_part(tree: CgroupTree) -> None:
    """Cgroups with later kills are not comparable; the others start a new period."""
    account = with_baseline()
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
    """Kills in many cgroups with long paths make the counts unknown, and do not fill memory."""
    monkeypatch.setattr(cgroup_counts, "BYTES_MAX", 50_000)
    monkeypatch.setattr(cgroup_counts, "SNAPSHOT_RETRY_S", 0.0)
    account = with_baseline()
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
    """If too many cgroups count kills, the counts are unknown until there are fewer."""
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
