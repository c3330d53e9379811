# SPDX-License-Identifier: Apache-2.0
"""Compares records with the kernel's counters and log."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .environment import KERNEL_VERSION, PAGE
from .kernel_log import LONGEST_PART, Kill, Report

TRACEFS = Path("/sys/kernel/tracing")

SCOPES = {
    "CONSTRAINT_NONE": "host",
    "CONSTRAINT_CPUSET": "cpuset",
    "CONSTRAINT_MEMORY_POLICY": "mempolicy",
    "CONSTRAINT_MEMCG": "memcg",
}

RSS_EVENTS = 64
"""TASK_RSS_EVENTS_THRESH: page faults that a thread batches before it counts them."""

Record = dict[str, Any]
"""A parsed line of the daemon's output, with the fields of the JSON Schema."""


def vmstat_oom_kills() -> int:
    """The kernel's count of all OOM kills; the first victim of a group kill is counted twice."""
    lines = Path("/proc/vmstat").read_text().splitlines()
    return next(int(value) for name, value in map(str.split, lines) if name == "oom_kill")


def rss_slack_pages() -> int:
    """Deviation of sizes in the kernel log, which reads counters without their per-CPU parts.

    Since Linux kernel commit f1a7941243c1 ("mm: convert mm's rss stats into percpu_counter") (in v6.2);
    percpu_counter_batch is max(32, 2 * CPUs).  Before, the log is exact; but on another CPU the victim runs on for a
    moment between the mark and the log, and adds its batch (TASK_RSS_EVENTS_THRESH pages).
    """
    cpus = os.sysconf("SC_NPROCESSORS_ONLN")
    if KERNEL_VERSION < (6, 2):
        return 0 if cpus == 1 else 2 * RSS_EVENTS
    return max(32, 2 * cpus) * cpus


def charge_slack_bytes() -> int:
    """Deviation of a cgroup's usage, which moves in and out of the per-CPU stocks meanwhile."""
    return 64 * PAGE * (os.sysconf("SC_NPROCESSORS_ONLN") + 1)


def check_near(expected: int, actual: int, slack: int, name: str) -> None:
    """Check that two values differ by the slack at most."""
    assert expected - slack <= actual <= expected + slack, name


def check_victim(record: Record, kill: Kill) -> None:
    """Check that the record and the "Killed process" line agree."""
    victim = record["victim"]
    assert kill.tid == victim["tid"]
    assert kill.comm == victim["comm"]
    assert kill.uid == victim["uid"]
    assert kill.oom_score_adj == victim["oom_score_adj"]
    assert kill.total_vm_kb == victim["total_vm_bytes"] >> 10
    assert kill.page_tables_kb == victim["page_tables_bytes"] >> 10
    slack_kb = rss_slack_pages() * PAGE >> 10
    for kind, logged_kb in (
        ("anon", kill.anon_rss_kb),
        ("file", kill.file_rss_kb),
        ("shmem", kill.shmem_rss_kb),
    ):
        check_near(logged_kb, victim[f"{kind}_rss_bytes"] >> 10, slack_kb, f"{kind}_rss_bytes / 1024")
    assert victim["anon_rss_bytes"] + victim["file_rss_bytes"] + victim["shmem_rss_bytes"] == victim["rss_bytes"]
    assert victim["peak_rss_bytes"] is None or victim["peak_rss_bytes"] >= victim["rss_bytes"]
    if record["incident"]["message"] is not None:
        assert kill.message == record["incident"]["message"]


def check_report(record: Record, report: Report, kprobes: bool, steady: bool) -> None:
    """Check that the record and the kernel's report agree.

    The cgroup's counters are compared if they are ``steady``: no other process used the cgroup meanwhile.
    """
    incident, limit, trigger, victim = record["incident"], record["limit"], record["trigger"], record["victim"]
    assert report.gfp_mask == incident["gfp_mask"]
    assert report.gfp_flags == incident["gfp_flags"]
    assert report.order == incident["order"]
    assert report.trigger_tid == trigger["tid"]
    if not trigger["comm"].startswith("\x01"):  # printk takes that byte for a prefix
        assert report.comm == trigger["comm"]
    if report.constraint is None:
        return
    if limit is None and not kprobes and len(victim["cgroup"]) > LONGEST_PART:
        return  # the limit comes from the log, whose line was cut
    scope = "sysrq" if report.order == -1 else SCOPES[report.constraint]
    assert scope == incident["scope"]
    where = f"oom_memcg={limit['cgroup']}" if report.constraint == "CONSTRAINT_MEMCG" else "global_oom"
    if len(victim["cgroup"]) <= LONGEST_PART:
        who = f"{where},task_memcg={victim['cgroup']},task="
        # The summary names the chosen process: the first victim of a group kill, with its main thread's comm.
        if report.is_about(victim["tid"]):
            if victim["pid"] == victim["tid"]:
                who += victim["comm"]
            assert report.who.startswith(who)
            assert report.who.endswith(f",pid={victim['pid']},uid={victim['uid']}")
        else:
            assert report.who.startswith(where)
    if report.constraint == "CONSTRAINT_MEMCG" and steady:
        check_limit(limit, report, kprobes)


def check_limit(limit: Record, report: Report, kprobes: bool) -> None:
    """Check that the limit's counters agree; they were read at slightly different times."""
    slack = charge_slack_bytes()
    for counter, prefix in (("memory", ""), ("memory+swap", "memsw_"), ("swap", "swap_")):
        usage, maximum = limit[f"{prefix}usage_bytes"], limit[f"{prefix}limit_bytes"]
        if counter in report.usage_kb and (kprobes or usage is not None):
            assert report.limit_kb[counter] == maximum >> 10, counter
            check_near(report.usage_kb[counter] << 10, usage, slack, f"{prefix}usage_bytes")
    if "memory+swap" in report.failcnt:  # cgroup v1 only
        check_near(report.failcnt["memory"], limit["failcnt"], 1, "failcnt")


def check_breakdown(record: Record, report: Report | None) -> None:
    """Check that the breakdown of the usage agrees with the kernel's report."""
    assert report is not None, "the kernel did not report this kill"
    breakdown = record["limit"]["breakdown"]
    names = {"anon_bytes": ("anon", "total_rss"), "shmem_bytes": ("shmem", "total_shmem")}
    for name, (v2, v1) in names.items():
        logged = report.statistics.get(v1, report.statistics.get(v2))
        assert logged is not None, name
        check_near(logged, breakdown[name], charge_slack_bytes(), name)


class MarkedVictims:
    """Records the tracepoint oom:mark_victim in a separate ftrace instance."""

    def __init__(self, instance: Path) -> None:
        self._instance = instance

    def tids(self) -> list[int]:
        """Tids marked since the instance was made."""
        lines = (self._instance / "trace").read_text(errors="replace").splitlines()
        marks = [line.partition("mark_victim: pid=")[2] for line in lines]
        return [int(mark.split()[0]) for mark in marks if mark]


@contextmanager
def marked_victims() -> Iterator[MarkedVictims]:
    """Trace oom:mark_victim, which fires for kills and for victims that already die."""
    instance = TRACEFS / "instances" / f"oomtrace-test-{os.getpid()}"
    instance.mkdir()
    event = instance / "events/oom/mark_victim/enable"
    try:
        event.write_text("1")
        yield MarkedVictims(instance)
    finally:
        event.write_text("0")
        instance.rmdir()
