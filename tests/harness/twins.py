# SPDX-License-Identifier: Apache-2.0
"""Two records of one kill: the tracer's, and the one that `oomtrace parse` makes of the kernel's log.

Every field is compared; where the two may differ, the table RULES tells why, and how far.
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
"""printk's clock against that of the programs, this soon after boot, and how long a kill may take to be printed."""

Rule = Callable[[Any, Any], bool]
"""Whether the tracer's value and the log's are of one kill."""


def parsed(log: Iterable[bytes], file: Path) -> dict[int, Record]:
    """The records that parse makes of text of /dev/kmsg, by the thread that was killed."""
    file.write_bytes(b"".join(log))
    booted_ns = time.time_ns() - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    form = ReadOptions(boot_time=datetime.fromtimestamp(booted_ns / 1e9).astimezone().isoformat())
    records: list[Any] = list(KillSearch(form=form).kills([str(file)]))
    found = {record["victim"]["tid"]: record for record in records}
    assert len(records) == len(found), "one record a victim"
    return found


def near(slack: int) -> Rule:
    return lambda seen, logged: abs(seen - logged) <= slack


def _own(seen: Any, logged: Any) -> bool:
    """Each says something of itself here."""
    return True


def _unlogged(seen: Any, logged: Any) -> bool:
    """The kernel does not print it."""
    return logged is None


def _total(seen: Any, logged: Any) -> bool:
    """The kernel prints what the host has; of a limit or of nodes it counts what no log tells."""
    return logged is None or seen == logged


def _file(seen: Any, logged: Any) -> bool:
    """From the runtime's files, which no log has; the cgroup's path tells some of it."""
    return logged is None or seen == logged


def _time(seen: str, logged: str) -> bool:
    """printk's clock is its own."""
    moments = [datetime.fromisoformat(each[:26] + "+00:00") for each in (seen, logged)]
    return abs((moments[0] - moments[1]).total_seconds()) < CLOCKS_S


def _trigger_comm(seen: str, logged: str) -> bool:
    """printk takes a first byte 1 for a prefix of its own, and with it the second one."""
    return seen == logged or (seen.startswith("\x01") and seen.endswith(logged))


RSS = near(oracles.rss_slack_pages() * PAGE)
"""The log shows counters without their per-CPU parts (6.2 and later)."""
ALL_RSS = near(3 * oracles.rss_slack_pages() * PAGE)
"""The same thrice."""
CHARGE = near(oracles.charge_slack_bytes())
FAILURES = near(1)
"""The two were read a moment apart."""

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
"""What is not here is equal."""

ALWAYS = {
    "schema", "type", "time", "incident.message", "victim.tid", "victim.comm", "victim.uid", "victim.oom_score_adj",
    "victim.rss_bytes", "victim.anon_rss_bytes", "victim.file_rss_bytes", "victim.shmem_rss_bytes",
    "victim.total_vm_bytes", "victim.page_tables_bytes",
}  # fmt: skip
"""Of the line "Killed process", whose rate is not limited: never null.  The rest the log may lack, see REPORTED."""

REPORTED = {
    "incident.scope",
    "incident.gfp_mask",
    "incident.gfp_flags",
    "incident.order",
    "trigger.comm",
    "trigger.tid",
}
"""Of the report above that line: not null where the kernel printed it."""


FROM_PATHS = ("victim.cgroup", "limit.cgroup", "limit.level", "container", "kubernetes", "systemd")
"""What comes of paths of cgroups: the kernel cuts long ones in its log, the tracer in its lines."""


def check(seen: Record, logged: Record, kill: Kill, *, steady: bool) -> None:
    """Both are of one kill: each field that both know is the same, and the log's record has all that the log has.

    Counters of the limit's cgroup and sizes of candidates are compared when they are ``steady``, that is when nobody
    else used the cgroup.
    """
    wrong = []
    cut = {*seen["truncated"], *logged["truncated"]}
    whole = "victim.cgroup" not in cut and len(seen["victim"]["cgroup"]) <= LONGEST_PART
    for path, mine, its in fields("", seen, logged):
        rule = RULES.get(path)
        if rule is _own or (not whole and path.startswith(FROM_PATHS)):
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
    assert not wrong, f"(field, the tracer's, the log's): {wrong}; {seen} {logged}"
    if kill.report is not None and kill.report.is_about(seen["victim"]["tid"]) and kill.report.constraint and whole:
        odd = any(word in seen["victim"]["cgroup"] for word in ("task_memcg=", "oom_memcg=", "global_oom"))
        assert odd or logged["victim"]["cgroup"] is not None, logged
        assert odd or (logged["limit"] is None) == (logged["incident"]["scope"] != "memcg"), logged
    check_candidates(seen["candidates"], logged["candidates"], seen["victim"], steady=steady)


def fields(path: str, seen: Any, logged: Any) -> Iterator[tuple[str, Any, Any]]:
    """Each field of the two by its path; an object that is null on one side has all of its fields null there."""
    one, other = isinstance(seen, dict), isinstance(logged, dict)
    if path in RULES or not (one or other):
        yield path, seen, logged
        return
    for name in (seen if one else logged) | (logged if other else seen):
        yield from fields(
            f"{path}.{name}".lstrip("."), seen.get(name) if one else None, logged.get(name) if other else None
        )


def check_candidates(seen: list[Record] | None, logged: list[Record] | None, victim: Record, *, steady: bool) -> None:
    """The ten highest scores and the log's ten largest are not the same ten; who was chosen is the first of both.

    Of a process whose first thread is gone the log's table names the thread that has its memory.
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
