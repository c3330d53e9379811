# SPDX-License-Identifier: Apache-2.0
"""oom_report.py: lines of kernels before 5.10, from the format strings of their sources."""

import pytest

from tests.harness.kernel_log_files import reports
from tests.harness.records import HOST
from tests.harness.schema import validate
from tracer.logs.log_line import LogLine
from tracer.logs.log_records import LogRecords
from tracer.logs.victim_report import VictimReport

SIZES = b"total-vm:1641388kB, anon-rss:1595164kB, file-rss:76kB"
SHMEM = b", shmem-rss:0kB"
NO_LIMIT = b"9007199254740988kB"

DOCKER = b"/docker/7e29cfc63f60"
MEMCG_4_14 = [
    b"mem invoked oom-killer: gfp_mask=0x14200ca(GFP_HIGHUSER_MOVABLE), nodemask=(null),  order=0, oom_score_adj=0",
    b"mem cpuset=609e7ec068ac mems_allowed=0",
    b"CPU: 0 PID: 94 Comm: mem Not tainted 4.14.67+ #1",
    b"Call Trace:",
    b" dump_stack+0x5c/0x78",
    b"Task in " + DOCKER + b"/a killed as a result of limit of " + DOCKER,
    b"memory: usage 524288kB, limit 524288kB, failcnt 2472",
    b"memory+swap: usage 532480kB, limit " + NO_LIMIT + b", failcnt 0",
    b"kmem: usage 7524kB, limit " + NO_LIMIT + b", failcnt 0",
    b"Memory cgroup stats for " + DOCKER + b": cache:0KB rss:0KB rss_huge:0KB shmem:0KB mapped_file:0KB swap:8192KB",
    b"Memory cgroup stats for " + DOCKER + b"/a: cache:188KB rss:516576KB rss_huge:30720KB shmem:4KB unevictable:0KB ",
    b"[ pid ]   uid  tgid total_vm      rss nr_ptes nr_pmds swapents oom_score_adj name",
    b"[   93]     0    93   133500   129166     270       3     2048             0 mem",
    b"[   97]  1000    97     1500      400       8       3        0          -500 sh",
    b"Memory cgroup out of memory: Kill process 93 (mem) score 986 or sacrifice child",
    b"Killed process 93 (mem) total-vm:534000kB, anon-rss:516576kB, file-rss:88kB, shmem-rss:0kB",
    b"oom_reaper: reaped process 93 (mem), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB",
]


def read(*texts: bytes) -> list[VictimReport]:
    """The reports in these lines, a millisecond apart."""
    return reports(LogLine(text, 10**9 + n * 10**6, "printk") for n, text in enumerate(texts))


def test_memcg_before_5_0() -> None:
    """Two cgroups on one line, statistics of each cgroup on one line, and a table without sizes of page tables."""
    (report,) = read(*MEMCG_4_14)
    record = LogRecords("6a4ce4a0", 4096).oom_kill(report)
    record["host"] = HOST
    validate(record)
    incident, limit, victim = record["incident"], record["limit"], record["victim"]
    assert (incident["scope"], incident["gfp_mask"], incident["gfp_flags"]) == (
        "memcg",
        0x14200CA,
        "GFP_HIGHUSER_MOVABLE",
    )
    assert incident["message"] == "Memory cgroup out of memory"
    assert limit is not None
    assert (limit["cgroup"], limit["failcnt"]) == ("/docker/7e29cfc63f60", 2472)
    assert (limit["usage_bytes"], limit["memsw_usage_bytes"]) == (524288 << 10, 532480 << 10)
    assert limit["swap_usage_bytes"] == 8192 << 10
    breakdown = limit["breakdown"]
    assert breakdown is not None
    assert (breakdown["anon_bytes"], breakdown["file_bytes"]) == (516576 << 10, 188 << 10)
    assert (breakdown["shmem_bytes"], breakdown["kernel_bytes"], breakdown["slab_bytes"]) == (4096, 7524 << 10, None)
    assert (victim["pid"], victim["tid"], victim["comm"], victim["uid"]) == (93, 93, "mem", None)
    assert (victim["oom_score_adj"], victim["swap_bytes"]) == (0, 2048 * 4096)
    assert (victim["cgroup"], victim["page_tables_bytes"]) == ("/docker/7e29cfc63f60/a", None)
    assert record["trigger"] == {"pid": None, "tid": 94, "comm": "mem", "uid": None, "cgroup": None}
    assert [(each["pid"], each["oom_score_adj"]) for each in record["candidates"] or ()] == [(93, 0), (97, -500)]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param(
            [b"Out of Memory: Killed process 1532 (mysqld)."], (1532, b"mysqld", None, None, None), id="2.6.11"
        ),
        pytest.param(
            [b"Out of memory: kill process 1532 (a b) score 919 or a child", b"Killed process 1533 (c)"],
            (1533, b"c", None, None, None),
            id="2.6.24",
        ),
        pytest.param(
            [
                b"Out of memory: kill process 1532 (x) score 919 or a child",
                b"Killed process 1532 (x) vsz:1641388kB, anon-rss:1595164kB, file-rss:76kB",
            ],
            (1532, b"x", 1641388, None, None),
            id="2.6.34",
        ),
        pytest.param(
            [
                b"Out of memory: Kill process 1532 (x) score 919 or sacrifice child",
                b"Killed process 1532, UID 498, (x) " + SIZES,
            ],
            (1532, b"x", 1641388, 498, None),
            id="RHEL 6",
        ),
        pytest.param(
            [
                b"Out of memory: Kill process 1532 (x) score 919 or sacrifice child",
                b"Killed process 1532 (x), UID 27, " + SIZES + b", shmem-rss:4kB",
            ],
            (1532, b"x", 1641388, 27, 4),
            id="RHEL 7",
        ),
        pytest.param(
            [b"Out of memory: Kill process 1532 (x) score 919 or sacrifice child", b"Killed process 1532 (x) " + SIZES],
            (1532, b"x", 1641388, None, None),
            id="3.10",
        ),
        pytest.param(
            [b"Memory cgroup out of memory: Killed process 1532 (x) " + SIZES + SHMEM],
            (1532, b"x", 1641388, None, 0),
            id="5.1",
        ),
        pytest.param(
            [b"Out of memory: Killed process 1532 (x) " + SIZES + SHMEM + b", UID:5 pgtables:40kB oom_score_adj:9"],
            (1532, b"x", 1641388, 5, 0),
            id="5.4",
        ),
    ],
)
def test_kill_lines(lines: list[bytes], expected: tuple[object, ...]) -> None:
    """The line of the kill in each of its forms; its pid is a thread's, the process is unknown."""
    (report,) = read(*lines)
    total_vm, shmem = (None if size is None else size >> 10 for size in (report.total_vm_bytes, report.shmem_rss_bytes))
    assert (report.tid, report.comm, total_vm, report.uid, shmem) == expected
    assert report.pid is None
    assert report.message == lines[0].partition(b":")[0]
    assert (report.trigger_tid, report.tasks, report.limit_cgroup) == (None, None, None)


@pytest.mark.parametrize(
    ("invoked", "expected"),
    [
        (b"java invoked oom-killer: gfp_mask=0x201da, order=0, oomkilladj=0", (b"java", 0x201DA, None, 0)),
        (b"x invoked oom-killer: gfp_mask=0xd0, order=1, oom_adj=-17, oom_score_adj=-1000", (b"x", 0xD0, None, 1)),
        (
            b"a b invoked oom-killer: gfp_mask=0x24000c0(GFP_KERNEL), order=0, oom_score_adj=0",
            (b"a b", 0x24000C0, b"GFP_KERNEL", 0),
        ),
        (
            b"x invoked oom-killer: gfp_mask=0x14200ca(GFP_HIGHUSER_MOVABLE), nodemask=0-1,  order=0, oom_score_adj=0",
            (b"x", 0x14200CA, b"GFP_HIGHUSER_MOVABLE", 0),
        ),
    ],
)
def test_first_lines(invoked: bytes, expected: tuple[object, ...]) -> None:
    """Trigger and request."""
    chosen = b"Out of memory: Kill process 8 (x) score 919 or sacrifice child"
    (report,) = read(invoked, b"Pid: 7, comm: x Not tainted 2.6.32", chosen, b"Killed process 8 (x) " + SIZES)
    assert (report.trigger_comm, report.gfp_mask, report.gfp_flags, report.order) == expected
    assert report.tid == 8


@pytest.mark.parametrize(
    ("header", "row", "expected"),
    [
        (
            b"[ pid ]   uid  tgid total_vm      rss cpu oom_adj name",
            b"[    8]     0     8  900  500 1 -17 x",
            (500, None, None),
        ),
        (
            b"[ pid ]   uid  tgid total_vm      rss cpu oom_adj oom_score_adj name",
            b"[    8]     0     8  900  500 1 0  -1000 x",
            (500, None, -1000),
        ),
        (
            b"[ pid ]   uid  tgid total_vm      rss nr_ptes swapents oom_score_adj name",
            b"[    8]     0     8  900  500 4 7   0 x",
            (500, 7, 0),
        ),
        (
            b"[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name",
            b"[      8]     0     8  900  500 8192 7   0 x",
            (500, 7, 0),
        ),
        (
            b"[  pid  ]   uid  tgid total_vm      rss rss_anon rss_file rss_shmem pgtables_bytes swapents "
            b"oom_score_adj name",
            b"[      8]     0     8  900  500 400 60 40 8192 7   0 x",
            (500, 7, 0),
        ),
    ],
)
def test_tables(header: bytes, row: bytes, expected: tuple[object, ...]) -> None:
    """The table of tasks, by its header."""
    chosen = b"Out of memory: Kill process 8 (x) score 919 or sacrifice child"
    (report,) = read(
        b"x invoked oom-killer: gfp_mask=0xd0, order=0", header, row, chosen, b"Killed process 8 (x) " + SIZES
    )
    assert report.task is not None
    assert (report.task.rss_pages, report.task.swap_pages, report.task.oom_score_adj) == expected
    assert report.pid == 8


def test_sizes_of_page_tables_in_bytes() -> None:
    """5.4.0 to 5.4.8 printed bytes as kB: the table has the right value; without it the size is unknown."""
    kill = b"Out of memory: Killed process 8 (x) " + SIZES + SHMEM + b", UID:0 pgtables:3190784kB oom_score_adj:0"
    assert read(kill)[0].page_tables_bytes is None
    (report,) = read(
        b"x invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
        b"[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name",
        b"[      8]     0     8  410347   398810  3190784        0             0 x",
        b"oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/,"
        b"task=x,pid=8,uid=0",
        kill,
    )
    assert report.page_tables_bytes == 3190784


def test_constraint_of_5_0() -> None:
    """5.0 to 5.2 always printed CONSTRAINT_NONE: with the root's cpuset it is right, except for a memory cgroup."""
    start = b"x invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0"
    summary = b"oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,%s,task=x,pid=8,uid=3"
    kill = b"%s: Killed process 8 (x) " + SIZES + SHMEM
    memcg = read(start, summary % b"oom_memcg=/a,task_memcg=/a/b", kill % b"Memory cgroup out of memory")
    host = read(start, summary % b"global_oom,task_memcg=/a/b", kill % b"Out of memory")
    nodes = summary.replace(b"cpuset=/,", b"cpuset=batch,") % b"global_oom,task_memcg=/a/b"
    some = read(start, nodes, kill % b"Out of memory")
    records = [LogRecords("6a4ce4a0", None).oom_kill(report) for report in memcg + host + some]
    assert [record["incident"]["scope"] for record in records] == ["memcg", "host", "host_or_nodes"]
    assert [record["victim"]["cgroup"] for record in records] == ["/a/b"] * 3
    assert [record["victim"]["uid"] for record in records] == [3] * 3
