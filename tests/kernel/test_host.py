# SPDX-License-Identifier: Apache-2.0
"""Kills because the host, or some of its NUMA nodes, ran out of memory, and kills by SysRq-f."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import oracles
from tests.harness.cgroups import Cgroup, Hierarchy
from tests.harness.environment import MIB, PAGE, ROOT, not_applicable, require, wait_until
from tests.harness.watch import Watch

from .conftest import Eat, MakeDaemon

pytestmark = pytest.mark.vm

MORE_THAN_ALL = 8192
ALLOCATING_TASK = Path("/proc/sys/vm/oom_kill_allocating_task")
NODES = Path("/sys/devices/system/node/online")


@pytest.fixture
def allocating_task() -> Iterator[None]:
    """Set vm.oom_kill_allocating_task: the kernel kills the task that allocates."""
    before = ALLOCATING_TASK.read_text()
    ALLOCATING_TASK.write_text("1")
    yield
    ALLOCATING_TASK.write_text(before)


@pytest.fixture
def on_node_1(cgroup: Cgroup) -> Iterator[list[Cgroup]]:
    """Cgroups that allow memory of NUMA node 1 only; an eater enters all of them."""
    require(NODES.read_text().strip() == "0-1", "two NUMA nodes")
    if cgroup.hierarchy.version == 2:
        for path in cgroup.hierarchy.mount, cgroup.path:
            (path / "cgroup.subtree_control").write_text("+cpuset")
        group = cgroup.child("nodes")
        group.write("cpuset.mems", 1)
        yield [group]
        return
    other = Hierarchy.find("cpuset").make(f"oomtrace-test-{os.getpid()}")
    other.write("cpuset.cpus", 0)
    other.write("cpuset.mems", 1)
    yield [cgroup.child("nodes"), other]
    other.remove()


def memory_pages() -> int:
    """RAM and swap in pages, the total of the kernel's badness scores."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    sizes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return (sizes["MemTotal"] + sizes["SwapTotal"] << 10) // PAGE


def test_host(watch: Watch, cgroup: Cgroup, eat: Eat, kprobes: bool) -> None:
    """When the host is out of memory, the record has no limit, but the victim's cgroup."""
    group = cgroup.child("unlimited")
    eater = eat(MORE_THAN_ALL, group, adj=1000, life=600).die()
    record = watch.kill(eater)
    assert record["incident"]["scope"] == "host"
    assert record["limit"] is None
    assert group.name == record["victim"]["cgroup"]
    assert record["victim"]["rss_bytes"] > 100 * MIB
    if kprobes:
        assert record["incident"]["message"] == "Out of memory"
        assert memory_pages() == record["incident"]["total_pages"]
        assert eater.pid == record["candidates"][0]["pid"]
        assert record["candidates_scored"] >= 1


def test_the_tracer_is_the_largest(make_daemon: MakeDaemon, cgroup: Cgroup, eat: Eat, tmp_path: Path) -> None:
    """When the OOM killer kills the daemon itself, no kill is lost: the next daemon adopts the capture."""
    pins = Path(f"/sys/fs/bpf/oomtrace-test-{os.getpid()}")
    daemon = make_daemon(pins=pins)
    start = daemon.wait_ready()
    if not start["pinned"]:
        not_applicable("this kernel cannot pin kprobes")
    before = oracles.vmstat_oom_kills()
    Path(f"/proc/{daemon.process.pid}/oom_score_adj").write_text("1000")
    eat(MORE_THAN_ALL, cgroup.child("unlimited"), adj=-500, life=600)
    wait_until("the kernel has killed the daemon", lambda: daemon.process.poll() is not None)
    assert daemon.process.returncode == -signal.SIGKILL
    wait_until("the kernel has killed the eater, too", lambda: oracles.vmstat_oom_kills() >= before + 2)
    again = make_daemon(pins=pins)
    try:
        assert again.wait_ready()["adopted"]
        wait_until("the records", lambda: len(again.of_type("oom_kill")) >= 2)
        again.stop()
    finally:
        subprocess.run([sys.executable, "-m", "tracer", "detach", "--pins", str(pins)], cwd=ROOT, check=True)
    victims = [record["victim"]["pid"] for record in again.of_type("oom_kill")]
    assert victims[0] == daemon.process.pid
    assert len(victims) == len(set(victims)) == oracles.vmstat_oom_kills() - before
    assert [gap for gap in again.of_type("gap") if gap["since"] is not None] == [], "no gap but that since boot"


def test_host_kills_a_group(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """memory.oom.group applies as well when the host is out of memory."""
    if cgroup.hierarchy.version == 1:
        not_applicable("cgroup v1 has no memory.oom.group")
    group = cgroup.child("group")
    group.write("memory.oom.group", 1)
    bystander = eat(1, group, hold=True, life=600).full()
    eater = eat(MORE_THAN_ALL, group, adj=1000, life=600)
    records = watch.kills([eater.die().pid, bystander.die().pid])
    assert [tuple(record["incident"][key] for key in ("scope", "group_kill", "victims")) for record in records] == [
        ("host", True, 2)
    ] * 2
    assert [record["limit"] for record in records] == [None, None]


def test_memory_policy(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """A process bound to a NUMA node can run out of memory while other nodes have free memory."""
    require(NODES.read_text().strip() == "0-1", "two NUMA nodes")
    eater = eat(MORE_THAN_ALL, cgroup.child("bound"), adj=1000, node=1, life=600).die()
    record = watch.kill(eater)
    assert record["incident"]["scope"] == "mempolicy"
    assert record["limit"] is None


def test_cpuset(watch: Watch, eat: Eat, on_node_1: list[Cgroup]) -> None:
    """A process whose cpuset allows some of the nodes can run out of memory as well."""
    eater = eat(MORE_THAN_ALL, *on_node_1, adj=1000, life=600).die()
    record = watch.kill(eater)
    assert record["incident"]["scope"] == "cpuset"
    assert record["limit"] is None
    assert on_node_1[0].name == record["victim"]["cgroup"]


def test_sysrq(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """SysRq-f makes a kernel thread kill the largest process although memory is free."""
    eater = eat(20, cgroup.child("unlimited"), adj=1000, hold=True).full()
    Path("/proc/sysrq-trigger").write_text("f")
    record = watch.kill(eater.die())
    assert record["incident"]["scope"] == "sysrq"
    assert record["incident"]["order"] == -1
    assert record["limit"] is None
    assert record["trigger"]["comm"].startswith("kworker/")


@pytest.mark.usefixtures("allocating_task")
def test_allocating_task(watch: Watch, cgroup: Cgroup, eat: Eat, kprobes: bool) -> None:
    """With vm.oom_kill_allocating_task the kernel kills the trigger without scoring candidates."""
    eater = eat(MORE_THAN_ALL, cgroup.child("unlimited"), adj=0, life=600).die()
    record = watch.kill(eater)
    assert record["incident"]["scope"] == "host"
    assert eater.pid == record["trigger"]["pid"]
    if kprobes:
        assert record["incident"]["message"] == "Out of memory (oom_kill_allocating_task)"
        assert not record["candidates"]
        assert not record["candidates_scored"]
