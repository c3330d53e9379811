# SPDX-License-Identifier: Apache-2.0
"""Many kills at once: none is lost, and none is invented."""

import signal

from tests.harness import oracles
from tests.harness.cgroups import Cgroup
from tests.harness.daemon import Daemon
from tests.harness.eater import Eater
from tests.harness.environment import IN_VM, TIMEOUT_S, attempts, wait_until
from tests.harness.watch import Watch

from .conftest import Eat


def weather(watch: Watch, eater: Eater, count: int) -> list[int]:
    """Follow a storm to its end; the pids of the victims."""
    for _ in attempts(10 * TIMEOUT_S):
        watch.logged()  # the kernel log keeps a few hundred kills only
        if eater.ended():
            break
    pids = eater.children(count)
    assert count == len(set(pids))
    return pids


def exits(watch: Watch) -> dict[str, int]:
    """The id of each victim that is gone -> the number of the record that says so."""
    return {record["id"]: record["seq"] for record in watch.records("oom_exit")}


def check(watch: Watch, pids: list[int]) -> None:
    """Every victim of the storm has one record, which agrees with the kernel log."""
    records = {record["victim"]["pid"]: record for record in watch.kills(pids, steady=False)}
    assert len(pids) == len({record["id"] for record in records.values()})
    assert len(pids) == len({record["incident"]["id"] for record in records.values()})
    told = {record["id"]: record["seq"] for record in records.values()}
    wait_until("the records of all exits", lambda: told.keys() <= exits(watch).keys())
    gone = exits(watch)
    assert [kill_id for kill_id, seq in told.items() if gone[kill_id] < seq] == [], "exits told before their kills"
    assert watch.records("lost") == []


def test_storm(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """Of 500 kills in a row, several under way at once, every one is recorded."""
    group = cgroup.child("storm", 8)
    before = oracles.vmstat_oom_kills()
    pids = weather(watch, eat(16, group, children=500, jobs=4, life=600), 500)
    assert 500 == group.oom_kills() <= oracles.vmstat_oom_kills() - before
    check(watch, pids)


def test_threads(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """Threads of a victim that exit at once, on several CPUs: one of them is the last, and its exit is told once."""
    count = 30 if IN_VM else 150
    pids = weather(watch, eat(16, cgroup.child("storm", 8), children=count, jobs=4, extra_threads=24, life=600), count)
    check(watch, pids)
    assert len(watch.records("oom_exit")) == count


def test_nobody_listens(watch: Watch, cgroup: Cgroup, eat: Eat, tracer: Daemon) -> None:
    """Kills made while the tracer is stopped wait for it."""
    tracer.process.send_signal(signal.SIGSTOP)
    try:
        pids = weather(watch, eat(16, cgroup.child("storm", 8), children=150, jobs=4, life=600), 150)
    finally:
        tracer.process.send_signal(signal.SIGCONT)
    check(watch, pids)


def test_others_use_bpf(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """Other programs' use of BPF, during which the kernel skips kprobes, costs no records of kills."""
    eat(0, update_map=True, life=600).start()
    pids = weather(watch, eat(16, cgroup.child("storm", 8), children=200, jobs=4, life=600), 200)
    assert sorted(pids) == sorted(record["victim"]["pid"] for record in watch.kills(pids, complete=False))


def test_two_limits_at_once(watch: Watch, cgroup: Cgroup, eat: Eat, kprobes: bool) -> None:
    """Kills in two cgroups at the same time are not mixed up."""
    groups = [cgroup.child(name, 8) for name in ("left", "right")]
    eaters = [eat(16, group, children=20, comm=group.path.name, life=600) for group in groups]
    for group, eater in zip(groups, eaters, strict=True):
        for record in watch.kills(weather(watch, eater, 20)):
            assert group.path.name == record["victim"]["comm"] == record["trigger"]["comm"]
            assert group.name == record["victim"]["cgroup"] == record["trigger"]["cgroup"]
            if kprobes:
                assert group.name == record["limit"]["cgroup"]
