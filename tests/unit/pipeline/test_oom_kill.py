# SPDX-License-Identifier: Apache-2.0
"""oom_kill.py: units, names, and null for unknown values; every record satisfies the JSON Schema."""

import re
import time
from typing import Any

import pytest

from tests.harness import events
from tests.harness.events import incident, kill, victim
from tests.harness.records import BLIND, RECORDS, complete
from tests.harness.schema import validate
from tracer.base import clock
from tracer.capture import wire
from tracer.pipeline.oom_kill import PAGE, PAGE_COUNTER_MAX
from tracer.records.model import NO_LIMIT_BYTES, Scope

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z")


def test_victim() -> None:
    """Sizes are in bytes, names are text, and no field is null if all was seen."""
    record = complete(kill())
    started_at = record["victim"].pop("started_at")  # type: ignore[misc]
    assert started_at is not None
    assert TIME.fullmatch(started_at)
    assert record["victim"] == {
        "pid": events.NOBODY,
        "tid": events.NOBODY,
        "ppid": 1,
        "comm": "hog",
        "cmdline": ["/usr/bin/hog", "--all"],
        "exe": "/usr/bin/hog",
        "uid": 1000,
        "namespace_pid": 7,
        "is_container_init": False,
        "oom_score_adj": 0,
        "points": 4121,
        "rss_bytes": 4096 * PAGE,
        "anon_rss_bytes": 4000 * PAGE,
        "file_rss_bytes": 90 * PAGE,
        "shmem_rss_bytes": 6 * PAGE,
        "swap_bytes": 0,
        "total_vm_bytes": 25_884 * PAGE,
        "page_tables_bytes": 102_400,
        "peak_rss_bytes": 4200 * PAGE,
        "cgroup": "/system.slice/hog.service",
        "ancestors": [{"pid": events.NOBODY - 7, "comm": "sh"}],
        "shared_mm": [],
    }


def test_incident() -> None:
    """The incident has the kernel's own values."""
    record = complete(kill())
    assert {
        "id": f"6a4ce4a0-{events.INCIDENT_NS:x}",
        "scope": "memcg",
        "group_kill": False,
        "victims": 1,
        "gfp_mask": 0xCC0,
        "gfp_flags": None,
        "order": 0,
        "total_pages": 4096,
        "message": "Memory cgroup out of memory",
    } == record["incident"]
    assert f"6a4ce4a0-{events.INCIDENT_NS:x}-{events.NOBODY}" == record["id"]
    assert record["truncated"] == []


def test_who_asked() -> None:
    """The trigger is the process that requested memory, with its cgroup."""
    by = incident(trigger_pid=20, trigger_comm=events.comm(b"asks"), trigger_cgroup=events.path(b"/a/b"))
    trigger = complete(kill(by=by))["trigger"]
    assert trigger == {"pid": 20, "tid": events.NOBODY, "comm": "asks", "uid": 1000, "cgroup": "/a/b"}
    trigger = complete(kill(by=by._replace(flags=wire.INCIDENT_OC)))["trigger"]
    assert trigger == {"pid": 20, "tid": events.NOBODY, "comm": "asks", "uid": 1000, "cgroup": None}


def test_times() -> None:
    """Times of the kernel's clock become times of day."""
    now = events.header(wire.VICTIM, time_ns=clock.boottime_ns())
    before = clock.format_rfc3339(time.time_ns() - 1_000_000_000)
    when = complete(kill(victim(header=now)))["time"]
    assert when is not None
    assert TIME.fullmatch(when)
    assert before < when < clock.format_rfc3339(time.time_ns() + 1_000_000_000)


@pytest.mark.parametrize(
    ("flags", "order", "constraint", "scope"),
    [
        (wire.INCIDENT_OC | wire.INCIDENT_MEMCG, 0, 3, "memcg"),
        # oc->constraint was not set in 5.0-5.2.
        (wire.INCIDENT_OC | wire.INCIDENT_MEMCG, 0, 0, "memcg"),
        (wire.INCIDENT_OC, 0, 0, "host"),
        (wire.INCIDENT_OC, 3, 1, "cpuset"),
        (wire.INCIDENT_OC, 0, 2, "mempolicy"),
        (wire.INCIDENT_OC, -1, 0, "sysrq"),
        (wire.INCIDENT_OC, 0, 4, None),  # of a kernel that is newer than this
    ],
)
def test_scope(flags: int, order: int, constraint: int, scope: Scope | None) -> None:
    """The scope follows from the limit, SysRq-f's order, and the kernel's constraint."""
    record = complete(kill(by=incident(flags=flags, order=order, constraint=constraint)))
    assert scope == record["incident"]["scope"]
    assert (scope == "memcg") == (record["limit"] is not None)


def test_limit_v2() -> None:
    """A cgroup v2 counts memory and swap separately."""
    limit = events.counters(limit_pages=4096, swap_usage_pages=5, swap_limit_pages=10, failcnt=-1)
    record = complete(kill(by=incident(limit=limit)))
    breakdown = {
        "anon_bytes": 4000 * PAGE,
        "file_bytes": 90 * PAGE,
        "shmem_bytes": 6 * PAGE,
        "slab_bytes": 8192,
        "kernel_bytes": 3 * PAGE,
        "sock_bytes": 0,
    }
    assert {
        "cgroup": "/system.slice/hog.service",
        "level": "unit",
        "usage_bytes": 4096 * PAGE,
        "limit_bytes": 4096 * PAGE,
        "failcnt": None,
        "swap_usage_bytes": 5 * PAGE,
        "swap_limit_bytes": 10 * PAGE,
        "memsw_usage_bytes": None,
        "memsw_limit_bytes": None,
        "breakdown": breakdown,
    } == record["limit"]


def v1(**changes: Any) -> wire.MemcgCounters:
    """The counters of a cgroup v1."""
    return events.counters(
        usage_pages=100,
        limit_pages=100,
        failcnt=17,
        swap_usage_pages=-1,
        swap_limit_pages=-1,
        memsw_usage_pages=130,
        memsw_limit_pages=200,
    )._replace(**changes)


@pytest.mark.parametrize(("memsw_pages", "swap_pages"), [(130, 30), (100, 0), (99, 0)])
def test_limit_v1(memsw_pages: int, swap_pages: int) -> None:
    """A cgroup v1 counts memory and swap together: swap is the difference, and never negative."""
    record = complete(kill(by=incident(limit=v1(memsw_usage_pages=memsw_pages))))
    limit = record["limit"]
    assert limit is not None
    assert (memsw_pages * PAGE, 200 * PAGE) == (limit["memsw_usage_bytes"], limit["memsw_limit_bytes"])
    assert (swap_pages * PAGE, None) == (limit["swap_usage_bytes"], limit["swap_limit_bytes"])
    assert limit["failcnt"] == 17


def test_no_limit() -> None:
    """The kernel's value for "no limit" is recognized for any page size."""
    unlimited = events.counters(limit_pages=PAGE_COUNTER_MAX, swap_limit_pages=PAGE_COUNTER_MAX)
    limit = complete(kill(by=incident(limit=unlimited)))["limit"]
    assert limit is not None
    assert (limit["limit_bytes"], limit["swap_limit_bytes"]) == (NO_LIMIT_BYTES, NO_LIMIT_BYTES)
    assert NO_LIMIT_BYTES == 9223372036854771712


def test_statistics_unknown() -> None:
    """The breakdown of a memory cgroup is null if it is unknown, as a whole or in part."""
    limit = complete(kill(by=incident(stat=wire.MemcgStat(1, 2, 3, -1, -1, 4))))["limit"]
    assert limit is not None
    assert limit["breakdown"] is not None
    assert (limit["breakdown"]["slab_bytes"], limit["breakdown"]["kernel_bytes"]) == (None, None)
    limit = complete(kill(by=incident(flags=wire.INCIDENT_OC | wire.INCIDENT_MEMCG)))["limit"]
    assert limit is not None
    assert limit["breakdown"] is None


def test_candidates_are_sorted() -> None:
    """The highest score comes first, and among equal ones the chosen process."""
    scored = [(5, 1), (40, 2), (-7, 3), (40, events.NOBODY)]
    candidates = tuple(events.candidate(points=points, pid=pid) for points, pid in scored)
    by = incident(candidates=candidates, candidates_len=4, scored=33)
    record = complete(kill(by=by))
    assert record["candidates"] is not None
    assert [(candidate["points"], candidate["pid"]) for candidate in record["candidates"]] == [
        (40, events.NOBODY),
        (40, 2),
        (5, 1),
        (-7, 3),
    ]
    assert record["candidates_scored"] == 33


def test_candidate_without_memory() -> None:
    """A candidate whose leader has exited has a score and no size."""
    candidates = complete(kill(by=incident(candidates=(events.candidate(rss_pages=-1),))))["candidates"]
    assert candidates == [{"pid": events.NOBODY, "comm": "hog", "points": 4121, "rss_bytes": None, "oom_score_adj": 0}]


@pytest.mark.parametrize(
    ("chosen_pid", "chosen_points", "points"),
    [(events.NOBODY, 4121, 4121), (events.NOBODY, -5, -5), (events.NOBODY, 0, None), (2, 4121, None)],
)
def test_points(chosen_pid: int, chosen_points: int, points: int | None) -> None:
    """Only the chosen process has points, not the other members of a group kill."""
    record = complete(kill(by=incident(chosen_pid=chosen_pid, chosen_points=chosen_points)))
    assert points == record["victim"]["points"]


def test_scores_unseen() -> None:
    """If the scoring cannot be hooked, candidates are null."""
    record = complete(kill(), BLIND)
    assert (record["candidates"], record["candidates_scored"]) == (None, None)


@pytest.mark.parametrize(("chosen_points", "candidates"), [(4121, None), (0, [])])
def test_nobody_scored(chosen_points: int, candidates: list[object] | None) -> None:
    """Candidates are null if oom_badness() is inlined, and empty if the kernel scored none."""
    record = complete(kill(by=incident(candidates=(), candidates_len=0, scored=0, chosen_points=chosen_points)))
    assert record["candidates"] == candidates
    assert record["candidates_scored"] == (None if candidates is None else 0)


def test_group_kill() -> None:
    """A group kill has its flag and the number of victims."""
    by = incident(flags=incident().flags | wire.INCIDENT_GROUP)
    record = complete(kill(by=by)._replace(victims=3))
    assert (record["incident"]["group_kill"], record["incident"]["victims"]) == (True, 3)


def test_incident_lost() -> None:
    """A victim with an unknown incident has a record."""
    record = complete(kill()._replace(incident=None, victims=None))
    assert (record["limit"], record["trigger"], record["candidates"]) == (None, None, None)
    assert {None} == {value for name, value in record["incident"].items() if name != "id"}
    assert record["victim"]["comm"] == "hog"


def test_task_unreadable() -> None:
    """If only the thread id is known, the rest is null, and the record's id contains the thread id."""
    blank = victim(
        pid=0,
        tid=77,
        flags=0,
        comm=bytes(16),
        cgroup=b"",
        exe=b"",
        cmdline=b"",
        **dict.fromkeys((name for name in wire.VictimEvent._fields if name.endswith(("_pages", "_bytes"))), -1),
    )
    record = complete(kill(blank))
    assert {77, None} == set(record["victim"].values())
    assert record["id"].endswith("-77")


@pytest.mark.parametrize("unknown", ["anon_rss_pages", "file_rss_pages", "shmem_rss_pages"])
def test_resident_size_unknown(unknown: str) -> None:
    """A sum with an unknown part is unknown."""
    assert complete(kill(victim(**{unknown: -1})))["victim"]["rss_bytes"] is None


def test_peak_is_not_below_the_present() -> None:
    """The kernel updates the peak late: it is at least the present size."""
    assert complete(kill(victim(peak_rss_pages=12)))["victim"]["peak_rss_bytes"] == 4096 * PAGE


@pytest.mark.parametrize(("level", "pid", "init"), [(1, 1, True), (1, 2, False), (0, 1, False)])
def test_container_init(level: int, pid: int, init: bool) -> None:
    """The first process of a PID namespace below the host's is a container's init."""
    record = complete(kill(victim(namespace_level=level, namespace_pid=pid)))
    assert init == record["victim"]["is_container_init"]


@pytest.mark.parametrize(
    ("raw", "arguments"),
    [
        (b"a\0", ["a"]),
        (b"a\0b c\0\0", ["a", "b c", ""]),
        (b"nginx: master process", ["nginx: master process"]),
        (b"", []),
        (b"a\xff\0\xe2\x82", ["a\\xff", "\\xe2\\x82"]),
    ],
)
def test_cmdline(raw: bytes, arguments: list[str]) -> None:
    """A command line is a list; a rewritten (nginx) or truncated one has no NUL at its end."""
    assert arguments == complete(kill(victim(cmdline=raw)))["victim"]["cmdline"]


def test_sharers() -> None:
    """Processes that share the victim's memory are listed."""
    record = complete(kill(shared_mm=(events.shared_mm(8), events.shared_mm(9))))
    assert record["victim"]["shared_mm"] == [{"pid": 8, "comm": "child"}, {"pid": 9, "comm": "child"}]


def test_cut() -> None:
    """Fields that the BPF programs truncated are named."""
    cut = wire.VICTIM_CGROUP_TRUNCATED | wire.VICTIM_EXE_TRUNCATED | wire.VICTIM_CMDLINE_TRUNCATED
    by = incident(flags=incident().flags | wire.INCIDENT_LIMIT_TRUNCATED | wire.INCIDENT_TRIGGER_TRUNCATED)
    record = complete(kill(victim(flags=victim().flags | cut), by))
    paths = ["limit.cgroup", "trigger.cgroup", "victim.cgroup", "victim.cmdline", "victim.exe"]
    assert paths == sorted(record["truncated"])


def test_unknown_paths() -> None:
    """The path of a cgroup that is too deep is null, not the root."""
    flags = victim().flags & ~wire.VICTIM_CGROUP | wire.VICTIM_CGROUP_TRUNCATED
    by = incident(
        flags=incident().flags & ~wire.INCIDENT_TRIGGER_CGROUP
        | wire.INCIDENT_LIMIT_TRUNCATED
        | wire.INCIDENT_TRIGGER_TRUNCATED,
        limit_cgroup=b"",
        trigger_cgroup=b"",
    )
    record = complete(kill(victim(flags=flags, cgroup=b""), by))
    assert record["limit"] is not None
    assert record["trigger"] is not None
    assert (record["victim"]["cgroup"], record["limit"]["cgroup"], record["trigger"]["cgroup"]) == (None, None, None)
    assert (record["container"], record["owner"], record["systemd"]) == (None, None, None)
    assert {"limit.cgroup", "trigger.cgroup", "victim.cgroup"} <= set(record["truncated"])


def test_hostile_names() -> None:
    """Any bytes that a container chose become text."""
    odd = b'\xff\n\x1b[31m"\\'
    record = complete(kill(victim(comm=events.comm(odd), cgroup=events.path(b"/" + odd), exe=events.path(b"/" + odd))))
    text = '\\xff\n\x1b[31m"\\'
    assert (text, f"/{text}", f"/{text}") == (
        record["victim"]["comm"],
        record["victim"]["cgroup"],
        record["victim"]["exe"],
    )


def test_exit() -> None:
    """An exit has the ids of its kill."""
    header = events.header(wire.EXIT, time_ns=events.KILL_NS + 9_000)
    gone = RECORDS.oom_exit(wire.ExitEvent(header, killed_ns=events.KILL_NS, pid=events.NOBODY))
    killed = complete(kill())
    validate(gone)
    assert (killed["id"], killed["incident"]["id"]) == (gone["id"], gone["incident_id"])
    assert (gone["pid"], gone["after_ns"]) == (events.NOBODY, 9_000)
    early = RECORDS.oom_exit(wire.ExitEvent(header._replace(time_ns=events.KILL_NS - 1), events.KILL_NS, events.NOBODY))
    assert early["after_ns"] == 0


def test_impossible_sizes() -> None:
    """Impossible sizes are null, not numbers that JSON readers cannot represent."""
    record = complete(events.kill(events.victim(anon_rss_pages=2**62, file_rss_pages=2**62)))
    assert (record["victim"]["rss_bytes"], record["victim"]["anon_rss_bytes"]) == (None, None)
