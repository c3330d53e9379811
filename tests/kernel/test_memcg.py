# SPDX-License-Identifier: Apache-2.0
"""Kills by a memory cgroup's limit."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.cgroups import Cgroup
from tests.harness.environment import MIB, PAGE, not_applicable, require
from tests.harness.oracles import check_breakdown
from tests.harness.watch import Watch

from .conftest import Eat


def test_limit(watch: Watch, cgroup: Cgroup, eat: Eat, kprobes: bool) -> None:
    """A process that exceeds a limit is victim and trigger, and the record has the limit."""
    group = cgroup.child("limit", 16)
    eater = eat(32, group).die()
    record = watch.kill(eater)
    assert record["incident"]["scope"] == "memcg"
    assert record["incident"]["victims"] == 1
    assert record["incident"]["group_kill"] is False
    assert record["incident"]["order"] == 0
    assert "GFP_KERNEL" in record["incident"]["gfp_flags"]
    assert group.name == record["limit"]["cgroup"]
    assert record["limit"]["level"] == "other"
    assert record["limit"]["limit_bytes"] == 16 * MIB
    assert 15 * MIB < record["limit"]["usage_bytes"] <= 16 * MIB
    assert group.name == record["victim"]["cgroup"]
    assert eater.pid == record["victim"]["tid"] == record["trigger"]["pid"] == record["trigger"]["tid"]
    assert "eat" == record["victim"]["comm"] == record["trigger"]["comm"]
    assert group.name == record["trigger"]["cgroup"]
    assert group.oom_kills() == 1
    assert record["container"] is record["kubernetes"] is record["systemd"] is None
    if kprobes:
        assert record["incident"]["message"] == "Memory cgroup out of memory"


def test_what_a_kernel_without_kprobes_hides(
    watch: Watch, cgroup: Cgroup, eat: Eat, kprobes: bool, statistics: bool
) -> None:
    """Fields that need kprobes are null without them, and only then."""
    record = watch.kill(eat(32, cgroup.child("limit", 16)).die())
    assert ("bpf" if kprobes else "bpf_tracepoints") == record["source"]
    hidden = [
        record["candidates"],
        record["candidates_scored"],
        record["incident"]["total_pages"],
        record["victim"]["points"],
    ]
    assert [not kprobes] * len(hidden) == [value is None for value in hidden]
    assert statistics == (record["limit"]["breakdown"] is not None)


def test_total_pages(watch: Watch, cgroup: Cgroup, eat: Eat, kprobes: bool) -> None:
    """Without swap, total_pages is the limit in pages."""
    record = watch.kill(eat(32, cgroup.child("limit", 16)).die())
    assert (16 * MIB // PAGE if kprobes else None) == record["incident"]["total_pages"]


def test_parent_limit(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """The limit may be that of a parent of the victim's cgroup."""
    parent = cgroup.child("parent", 16)
    child = parent.child("middle").child("child")
    record = watch.kill(eat(32, child).die())
    assert parent.name == record["limit"]["cgroup"]
    assert child.name == record["victim"]["cgroup"] == record["trigger"]["cgroup"]
    assert record["limit"]["limit_bytes"] == 16 * MIB
    assert child.oom_kills() == 1
    assert (1 if cgroup.hierarchy.version == 2 else 0) == parent.oom_kills()


def test_child_limit(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """Of two limits, the record has the one that was hit."""
    child = cgroup.child("parent", 32).child("child", 16)
    record = watch.kill(eat(64, child).die())
    assert child.name == record["limit"]["cgroup"]
    assert record["limit"]["limit_bytes"] == 16 * MIB


def test_sibling_dies(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """A small process hits a shared limit, and the large process in another cgroup is killed."""
    parent = cgroup.child("parent", 24)
    large, small = parent.child("large"), parent.child("small")
    victim = eat(16, large, hold=True, comm="large").full()
    trigger = eat(12, small, comm="small", uid=12345)
    victim.die()
    trigger.wait()
    record = watch.kill(victim)
    assert parent.name == record["limit"]["cgroup"]
    assert (large.name, "large") == (record["victim"]["cgroup"], record["victim"]["comm"])
    assert (small.name, "small") == (record["trigger"]["cgroup"], record["trigger"]["comm"])
    assert (trigger.pid, trigger.pid) == (record["trigger"]["pid"], record["trigger"]["tid"])
    assert record["trigger"]["uid"] == 12345
    assert record["victim"]["uid"] == 0


def test_limit_lowered(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """A process that lowers a limit below the usage is the trigger, from outside of the cgroup."""
    if cgroup.hierarchy.version == 1:
        not_applicable("cgroup v1 refuses a limit below the usage")
    group = cgroup.child("shrinks", 32)
    victim = eat(16, group, hold=True).full()
    group.write("memory.max", 4 * MIB)
    victim.die()
    record = watch.kill(victim)
    assert os.getpid() == record["trigger"]["pid"]
    own = Path("/proc/self/cgroup").read_text().partition("::")[2].strip()
    assert own == record["trigger"]["cgroup"]
    assert group.name == record["limit"]["cgroup"]
    assert record["limit"]["limit_bytes"] == 4 * MIB
    assert record["limit"]["usage_bytes"] > 15 * MIB


@pytest.fixture
def tmpfs_file() -> Iterator[Path]:
    """Path of a file to write in a tmpfs."""
    mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    require(["/dev/shm", "tmpfs"] in mounts, "a tmpfs in /dev/shm")
    file = Path(f"/dev/shm/oomtrace-test-{os.getpid()}")
    yield file
    file.unlink(missing_ok=True)


def test_tmpfs_fills_the_limit(watch: Watch, cgroup: Cgroup, eat: Eat, statistics: bool, tmpfs_file: Path) -> None:
    """Files in a tmpfs fill the limit: the victim is small, and the breakdown has the files."""
    record = watch.kill(eat(32, cgroup.child("files", 16), file=tmpfs_file).die())
    assert record["victim"]["rss_bytes"] < 4 * MIB
    assert record["limit"]["usage_bytes"] > 15 * MIB
    if statistics:
        check_breakdown(record, watch.logged_kill(record).report)
        breakdown = record["limit"]["breakdown"]
        assert 14 * MIB < breakdown["shmem_bytes"] <= breakdown["file_bytes"] <= 16 * MIB
        assert breakdown["anon_bytes"] < 2 * MIB


def test_breakdown(watch: Watch, cgroup: Cgroup, eat: Eat, statistics: bool) -> None:
    """The breakdown agrees with the cgroup's memory.stat, and its parts do not exceed the usage."""
    record = watch.kill(eat(32, cgroup.child("limit", 16)).die())
    breakdown = record["limit"]["breakdown"]
    if not statistics:
        assert breakdown is None
        return
    check_breakdown(record, watch.logged_kill(record).report)
    assert 14 * MIB < breakdown["anon_bytes"] <= record["limit"]["usage_bytes"]
    assert 0 <= breakdown["shmem_bytes"] < MIB
    assert 0 <= breakdown["sock_bytes"] < MIB
    assert 0 <= breakdown["slab_bytes"] < 2 * MIB
    if breakdown["kernel_bytes"] is not None:
        assert record["victim"]["page_tables_bytes"] // 2 < breakdown["kernel_bytes"] < 2 * MIB


def test_memory_and_swap_limit(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """The record has cgroup v1's limit for memory plus swap."""
    if cgroup.hierarchy.version == 2:
        not_applicable("cgroup v2 has no limit for memory plus swap")
    group = cgroup.child("memsw", 16)
    require((group.path / "memory.memsw.limit_in_bytes").exists(), "swap accounting")
    group.write("memory.memsw.limit_in_bytes", 20 * MIB)
    limit = watch.kill(eat(32, group).die())["limit"]
    assert limit["memsw_limit_bytes"] == 20 * MIB
    assert 15 * MIB < limit["memsw_usage_bytes"] <= 20 * MIB
    assert limit["failcnt"] > 0
    assert limit["swap_limit_bytes"] is None
