# SPDX-License-Identifier: Apache-2.0
"""The same kills twice: captured by the BPF programs, and read from the kernel log afterwards."""

import time
from collections.abc import Callable, Iterator
from datetime import datetime

import pytest

from tests.harness import oracles
from tests.harness.cgroups import Cgroup
from tests.harness.environment import IN_VM, PAGE, not_applicable
from tests.harness.kernel_log import INTERVAL_S
from tests.harness.oracles import Record, check_near
from tests.harness.watch import Watch
from tracer.accounting.backfill import find_kills, tolerance_ns
from tracer.base.clock import boottime_ns
from tracer.logs.kmsg import Kmsg

from .conftest import Eat

Logged = Callable[[list[Record]], list[Record]]

CLOCKS_S = 2.0 if IN_VM else 0.1
"""Difference between printk's clock and the programs' soon after boot, plus the time until a kill is logged."""

SIZES = ("anon_rss_bytes", "file_rss_bytes", "shmem_rss_bytes", "swap_bytes")
COUNTERS = ("usage_bytes", "swap_usage_bytes", "memsw_usage_bytes")
MAXIMA = ("limit_bytes", "swap_limit_bytes", "memsw_limit_bytes")


def seconds(record: Record) -> float:
    return datetime.fromisoformat(record["time"][:26] + "+00:00").timestamp()


@pytest.fixture(scope="module", autouse=True)
def fresh_rate_limit() -> None:
    """Wait until the rate limit of the kernel log allows full reports again."""
    time.sleep(INTERVAL_S)


@pytest.fixture
def kmsg() -> Iterator[Kmsg]:
    """The kernel log from now on."""
    log = Kmsg()
    for _ in log.read():
        pass
    yield log
    assert log.dropped == 0
    log.close()


@pytest.fixture
def logged(kmsg: Kmsg, watch: Watch) -> Logged:
    """Makes the records of given kills from the log, in the same order, and compares them."""

    def read(seen: list[Record]) -> list[Record]:
        found = [record for record, _ in find_kills(kmsg, "6a4ce4a0", lambda tid, ns: False)]
        tids = [record["victim"]["tid"] for record in found]
        assert len(tids) == len(set(tids)), "one record per victim"
        by_tid = dict(zip(tids, found, strict=True))
        pairs = [(record, dict(by_tid[record["victim"]["tid"]])) for record in seen]
        for record, twin in pairs:
            check_twin(record, twin, watch.kprobes)
        return [twin for _, twin in pairs]

    return read


def check_twin(seen: Record, logged: Record, kprobes: bool) -> None:
    """Check that two records of one kill agree, sizes within the kernel's rounding."""
    assert abs(seconds(seen) - seconds(logged)) < CLOCKS_S
    mine, its = seen["victim"], logged["victim"]
    for name in ("pid", "tid", "comm", "uid", "oom_score_adj", "total_vm_bytes"):
        assert mine[name] == its[name], name
    if its["cgroup"] is not None and "victim.cgroup" not in logged["truncated"]:
        assert mine["cgroup"] == its["cgroup"]
    assert mine["page_tables_bytes"] >> 10 == its["page_tables_bytes"] >> 10
    for name in SIZES:
        if its[name] is not None:
            check_near(its[name], mine[name], oracles.rss_slack_pages() * PAGE + 1023, name)
    for name in ("scope", "group_kill", "victims", "gfp_mask", "gfp_flags", "order", "message"):
        if kprobes or seen["incident"][name] is not None:
            assert seen["incident"][name] == logged["incident"][name], name
    if logged["trigger"]["pid"] is not None:
        assert seen["trigger"]["pid"] == logged["trigger"]["pid"]
    assert (seen["trigger"]["tid"], seen["trigger"]["comm"]) == (logged["trigger"]["tid"], logged["trigger"]["comm"])
    if seen["limit"] is not None or kprobes:
        check_limit(seen["limit"], logged["limit"])
    if seen["candidates"] is not None:
        rss = {each["pid"]: each["rss_bytes"] for each in logged["candidates"]}
        for each in seen["candidates"]:
            if each["pid"] in rss and each["rss_bytes"] is not None:
                check_near(rss[each["pid"]], each["rss_bytes"], 3 * oracles.rss_slack_pages() * PAGE, "rss_bytes")


def check_limit(mine: Record | None, its: Record | None) -> None:
    """Check that the limit's cgroup and counters agree; they were read at slightly different times."""
    if mine is None or its is None:
        assert mine == its
        return
    slack = oracles.charge_slack_bytes()
    assert mine["cgroup"] == its["cgroup"]
    for name in MAXIMA:
        if mine[name] is not None and its[name] is not None:
            assert mine[name] == its[name], name
    for name in COUNTERS:
        if mine[name] is not None and its[name] is not None:
            check_near(its[name], mine[name], slack, name)
    for name, size in (mine["breakdown"] or {}).items():
        if size is not None and its["breakdown"][name] is not None:
            check_near(its["breakdown"][name], size, slack, name)


def test_memcg(watch: Watch, logged: Logged, cgroup: Cgroup, eat: Eat) -> None:
    """A kill by a cgroup's limit, of a process with a uid."""
    victim = eat(48, cgroup.child("limit", 24), uid=1000, adj=300, comm="a user")
    (record,) = logged([watch.kill(victim.die())])
    assert (record["incident"]["scope"], record["source"], record["delayed"]) == ("memcg", "kernel_log", True)
    assert record["limit"]["cgroup"] == record["victim"]["cgroup"] == f"{cgroup.name}/limit"
    assert record["limit"]["limit_bytes"] == 24 << 20
    assert [candidate["pid"] for candidate in record["candidates"]] == [victim.pid]


def test_nested_limits(watch: Watch, logged: Logged, cgroup: Cgroup, eat: Eat) -> None:
    """The limit of the parent cgroup, and a second candidate."""
    parent = cgroup.child("parent", 24)
    bystander = eat(2, parent.child("other"), hold=True).full()
    victim = eat(48, parent.child("child"))
    (record,) = logged([watch.kill(victim.die())])
    assert (record["limit"]["cgroup"], record["victim"]["cgroup"]) == (parent.name, f"{parent.name}/child")
    assert [candidate["pid"] for candidate in record["candidates"]] == [victim.pid, bystander.pid]


@pytest.mark.parametrize(
    "comm",
    [b'a)b (c, d:"e', b"two\nlines", b"\xff\xfebad", b",uid=0 (x) tot", b",pid=1,uid=0", b"Killed process ", b"[  1]"],
)
def test_odd_names(watch: Watch, logged: Logged, cgroup: Cgroup, eat: Eat, comm: bytes) -> None:
    """Names of processes that imitate kernel messages."""
    record = watch.kill(eat(16, cgroup.child("limit", 8), comm=comm).die())
    assert logged([record])[0]["trigger"] is not None


@pytest.mark.parametrize(
    "name", [b"odd, name=x,task=y", b",oom_memcg=", b"x,task_memcg=", b"global_oom", b": Killed process 1 (x)"]
)
def test_odd_cgroups(watch: Watch, logged: Logged, cgroup: Cgroup, eat: Eat, name: bytes) -> None:
    """Names of cgroups that imitate kernel messages, of the limit and of the victim."""
    group = cgroup.child(name, 8).child(name)
    logged([watch.kill(eat(16, group).die())])


def test_thread(watch: Watch, logged: Logged, cgroup: Cgroup, eat: Eat) -> None:
    """The main thread has exited: the log names another thread, and its table of tasks the process."""
    victim = eat(16, cgroup.child("limit", 8), thread=True, zombie_leader=True)
    (record,) = logged([watch.kill(victim.die())])
    assert (record["victim"]["pid"], record["victim"]["tid"] != victim.pid) == (victim.pid, True)


def test_group(watch: Watch, logged: Logged, cgroup: Cgroup, eat: Eat) -> None:
    """A group kill: one incident and one record per victim, although the first has two log lines."""
    if cgroup.hierarchy.version == 1:
        not_applicable("cgroup v1 has no memory.oom.group")
    group = cgroup.child("group", 24)
    group.write("memory.oom.group", 1)
    eaters = [eat(1, group, hold=True, comm=f"bystander{n}").full() for n in range(3)]
    eaters.append(eat(48, group, comm="main"))
    records = logged(watch.kills([eater.die().pid for eater in eaters]))
    assert len({record["incident"]["id"] for record in records}) == 1
    assert [record["incident"]["victims"] for record in records] == [4] * 4


@pytest.mark.vm
def test_host(watch: Watch, logged: Logged, cgroup: Cgroup, eat: Eat) -> None:
    """A kill because the host is out of memory."""
    (record,) = logged([watch.kill(eat(1 << 20, cgroup.child("eater"), adj=1000).die())])
    assert (record["incident"]["scope"], record["limit"]) == ("host", None)


def test_what_is_known_is_not_told_again(watch: Watch, kmsg: Kmsg, cgroup: Cgroup, eat: Eat) -> None:
    """Kills that are recorded already, and kills outside of the time range, are left out."""
    group = cgroup.child("limit", 8)
    begin = boottime_ns()
    seen, unseen = (watch.kill(eat(16, group).die()) for _ in range(2))
    end = boottime_ns()
    times: dict[int, int] = {}

    def known(tid: int, ns: int) -> bool:
        times[tid] = ns
        return bool(tid == seen["victim"]["tid"])

    ((record, _),) = find_kills(kmsg, "6a4ce4a0", known, begin, end)
    assert record["victim"]["pid"] == unseen["victim"]["pid"]
    slack = int(CLOCKS_S * 1e9)
    assert slack < tolerance_ns(begin)
    for tid in (seen["victim"]["tid"], unseen["victim"]["tid"]):
        assert begin - slack < times[tid] < end + slack
    kmsg.rewind()
    before = begin - 2 * tolerance_ns(begin)
    early = find_kills(kmsg, "6a4ce4a0", lambda tid, ns: False, until_ns=before)
    assert record["id"] not in [each["id"] for each, _ in early]
    kmsg.rewind()
    assert record["id"] in [each["id"] for each, _ in find_kills(kmsg, "6a4ce4a0", lambda tid, ns: False)]
