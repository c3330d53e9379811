# SPDX-License-Identifier: Apache-2.0
"""Storms of kills: each has one record, and no record is without a kill."""

import signal

from tests.harness import oracles
from tests.harness.cgroups import Cgroup
from tests.harness.daemon import Daemon
from tests.harness.eater import Eater
from tests.harness.environment import IN_VM, TIMEOUT_S, attempts, wait_until
from tests.harness.watch import Watch

from .conftest import Eat


def weather(watch: Watch, eater: Eater, count: int) -> list[int]:
    """Read the kernel log until the storm is over; the pids of the victims."""
    for _ in attempts(10 * TIMEOUT_S):
        watch.logged()  # the kernel log's buffer holds a few hundred kills
        if eater.ended():
            break
    pids = eater.children(count)
    assert count == len(set(pids))
    return pids


def exits(watch: Watch) -> dict[str, int]:
    """Id of each kill -> ``seq`` of its oom_exit record."""
    return {record["id"]: record["seq"] for record in watch.records("oom_exit")}


def check(watch: Watch, pids: list[int]) -> None:
    """Check that every victim of the storm has one record, which agrees with the kernel log."""
    records = {record["victim"]["pid"]: record for record in watch.kills(pids, steady=False)}
    assert len(pids) == len({record["id"] for record in records.values()})
    assert len(pids) == len({record["incident"]["id"] for record in records.values()})
    kill_seq = {record["id"]: record["seq"] for record in records.values()}
    wait_until("the records of all exits", lambda: kill_seq.keys() <= exits(watch).keys())
    gone = exits(watch)
    assert [kill_id for kill_id, seq in kill_seq.items() if gone[kill_id] < seq] == [], "exits before their kills"
    assert watch.records("lost") == []


def test_storm(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """500 kills, several at once: each is recorded."""
    group = cgroup.child("storm", 8)
    before = oracles.vmstat_oom_kills()
    pids = weather(watch, eat(16, group, children=500, jobs=4, life=600), 500)
    assert 500 == group.oom_kills() <= oracles.vmstat_oom_kills() - before
    check(watch, pids)


def test_threads(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """Threads of a victim exit at once on several CPUs: its exit is recorded once."""
    count = 30 if IN_VM else 150
    pids = weather(watch, eat(16, cgroup.child("storm", 8), children=count, jobs=4, extra_threads=24, life=600), count)
    check(watch, pids)
    assert len(watch.records("oom_exit")) == count


def test_nobody_listens(watch: Watch, cgroup: Cgroup, eat: Eat, tracer: Daemon) -> None:
    """Kills made while the daemon is stopped are recorded when it continues."""
    tracer.process.send_signal(signal.SIGSTOP)
    try:
        pids = weather(watch, eat(16, cgroup.child("storm", 8), children=150, jobs=4, life=600), 150)
    finally:
        tracer.process.send_signal(signal.SIGCONT)
    check(watch, pids)


def test_others_use_bpf(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """While other programs use BPF the kernel skips kprobes, but no kill is lost."""
    eat(0, update_map=True, life=600).start()
    pids = weather(watch, eat(16, cgroup.child("storm", 8), children=200, jobs=4, life=600), 200)
    assert sorted(pids) == sorted(record["victim"]["pid"] for record in watch.kills(pids, complete=False))


def test_two_limits_at_once(watch: Watch, cgroup: Cgroup, eat: Eat, kprobes: bool) -> None:
    """Concurrent kills in two cgroups are not mixed up."""
    groups = [cgroup.child(name, 8) for name in ("left", "right")]
    eaters = [eat(16, group, children=20, comm=group.path.name, life=600) for group in groups]
    for group, eater in zip(groups, eaters, strict=True):
        for record in watch.kills(weather(watch, eater, 20)):
            assert group.path.name == record["victim"]["comm"] == record["trigger"]["comm"]
            assert group.name == record["victim"]["cgroup"] == record["trigger"]["cgroup"]
            if kprobes:
                assert group.name == record["limit"]["cgroup"]
