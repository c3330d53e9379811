# SPDX-License-Identifier: Apache-2.0
"""Compares two records of one kill: the daemon's, and that of ``oomtrace parse`` from the kernel log.

Every field is compared; RULES has the allowed differences.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from tracer.logs.kills import KillSearch, ReadOptions

from . import oracles
from .environment import IN_VM, PAGE
from .kernel_log import LONGEST_PART, Kill
from .oracles import Record

CLOCKS_S = 2.0 if IN_VM else 0.1
"""Difference between printk's clock and the programs' soon after boot, plus the time until a kill is logged."""

Rule = Callable[[Any, Any], bool]
"""Whether the daemon's value and the log's may be of one kill."""


def parsed(log: Iterable[bytes], file: Path) -> dict[int, Record]:
    """Victim's tid -> record that parse makes from records of /dev/kmsg."""
    file.write_bytes(b"".join(log))
    booted_ns = time.time_ns() - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    form = ReadOptions(boot_time=datetime.fromtimestamp(booted_ns / 1e9).astimezone().isoformat())
    records: list[Any] = list(KillSearch(options=form).kills([str(file)]))
    found = {record["victim"]["tid"]: record for record in records}
    assert len(records) == len(found), "one record per victim"
    return found


def near(slack: int) -> Rule:
    return lambda seen, logged: abs(seen - logged) <= slack


def _own(seen: Any, logged: Any) -> bool:
    """Fields that differ by design."""
    return True


def _unlogged(seen: Any, logged: Any) -> bool:
    """Fields that the kernel does not log."""
    return logged is None


def _total(seen: Any, logged: Any) -> bool:
    """The log has the host's total; that of a limit or of nodes is not logged."""
    return logged is None or seen == logged


def _file(seen: Any, logged: Any) -> bool:
    """From the runtime's files; the log has what the cgroup's path contains."""
    return logged is None or seen == logged


def _time(seen: str, logged: str) -> bool:
    """printk's clock differs."""
    moments = [datetime.fromisoformat(each[:26] + "+00:00") for each in (seen, logged)]
    return abs((moments[0] - moments[1]).total_seconds()) < CLOCKS_S


def _trigger_comm(seen: str, logged: str) -> bool:
    """printk takes a first byte 1 for a prefix, and removes it with the second byte."""
    return seen == logged or (seen.startswith("\x01") and seen.endswith(logged))


RSS = near(oracles.rss_slack_pages() * PAGE)
"""The log has counters without their per-CPU parts (6.2 and later)."""
ALL_RSS = near(3 * oracles.rss_slack_pages() * PAGE)
"""The sum of three such counters."""
CHARGE = near(oracles.charge_slack_bytes())
FAILURES = near(1)
"""Read at slightly different times."""

RULES: dict[str, Rule] = {
    "id": _own,
    "seq": _own,
    "host": _own,
    "source": _own,
    "delayed": _own,
    "truncated": _own,
    "time": _time,
    "incident.id": _own,
    "incident.total_pages": _total,
    "limit.usage_bytes": CHARGE,
    "limit.swap_usage_bytes": CHARGE,
    "limit.memsw_usage_bytes": CHARGE,
    "limit.failcnt": FAILURES,
    "limit.breakdown.anon_bytes": CHARGE,
    "limit.breakdown.file_bytes": CHARGE,
    "limit.breakdown.shmem_bytes": CHARGE,
    "limit.breakdown.slab_bytes": CHARGE,
    "limit.breakdown.kernel_bytes": CHARGE,
    "limit.breakdown.sock_bytes": CHARGE,
    "victim.ppid": _unlogged,
    "victim.cmdline": _unlogged,
    "victim.exe": _unlogged,
    "victim.namespace_pid": _unlogged,
    "victim.is_container_init": _unlogged,
    "victim.started_at": _unlogged,
    "victim.points": _unlogged,
    "victim.rss_bytes": ALL_RSS,
    "victim.anon_rss_bytes": RSS,
    "victim.file_rss_bytes": RSS,
    "victim.shmem_rss_bytes": RSS,
    "victim.swap_bytes": CHARGE,  # of the table, which is printed before the kill
    "victim.peak_rss_bytes": _unlogged,
    "victim.ancestors": _unlogged,
    "victim.shared_mm": _unlogged,
    "trigger.comm": _trigger_comm,
    "trigger.uid": _unlogged,
    "trigger.cgroup": _unlogged,
    "candidates": _own,  # see check_candidates
    "candidates_scored": _unlogged,
    "container.runtime": _file,
    "container.name": _file,
    "container.image": _file,
    "container.labels": _file,
    "container.ip_addresses": _file,
    "kubernetes.pod_name": _file,
    "kubernetes.namespace": _file,
    "kubernetes.container_name": _file,
    "network": _unlogged,
}
"""Allowed differences; all other fields are equal."""

ALWAYS = {
    "schema", "type", "time", "incident.message", "victim.tid", "victim.comm", "victim.uid", "victim.oom_score_adj",
    "victim.rss_bytes", "victim.anon_rss_bytes", "victim.file_rss_bytes", "victim.shmem_rss_bytes",
    "victim.total_vm_bytes", "victim.page_tables_bytes",
}  # fmt: skip
"""Fields of the line "Killed process", which is not rate-limited: never null.  Others may be missing, see REPORTED."""

REPORTED = {
    "incident.scope",
    "incident.gfp_mask",
    "incident.gfp_flags",
    "incident.order",
    "trigger.comm",
    "trigger.tid",
}
"""Fields of the report above that line: not null if the kernel printed it."""


FROM_PATHS = ("victim.cgroup", "limit.cgroup", "limit.level", "container", "kubernetes", "systemd")
"""Fields from cgroup paths, which kernel log and daemon cut when they are long."""


def check(seen: Record, logged: Record, kill: Kill, *, steady: bool) -> None:
    """Check that fields in both records agree, and that the log's record has all that is in the log.

    Counters of the limit's cgroup and sizes of candidates are compared if they are ``steady``: no other process used
    the cgroup meanwhile.
    """
    wrong = []
    cut = {*seen["truncated"], *logged["truncated"]}
    has_path = "victim.cgroup" not in cut and len(seen["victim"]["cgroup"]) <= LONGEST_PART
    for path, mine, its in fields("", seen, logged):
        rule = RULES.get(path)
        if rule is _own or (not has_path and path.startswith(FROM_PATHS)):
            continue
        if rule is _unlogged:
            good = its is None
        elif its is None:
            good = path not in ALWAYS and (mine is None or kill.report is None or path not in REPORTED)
        elif mine is None:  # without kprobes, or where the kernel skipped them
            good = path not in ALWAYS or path == "incident.message"
        elif rule in (CHARGE, FAILURES) and not steady:
            good = True
        else:
            good = mine == its if rule is None else rule(mine, its)
        if not good:
            wrong.append((path, mine, its))
    assert not wrong, f"(field, the daemon's, the log's): {wrong}; {seen} {logged}"
    if kill.report is not None and kill.report.is_about(seen["victim"]["tid"]) and kill.report.constraint and has_path:
        odd = any(word in seen["victim"]["cgroup"] for word in ("task_memcg=", "oom_memcg=", "global_oom"))
        assert odd or logged["victim"]["cgroup"] is not None, logged
        assert odd or (logged["limit"] is None) == (logged["incident"]["scope"] != "memcg"), logged
    check_candidates(seen["candidates"], logged["candidates"], seen["victim"], steady=steady)


def fields(path: str, seen: Any, logged: Any) -> Iterator[tuple[str, Any, Any]]:
    """Path and values of each field; the fields of an object that is null are null."""
    one, other = isinstance(seen, dict), isinstance(logged, dict)
    if path in RULES or not (one or other):
        yield path, seen, logged
        return
    for name in (seen if one else logged) | (logged if other else seen):
        yield from fields(
            f"{path}.{name}".lstrip("."), seen.get(name) if one else None, logged.get(name) if other else None
        )


def check_candidates(seen: list[Record] | None, logged: list[Record] | None, victim: Record, *, steady: bool) -> None:
    """Compare the candidates in both: the ten highest scores, and the log's ten largest; the victim is first in both.

    For a process whose main thread has exited, the log's table has the thread with its memory.
    """
    if not seen or not logged:
        return
    assert seen[0]["pid"] == logged[0]["pid"]
    mine = {each["pid"]: each for each in seen}
    for each in logged:
        if (twin := mine.get(each["pid"])) is None:
            continue
        assert twin["oom_score_adj"] == each["oom_score_adj"], (twin, each)
        if each["pid"] != victim["pid"] or victim["pid"] == victim["tid"]:
            assert twin["comm"] == each["comm"], (twin, each)
        if steady and twin["rss_bytes"] is not None and each["rss_bytes"] is not None:
            assert ALL_RSS(twin["rss_bytes"], each["rss_bytes"]), (twin, each)
