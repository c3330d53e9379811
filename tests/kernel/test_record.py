# SPDX-License-Identifier: Apache-2.0
"""Fields of a record compared with /proc while the victim still ran."""

import os
import re
import time
from datetime import datetime
from pathlib import Path

import pytest

from tests.harness.cgroups import Cgroup
from tests.harness.daemon import Daemon
from tests.harness.eater import binary
from tests.harness.environment import KERNEL, KERNEL_VERSION, MIB, PAGE
from tests.harness.oracles import check_near, rss_slack_pages, vmstat_oom_kills
from tests.harness.watch import Watch

from .conftest import Eat

CLOCK_SLACK_S = 0.1


def seconds(rfc3339: str) -> float:
    """A record's time as seconds since the epoch."""
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", rfc3339), rfc3339
    return datetime.fromisoformat(rfc3339[:26] + "+00:00").timestamp()


def unseen_pages() -> int:
    """Pages that a thread may have mapped but not yet added to its process's counters.

    Until Linux kernel commit f1a7941243c1 ("mm: convert mm's rss stats into percpu_counter") (in v6.2) a thread
    batched up to 64 page faults (TASK_RSS_EVENTS_THRESH).
    """
    return 64 if KERNEL_VERSION < (6, 2) else 0


def status(pid: int, *fields: str, file: str = "status") -> list[int]:
    """Values in bytes of fields of /proc/PID/status, or of another file of that shape."""
    lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    values = {name: rest.split() for name, _, rest in (line.partition(":") for line in lines)}
    return [int(values[field][0]) << 10 for field in fields]


@pytest.mark.parametrize("shared", [False, True])
def test_resident_memory_is_exact(watch: Watch, cgroup: Cgroup, eat: Eat, shared: bool) -> None:
    """Resident anonymous and shared memory equal those of the page tables, exactly if the kernel counts exactly."""
    group = cgroup.child("limit", 60)
    victim = eat(50, group, hold=True, shared=shared).full()
    anonymous, rss = status(victim.pid, "Anonymous", "Rss", file="smaps_rollup")
    trigger = eat(20, group)
    victim.die()
    trigger.wait()
    memory = watch.kill(victim)["victim"]
    check_near(anonymous, memory["anon_rss_bytes"], unseen_pages() * PAGE, "anon_rss_bytes")
    eaten = memory["shmem_rss_bytes" if shared else "anon_rss_bytes"]
    assert 50 * MIB - unseen_pages() * PAGE <= eaten <= 51 * MIB
    assert eaten <= memory["rss_bytes"] <= rss  # clean pages of the program may have been dropped since
    assert memory["swap_bytes"] == 0


def test_sizes(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """Virtual size, page tables and peak are those of /proc."""
    group = cgroup.child("limit", 40)
    victim = eat(30, group, hold=True).full()
    virtual, tables, peak = status(victim.pid, "VmSize", "VmPTE", "VmHWM")
    trigger = eat(20, group)
    victim.die()
    trigger.wait()
    memory = watch.kill(victim)["victim"]
    assert virtual == memory["total_vm_bytes"]
    # VmPTE counts the lowest level of page tables only.
    assert tables <= memory["page_tables_bytes"] <= tables + 16 * PAGE
    assert peak - MIB <= memory["peak_rss_bytes"] <= peak + MIB


def test_freed_memory_stays_in_the_peak(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """The peak resident size is at least the current one."""
    memory = watch.kill(eat(32, cgroup.child("limit", 16)).die())["victim"]
    assert 15 * MIB < memory["rss_bytes"] <= memory["peak_rss_bytes"] < 17 * MIB


def test_identity(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """Parent, executable, command line and start time of the victim."""
    before = time.time()
    eater = eat(32, cgroup.child("limit", 16), extra=["some", "words"])
    after = time.time()
    victim = watch.kill(eater.die())["victim"]
    assert os.getpid() == victim["ppid"]
    assert str(binary()) == victim["exe"]
    assert eater.command_line == victim["cmdline"]
    assert before - CLOCK_SLACK_S <= seconds(victim["started_at"]) <= after + CLOCK_SLACK_S


def test_time(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """The record's time is that of the kill."""
    before = time.time()
    eater = eat(32, cgroup.child("limit", 16)).die()
    after = time.time()
    record = watch.kill(eater)
    assert before - CLOCK_SLACK_S <= seconds(record["time"]) <= after + CLOCK_SLACK_S
    assert seconds(record["victim"]["started_at"]) <= seconds(record["time"])


def test_host(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """The record has host, boot and kernel."""
    host = watch.kill(eat(32, cgroup.child("limit", 16)).die())["host"]
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert {"name": os.uname().nodename, "boot_id": boot_id, "kernel": KERNEL, "labels": {}} == host


def test_ids(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """Two kills have different ids and incidents, and sequence numbers in the order of the kills."""
    group = cgroup.child("limit", 16)
    first, second = (watch.kill(eat(32, group).die()) for _ in range(2))
    assert first["id"] != second["id"]
    assert first["incident"]["id"] != second["incident"]["id"]
    assert first["seq"] < second["seq"]
    assert first["time"] < second["time"]
    assert [] == first["truncated"] == second["truncated"]


def test_points(watch: Watch, cgroup: Cgroup, eat: Eat, kprobes: bool) -> None:
    """Points as in oom_badness(): resident, swap and page table pages, plus the adjustment by oom_score_adj."""
    record = watch.kill(eat(32, cgroup.child("limit", 16), adj=300).die())
    if not kprobes:
        assert record["victim"]["points"] is None
        return
    memory = record["victim"]
    size = memory["rss_bytes"] + memory["swap_bytes"] + memory["page_tables_bytes"]
    adjustment = 300 * (record["incident"]["total_pages"] // 1000)
    assert abs(size // PAGE + adjustment - memory["points"]) <= 3 * rss_slack_pages()


def test_start(tracer: Daemon) -> None:
    """The first record lists what is attached."""
    start = tracer.wait_ready()
    assert start["seq"] == 0
    assert start is tracer.records()[0]
    assert start["hooks"]
    assert start["oom_kills"] <= vmstat_oom_kills()
