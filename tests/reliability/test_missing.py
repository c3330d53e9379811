# SPDX-License-Identifier: Apache-2.0
"""Hosts that lack something, and times in which nothing was attached: the kernel log covers what it can."""

import signal
from collections.abc import Callable

from tests.harness.cgroups import Cgroup
from tests.harness.environment import attempts, not_applicable, wait_until
from tests.harness.runs import Runs
from tests.kernel.conftest import Eat
from tests.kernel.test_brief import small_rings

from .conftest import Storm

WITHOUT_BPFFS = ["unshare", "--mount", "sh", "-c", 'umount --all-targets --lazy /sys/fs/bpf; exec "$@"', "sh"]
WITHOUT_TRACEFS = [
    "unshare", "--mount", "sh", "-c",
    'umount --lazy /sys/kernel/tracing; umount --lazy /sys/kernel/debug/tracing; exec "$@"', "sh",
]  # fmt: skip

BURST = 700
"""More kills than the ring buffer has room for, with long command lines; here the second one holds a few."""
GROUPS = 10


def test_without_bpffs(runs: Runs, storm: Storm) -> None:
    """What cannot be pinned ends with the tracer, which says so; the kernel log tells the kills of the time between."""
    start = runs.start(through=WITHOUT_BPFFS)
    assert not start["pinned"]
    assert "bpffs" in runs.said()
    storm.end(storm.brew(10, jobs=1))
    runs.wait_for_kills(10)
    runs.stop()
    storm.end(storm.brew(10, jobs=1))
    assert not runs.start(through=WITHOUT_BPFFS)["adopted"]
    runs.wait_for_kills(20)
    runs.stop()
    tally = storm.tally("no bpffs: nothing is attached between two runs", 1, runs)
    tally.check()
    assert tally.from_log == 10
    between = [record for record in runs.of_type("oom_kill") if record["source"] == "kernel_log"]
    assert all(record["delayed"] for record in between)


def test_without_tracefs(runs: Runs, storm: Storm) -> None:
    """All is told but the names of the allocation flags."""
    runs.start(through=WITHOUT_TRACEFS)
    storm.end(storm.brew(20))
    runs.wait_for_kills(20)
    runs.stop()
    storm.tally("no tracefs", 1, runs).check()


def test_before_the_first_start(first_runs: Runs, storm: Storm) -> None:
    """Kills of this boot from before the first start come from the kernel log, or are told to be missing."""
    storm.end(storm.brew(10, jobs=1))
    first_runs.start()
    victims = storm.victims()
    wait_until("the records", lambda: victims <= pids(first_runs))
    first = len(first_runs.of_type("oom_kill"))
    told = first_runs.of_type("oom_kill")
    assert {record["source"] for record in told if record["victim"]["tid"] in victims} == {"kernel_log"}
    first_runs.stop()
    first_runs.start()
    storm.end(storm.brew(10, jobs=1))
    first_runs.wait_for_kills(first + 10)
    stop = first_runs.stop()
    assert len(first_runs.of_type("oom_kill")) == first + 10, "what the log tells is told once"
    missing = sum(record["missing"] for record in first_runs.of_type("gap"))
    assert first + 10 + missing <= stop["oom_kills"]


def test_not_wanted(first_runs: Runs, storm: Storm) -> None:
    """Without the kernel log they are told to be missing."""
    storm.end(storm.brew(10, jobs=1))
    first_runs.start("--no-backfill")
    wait_until("the gap", lambda: first_runs.of_type("gap"))
    stop = first_runs.stop()
    (gap,) = first_runs.of_type("gap")
    assert gap["since"] is None
    assert gap["oom_kills"] == gap["missing"] == stop["oom_kills"]
    assert gap["cgroups"]
    assert {each["records"] for each in gap["cgroups"]} == {0}
    assert first_runs.of_type("oom_kill") == []


def test_told_by_cgroup(runs: Runs, cgroup: Cgroup, eat: Eat) -> None:
    """The gap names the cgroup whose victims found no room in the kernel, with its own count, and no other cgroup."""
    seen, burst = cgroup.child("seen", 8), cgroup.child("burst", 8)
    overflow(runs, eat, burst, lambda: storm_in(eat, seen, 20))
    recorded = sum(record["victim"]["cgroup"] == burst.name for record in runs.of_type("oom_kill"))
    assert runs.count("oom_kill") == 20 + recorded
    (gap,) = runs.of_type("gap")
    assert gap["cgroups"] == [{"cgroup": burst.name, "oom_kills": BURST, "records": recorded}]
    assert (gap["oom_kills"], gap["records"], gap["missing"]) == (20 + BURST, 20 + recorded, BURST - recorded)
    storm_in(eat, seen, 1)
    runs.wait_for_kills(21 + recorded)
    runs.stop()
    assert len(runs.of_type("gap")) == 1, "it is told once"


def test_group_kills_hide_nothing(runs: Runs, cgroup: Cgroup, eat: Eat) -> None:
    """Of first victims of group kills, some counted twice and some once, none hides a kill that is missing.

    The chosen one is not the one that asks for memory, and so it may be gone before the kernel comes upon it again.
    """
    if cgroup.hierarchy.version == 1:
        not_applicable("cgroup v1 has no memory.oom.group")
    burst = cgroup.child("burst", 8)
    groups = [cgroup.child(f"group{number}", 48) for number in range(GROUPS)]

    def kill_groups() -> None:
        for group in groups:
            group.write("memory.oom.group", 1)
            holder = eat(32, group, hold=True, life=600).full()
            eat(48, group, life=600).die()
            holder.die()

    overflow(runs, eat, burst, kill_groups)
    recorded = sum(record["victim"]["cgroup"] == burst.name for record in runs.of_type("oom_kill"))
    counted = [group.oom_kills() for group in groups]
    print(f"group kills: {GROUPS}, of which the kernel counted the first victim once: {counted.count(2)}")
    assert set(counted) <= {2, 3}
    (gap,) = runs.of_type("gap")
    assert gap["cgroups"] == [{"cgroup": burst.name, "oom_kills": BURST, "records": recorded}]
    assert gap["oom_kills"] == BURST + sum(counted)
    assert (gap["records"], gap["missing"]) == (recorded + 2 * GROUPS, BURST - recorded)
    runs.stop()


def overflow(runs: Runs, eat: Eat, burst: Cgroup, before: Callable[[], None]) -> None:
    """Start a run; while it stands still, let ``before`` kill, and then so many in ``burst`` that some find no room."""
    ledger = runs.state / "ledger"
    known = ledger.read_bytes()[:256]
    runs.start("--no-backfill", root=small_rings(runs.errors.parent, "briefs"))
    assert runs.process is not None
    wait_until("the account has begun", lambda: ledger.read_bytes()[:256] != known)
    runs.process.send_signal(signal.SIGSTOP)
    before()
    storm_in(eat, burst, BURST)
    assert burst.oom_kills() == BURST
    runs.process.send_signal(signal.SIGCONT)
    wait_until("the account", lambda: runs.of_type("gap"), 60)


def storm_in(eat: Eat, group: Cgroup, kills: int) -> None:
    """So many kills of processes whose command lines fill the ring buffer soon."""
    eater = eat(16, group, children=kills, jobs=2, life=600, extra=["x" * 900])
    for _ in attempts(300):
        if eater.ended():
            break


def pids(runs: Runs) -> set[int]:
    return {record["victim"]["tid"] for record in runs.of_type("oom_kill")}
