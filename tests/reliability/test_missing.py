# SPDX-License-Identifier: Apache-2.0
"""Hosts that lack something, and times in which nothing was attached: the kernel log covers what it can."""

from tests.kernel.environment import wait_until

from .conftest import Storm
from .runs import Runs

WITHOUT_BPFFS = ["unshare", "--mount", "sh", "-c", 'umount --all-targets --lazy /sys/fs/bpf; exec "$@"', "sh"]
WITHOUT_TRACEFS = [
    "unshare", "--mount", "sh", "-c",
    'umount --lazy /sys/kernel/tracing; umount --lazy /sys/kernel/debug/tracing; exec "$@"', "sh",
]  # fmt: skip


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
    assert first_runs.of_type("oom_kill") == []


def pids(runs: Runs) -> set[int]:
    return {record["victim"]["tid"] for record in runs.of_type("oom_kill")}
