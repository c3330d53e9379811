# SPDX-License-Identifier: Apache-2.0
"""Kills, executions and exits on many CPUs at once: the BPF programs' state is shared by all CPUs."""

import os
import signal
import subprocess
import time
from collections import Counter

import pytest

from tests.harness import oracles
from tests.harness.cgroups import Cgroup
from tests.harness.eater import Eater
from tests.harness.environment import CPUS, attempts, wait_until
from tests.harness.oracles import Record
from tests.harness.watch import Watch

from .conftest import Eat, MakeDaemon
from .test_sigkill import OTHER_ID, Start, comm, container, of_cgroup, start, victim  # noqa: F401 - a fixture
from .test_storm import check, weather

pytestmark = [pytest.mark.vm, pytest.mark.cpus(16)]

GROUP = 200
"""Processes of the cgroup in the group kill."""
SETTLED_S = 3.0
"""A second oom_exit record would arrive within this time; the first waits for the runtime's verdict."""
NODES = 128
"""Free entries of an LRU map that each CPU reserves at its first insertion (LOCAL_FREE_TARGET)."""
FLOOD = 700
"""Processes of one container that are killed."""
BURST, PER_SECOND = 512, 31.25
"""Rate limit of sigkill records per cgroup, see bpf/sigkill.h."""


def on_cpu(cpu: int) -> tuple[str, ...]:
    """A command that executes the command behind it on this CPU."""
    return ("taskset", "-c", str(cpu))


def shell(group: Cgroup, cpu: int, script: str) -> "subprocess.Popen[bytes]":
    """A shell in a cgroup, on this CPU; entering a cpuset afterwards would reset the affinity."""
    enter = f'echo 0 >{group.path}/cgroup.procs && exec taskset -c {cpu} sh -c "$0"'
    return subprocess.Popen(["sh", "-c", enter, script])


def storm(cgroup: Cgroup, eat: Eat, name: str, count: int, jobs: int = 1) -> list[tuple[Cgroup, Eater]]:
    """Start kills on every CPU, each in its own cgroup."""
    groups = [cgroup.child(f"{name}{cpu}", 8) for cpu in range(CPUS)]
    return [(group, eat(16, group, children=count, jobs=jobs, life=600, cpu=cpu)) for cpu, group in enumerate(groups)]


def ends(watch: Watch, records: list[Record]) -> Counter[str]:
    """Wait for an oom_exit record of each victim; the number of them per kill's id."""
    ids = {record["id"] for record in records}
    for _ in attempts():
        found = Counter(gone["id"] for gone in watch.records("oom_exit") if gone["id"] in ids)
        if ids <= found.keys():
            break
    return found


def test_storms(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """Kills on every CPU at once, each in its own cgroup: each has its own record, cgroup and exit."""
    count = 4
    before = oracles.vmstat_oom_kills()
    storms = storm(cgroup, eat, "storm", count, jobs=2)
    pids = {group.name: weather(watch, eater, count) for group, eater in storms}
    assert [group.oom_kills() for group, _ in storms] == [count] * CPUS
    assert oracles.vmstat_oom_kills() - before == count * CPUS
    check(watch, [pid for each in pids.values() for pid in each])
    for record in watch.records():
        assert record["victim"]["cgroup"] == record["limit"]["cgroup"] == record["trigger"]["cgroup"]
    for name, killed in pids.items():
        assert {r["victim"]["pid"] for r in watch.records() if r["victim"]["cgroup"] == name} == set(killed)


def test_group_kill(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """A cgroup of 200 processes is killed on one CPU, where none can exit meanwhile: each has its record and exit."""
    for _, eater in storm(cgroup, eat, "storm", 1):
        weather(watch, eater, 1)
    group = cgroup.child("group", 96)
    group.write("memory.oom.group", 1)
    last = CPUS - 1
    members = eat(0, group, children=GROUP - 1, jobs=GROUP, hold=True, life=600, cpu=last).full(GROUP - 1)
    pids = members.children(GROUP - 1)
    before = oracles.vmstat_oom_kills()
    # With a real-time policy, so that no victim runs and exits before all are killed.
    pids.append(eat(128, group, life=600, cpu=last, through=("chrt", "--fifo", "1")).die().pid)
    records = watch.kills(pids, steady=False)
    assert {record["incident"]["victims"] for record in records} == {GROUP}
    assert len({record["incident"]["id"] for record in records}) == 1
    # The first victim is killed once more, with the group.
    assert group.oom_kills() == GROUP + 1 == oracles.vmstat_oom_kills() - before
    assert ends(watch, records) == Counter(record["id"] for record in records)


def test_many_threads(make_daemon: MakeDaemon, cgroup: Cgroup, eat: Eat) -> None:
    """Threads of a victim exit on many CPUs at once: one oom_kill and one oom_exit record."""
    daemon = make_daemon()
    daemon.wait_ready()
    pids = []
    for number in range(2):
        group = cgroup.child(f"docker-{number:064x}.scope", 160)
        group.write("memory.oom.group", 1)
        giant = eat(0, group, extra_threads=500, hold=True, life=600).full()
        members = eat(0, group, children=50, jobs=50, extra_threads=10, hold=True, life=600).full(50)
        pids += [giant.pid, *members.children(50), eat(200, group, life=600).die().pid]
    # The kernel logs and counts some victims twice, when a thread outlives the main thread.
    wait_until("their records", lambda: {victim(record) for record in daemon.of_type("oom_kill")} >= set(pids))
    wait_until("their exits", lambda: len(daemon.of_type("oom_exit")) >= len(pids))
    time.sleep(SETTLED_S)
    assert sorted(victim(record) for record in daemon.of_type("oom_kill")) == sorted(pids)
    ends = Counter(gone["id"] for gone in daemon.of_type("oom_exit"))
    assert ends == Counter(record["id"] for record in daemon.of_type("oom_kill"))
    assert [daemon.of_type("gap"), daemon.stop()["lost"]] == [[], 0]


def test_command_line(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """A victim's command line is kept, however many processes are executed later on its CPU."""
    last, count = CPUS - 1, 2 * NODES
    for eater in [eat(0, through=on_cpu(cpu)) for cpu in range(CPUS)]:
        eater.wait()
    group, crowd = cgroup.child("limit", 32), cgroup.child("crowd")
    quiet = eat(24, group, hold=True, life=600, extra=["executed", "long", "ago"], through=on_cpu(last)).full()
    assert shell(crowd, last, f"for each in $(seq {count}); do busybox sleep 600 & done").wait() == 0
    wait_until("all run busybox", lambda: [comm(pid) for pid in crowd.processes()] == ["busybox"] * count)
    loud = eat(24, group, adj=-999, life=600)
    record = watch.kill(quiet.die())
    assert (record["trigger"]["pid"], record["victim"]["pid"]) == (loud.pid, quiet.pid)
    assert record["victim"]["cmdline"] == quiet.command_line


def test_many_executions(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """While every CPU executes short-lived programs, kills have their records, command lines and exits."""
    crowd = cgroup.child("crowd")
    executing = [shell(crowd, cpu, "while :; do busybox true; done") for cpu in range(CPUS)]
    try:
        storms = storm(cgroup, eat, "storm", 2)
        pids = [pid for _, eater in storms for pid in weather(watch, eater, 2)]
    finally:
        for each in executing:
            each.kill()
            each.wait()
    check(watch, pids)
    lines = {record["victim"]["pid"]: record["victim"]["cmdline"] for record in watch.records()}
    assert [lines[pid] for pid in pids] == [eater.command_line for _, eater in storms for _ in range(2)]


def test_rate_limit(start: Start, cgroup: Cgroup, eat: Eat) -> None:  # noqa: F811
    """The rate limit of a container is kept, although every CPU has seen other containers."""
    daemon = start("containers")
    last = CPUS - 1
    for eater in [eat(0, container(cgroup, f"{cpu:064x}"), kills=1, cpu=cpu) for cpu in range(CPUS)]:
        eater.wait()
    flood, other = container(cgroup), container(cgroup, OTHER_ID)
    crowd = eat(0, flood, children=FLOOD, jobs=FLOOD, hold=True, life=600).full(FLOOD)
    pids, cpus, began = crowd.children(FLOOD), os.sched_getaffinity(0), time.monotonic()
    os.sched_setaffinity(0, {last})
    for half in (pids[::2], pids[1::2]):
        for pid in half:
            os.kill(pid, signal.SIGKILL)
        eat(0, other, kills=1, cpu=last).wait()
    seconds = time.monotonic() - began
    os.sched_setaffinity(0, cpus)
    daemon.stop()
    recorded = len(of_cgroup(daemon, flood))
    assert BURST <= recorded <= BURST + PER_SECOND * seconds < FLOOD
    assert sum(each["count"] for each in daemon.of_type("lost") if each["stage"] == "sigkill") == FLOOD - recorded


def test_timers(start: Start, cgroup: Cgroup, eat: Eat) -> None:  # noqa: F811
    """SIGKILLs by timers on every CPU, idle or not, soon after an OOM kill: each has a record without a sender."""
    daemon = start("containers")
    group, count = container(cgroup), 4
    eat(16, cgroup.child("limit", 8)).die()
    eaters = [
        eat(0, group, children=count, jobs=count, timer_ms=1000, hold=True, life=600, cpu=cpu) for cpu in range(CPUS)
    ]
    pids = sorted(pid for eater in eaters for pid in eater.children(count))
    for eater in eaters:
        eater.wait()
    wait_until("their records", lambda: len(of_cgroup(daemon, group)) >= len(pids))
    daemon.stop()
    assert sorted(victim(record) for record in of_cgroup(daemon, group)) == pids
    assert [record for record in of_cgroup(daemon, group) if record["sender"] is not None] == []
