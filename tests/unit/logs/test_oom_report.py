# SPDX-License-Identifier: Apache-2.0
"""logs/oom_report.py and logs/log_records.py: real logs and their records."""

import re
from typing import Any, NamedTuple

import pytest

from tests.harness.kernel_log_files import FILES, lines, reports
from tests.harness.records import HOST
from tests.harness.schema import validate
from tracer.identity.enrich import enrich_oom_kill
from tracer.logs.log_records import LogRecords
from tracer.records.model import NO_LIMIT_BYTES, OomKill, Scope
from tracer.records.summary import describe_kill

PATH_5 = "".join(f"/{name}{'0' * 200}" for name in "abcde")
POD = f"/kubepods-burstable-pod{'0' * 199}7.slice"


class Kill(NamedTuple):
    """The values of one victim; sizes as they are printed in the log."""

    tid: int
    comm: str
    total_vm_kb: int
    anon_kb: int
    file_kb: int
    page_tables_kb: int
    trigger: tuple[int | None, int | None, str] | None = None
    """Pid, tid and comm of the trigger; None: it is the victim."""
    candidates: list[int] | None = None
    """None: only the victim."""
    cgroup: str | None = "/"
    limit: tuple[str, int, int, int] | None = None
    """Cgroup, usage and limit in kB, failcnt."""
    scope: Scope = "memcg"
    victims: int = 1
    uid: int = 0
    adj: int = 0


HOST_6_12 = [196, 192, 167, 191]
EXPECTED = {
    "5.10-memcg2": [Kill(135, "hog", 103536, 30564, 704, 100, cgroup="/test", limit=("/test", 30720, 30720, 19))],
    "5.10-grouptree": [
        Kill(249, "hog-b", 103536, 40592, 704, 116, None, [249, 247], "/gt/b", ("/gt", 61368, 61440, 48), victims=2),
        Kill(
            *(247, "hog-a", 21616, 20268, 704, 80, (249, 249, "hog-b"), [249, 247]),
            cgroup=None,
            limit=("/gt", 61368, 61440, 48),
            victims=2,
        ),
    ],
    "5.10-longpath": [
        Kill(144, "hog", 103536, 30560, 704, 96, cgroup=PATH_5[:989], limit=(PATH_5[:989], 30720, 30720, 19))
    ],
    "5.10-nodump": [
        Kill(253, "hog-nodump", 4097136, 163560, 0, 356, None, [], "/", scope="host"),
        Kill(255, "hog", 103536, 30520, 700, 96, None, [], "/nd", ("/nd", 30720, 30720, 19)),
    ],
    "5.10-swapcg": [
        Kill(236, "hog-swapcg", 103536, 30512, 700, 112, cgroup="/swc", limit=("/swc", 30720, 30720, 614)),
    ],
    "6.1-cpuset": [
        Kill(180, "hog-cpuset", 4097136, 207388, 0, 440, None, [180, 123, 174, 175], "/cs", scope="cpuset"),
    ],
    "6.1-policy": [
        Kill(152, "hog-node1", 4097136, 207692, 68, 444, None, [152, 123, 147, 148], "/", scope="mempolicy"),
    ],
    "6.1-sysrq": [
        Kill(
            *(669, "hog-sysrq", 52336, 51156, 704, 140, (None, 17, "kworker/0:1"), [669, 665, 112, 664]), scope="sysrq"
        )
    ],
    "6.1-hugeadj": [
        Kill(
            *(448, "hog-plus", 6256, 4956, 688, 52, (450, 450, "hog-minus"), [448, 450]),
            cgroup="/ha",
            limit=("/ha", 61440, 61440, 145),
            adj=1000,
        ),
        Kill(450, "hog-minus", 103536, 61188, 688, 160, cgroup="/ha", limit=("/ha", 61440, 61440, 192), adj=-999),
    ],
    "6.1-thread": [
        Kill(
            *(539, "hog-leader", 111732, 30360, 0, 104, (None, 540, "hog-thread")),
            cgroup="/thr",
            limit=("/thr", 30508, 30720, 81),
        )
    ],
    "6.1-v1-memcg1": [Kill(172, "hog", 103536, 30564, 704, 96, cgroup="/test", limit=("/test", 30720, 30720, 19))],
    "6.1-v1-nested": [
        Kill(206, "hog-inner", 103536, 40860, 704, 120, cgroup="/outer/inner", limit=("/outer", 40960, 40960, 81))
    ],
    "6.12-alloctask": [
        Kill(285, "hog-self", 4097136, 91520, 24, 220, None, [285, 283, 279, 167, 278], scope="host"),
    ],
    "6.12-global": [Kill(196, "hog-global", 4097136, 153088, 0, 344, None, HOST_6_12, scope="host")],
    "6.12-nokill": [],
    "6.12-other": [
        Kill(
            *(358, "hog-big", 47216, 46080, 636, 128, (360, 360, "hog-small"), [358, 360]),
            cgroup="/oth",
            limit=("/oth", 61440, 61440, 124),
            adj=500,
        )
    ],
    "6.12-tmpfs": [Kill(935, "dd", 3572, 1024, 1384, 52, cgroup="/tfs", limit=("/tfs", 30720, 30720, 22))],
    "6.12-uidadj": [
        Kill(
            *(411, "hog user", 103536, 30592, 636, 96),
            cgroup="/uid",
            limit=("/uid", 30720, 30720, 19),
            uid=1000,
            adj=300,
        )
    ],
    "7.2-globaluser": [
        Kill(
            *(190, "hog-www", 4097144, 133212, 4, 312, None, [190, 185, 184, 132]),
            cgroup="/svc",
            scope="host",
            uid=33,
            adj=200,
        )
    ],
    "7.2-group": [
        Kill(
            *(tid, comm, total_vm, anon, 708, page_tables, trigger, candidates),
            cgroup=cgroup,
            limit=("/grp", 61364, 61440, 18),
            victims=3,
        )
        for tid, comm, total_vm, anon, page_tables, trigger, candidates, cgroup in (
            (236, "hog-main", 103544, 50020, 136, None, [236, 234, 233], "/grp"),
            (233, "hog-bystander1", 6264, 5172, 48, (236, 236, "hog-main"), [236, 234, 233], None),
            (234, "hog-bystander2", 7288, 6196, 52, (236, 236, "hog-main"), [236, 234, 233], None),
        )
    ],
    "7.2-longpath": [Kill(172, "hog", 103544, 30708, 708, 96, cgroup=PATH_5, limit=(PATH_5, 30720, 30720, 18))],
    "7.2-oddcgroup": [
        Kill(tid, "hog", 103544, 30704, 708, 96, cgroup=cgroup, limit=(cgroup, 30720, 30720, 18))
        for tid, cgroup in ((499, '/odd, name=x,task=y\ttab:"qé'), (503, POD))
    ],
    "7.2-oddname": [
        Kill(tid, comm, 103544, anon, 708, page_tables, cgroup="/odd", limit=("/odd", 30720, 30720, failcnt))
        for tid, comm, anon, page_tables, failcnt in (
            (434, 'a)b (c, d:"e', 30704, 104, 18),
            (436, "two\nlines", 30708, 96, 53),
            (438, "café\x01x", 30700, 96, 88),
            (440, r"\xff\xfebad", 30704, 96, 123),
            (441, ",uid=0 (x) tot", 30704, 96, 158),
        )
    ],
    "7.2-other": [
        Kill(
            *(327, "hog-big", 47224, 46124, 708, 128, (329, 329, "hog-small"), [327, 329]),
            cgroup="/oth",
            limit=("/oth", 61280, 61440, 18),
            adj=500,
        ),
        Kill(329, "hog-small", 26744, 15280, 708, 72, cgroup="/oth", limit=("/oth", 60448, 61440, 37), adj=-500),
    ],
    "7.2-pidns": [Kill(313, "hog-in-pidns", 103544, 30708, 700, 100, cgroup="/pns", limit=("/pns", 30720, 30720, 18))],
    "7.2-shrink": [
        Kill(
            *(760, "hog-shrunk", 52344, 51252, 708, 140, (None, 755, "sh")),
            cgroup="/shr",
            limit=("/shr", 51304, 20480, 0),
        )
    ],
    "7.2-swap": [Kill(218, "hog-swap", 4097144, 137584, 68, 412, None, [218, 209, 208, 131], scope="host")],
}


def records(name: str) -> list[OomKill]:
    """The records of a log; they satisfy the JSON Schema."""
    made = [LogRecords("6a4ce4a0", 4096).oom_kill(report) for report in reports(lines(FILES[name]))]
    for record in made:
        record["host"] = HOST
        validate(record)
    return made


def as_read(record: OomKill) -> Kill:
    """The values that come from the table."""
    incident, limit, victim, trigger = record["incident"], record["limit"], record["victim"], record["trigger"]
    assert trigger is not None
    assert incident["scope"] is not None
    assert incident["victims"] is not None
    asked = (trigger["pid"], trigger["tid"], trigger["comm"])
    listed = [candidate["pid"] for candidate in record["candidates"] or ()]
    sizes: Any = victim
    kb = [sizes[f"{name}_bytes"] >> 10 for name in ("total_vm", "anon_rss", "file_rss", "page_tables")]
    assert victim["comm"] is not None
    return Kill(
        victim["tid"],
        victim["comm"],
        kb[0],
        kb[1],
        kb[2],
        kb[3],
        None if asked == (victim["tid"], victim["tid"], victim["comm"]) else asked,
        None if listed == [victim["tid"]] else listed,
        victim["cgroup"],
        limit and (limit["cgroup"] or "", _kb(limit["usage_bytes"]), _kb(limit["limit_bytes"]), limit["failcnt"] or 0),
        incident["scope"],
        incident["victims"],
        victim["uid"] if victim["uid"] is not None else -1,
        victim["oom_score_adj"] if victim["oom_score_adj"] is not None else -1,
    )


def _kb(size: int | None) -> int:
    assert size is not None
    return size >> 10


@pytest.mark.parametrize("name", EXPECTED)
def test_log(name: str) -> None:
    """Each victim, and no other process, with the values of the log."""
    made = records(name)
    assert [as_read(record) for record in made] == EXPECTED[name]
    for record, expected in zip(made, EXPECTED[name], strict=True):
        victim, incident = record["victim"], record["incident"]
        assert victim["pid"] == victim["tid"]
        assert victim["shmem_rss_bytes"] == 0
        assert victim["rss_bytes"] == (victim["anon_rss_bytes"] or 0) + (victim["file_rss_bytes"] or 0)
        assert incident["group_kill"] == (expected.victims > 1)
        assert incident["gfp_flags"] is not None
        assert incident["order"] == (-1 if name == "6.1-sysrq" else 0)
        memcg = expected.scope == "memcg"
        assert (incident["message"] or "").startswith("Memory cgroup out of memory" if memcg else "Out of memory")
        assert record["source"] == "kernel_log"
        assert record["delayed"] is True
        assert record["truncated"] == (["limit.cgroup", "victim.cgroup"] if "longpath" in name else [])


def test_every_log_is_read() -> None:
    """Every file is used."""
    assert sorted(FILES) == sorted([*EXPECTED, "6.1-v1-storm"])


def test_breakdown() -> None:
    """Statistics on lines of their own, or in one printk record, and by the names of cgroup v1."""
    names = ("anon_bytes", "file_bytes", "shmem_bytes", "slab_bytes", "kernel_bytes", "sock_bytes")
    found = {}
    for name in ("5.10-swapcg", "6.12-tmpfs", "6.1-v1-nested"):
        limit: Any = records(name)[0]["limit"]
        found[name] = tuple(limit["breakdown"][each] for each in names)
    assert found == {
        "5.10-swapcg": (31223808, 0, 0, 0, None, 0),
        "6.12-tmpfs": (1150976, 30162944, 30162944, 80848, 143360, 0),
        "6.1-v1-nested": (41836544, 0, 0, 344, 106496, 0),
    }


def test_swap() -> None:
    """Swap of a cgroup v2, memory plus swap of a v1, and of the processes."""
    (record,) = records("5.10-swapcg")
    limit = record["limit"]
    assert limit is not None
    assert (limit["swap_usage_bytes"], limit["swap_limit_bytes"]) == (8192 << 10, 8192 << 10)
    assert (limit["memsw_usage_bytes"], limit["memsw_limit_bytes"]) == (None, None)
    assert record["victim"]["swap_bytes"] == 2048 * 4096
    limit = records("6.1-v1-memcg1")[0]["limit"]
    assert limit is not None
    assert (limit["swap_usage_bytes"], limit["swap_limit_bytes"]) == (0, None)
    assert (limit["memsw_usage_bytes"], limit["memsw_limit_bytes"]) == (30720 << 10, NO_LIMIT_BYTES)
    (record,) = records("7.2-swap")
    assert record["victim"]["swap_bytes"] == 12208 * 4096
    assert [each["rss_bytes"] for each in record["candidates"] or ()] == [4096 * n for n in (34413, 5, 1, 16)]


def test_ids() -> None:
    """Ids come from the times in the log, so they are the same for every reader; kills of one incident share its id."""
    made = records("7.2-group")
    assert [record["id"] for record in made] == [
        f"6a4ce4a0-k{19083796:x}-236",
        f"6a4ce4a0-k{19087432:x}-233",
        f"6a4ce4a0-k{19087831:x}-234",
    ]
    assert [record["incident"]["id"] for record in made] == [f"6a4ce4a0-k{19078792:x}"] * 3


def test_suppressed_reports() -> None:
    """If the kernel suppressed the report, everything but the line of the kill is unknown."""
    found = reports(lines(FILES["6.1-v1-storm"]))
    assert [report.tid for report in found] == [
        int(tid) for tid in re.findall(rb"Killed process (\d+)", FILES["6.1-v1-storm"])
    ]
    first = records("6.1-v1-storm")[0]
    assert first["victim"]["comm"] == "storm-26"
    assert (first["victim"]["tid"], first["victim"]["pid"]) == (368, None)
    assert first["victim"]["anon_rss_bytes"] == 3692 << 10
    assert (first["incident"]["scope"], first["limit"], first["trigger"]) == ("memcg", None, None)
    assert (first["candidates"], first["victim"]["cgroup"]) == (None, None)
    # Lines in front of the log's first line are unknown as well.
    assert (first["incident"]["group_kill"], first["incident"]["victims"]) == (None, None)
    told = found[-1]
    assert (told.tid, told.pid, told.trigger_tid, told.limit_cgroup) == (406, 406, 412, b"/st")
    assert len(told.tasks or ()) == 7
    assert sum(report.trigger_tid is not None for report in found) == 1


def test_allocating_thread() -> None:
    """vm.oom_kill_allocating_task chooses a thread: without the table of tasks its process is unknown."""
    log = [line for line in lines(FILES["6.12-alloctask"]) if not line.text.startswith(b"[")]
    (report,) = reports(log)
    assert (report.tid, report.pid, report.trigger_tid, report.trigger_pid) == (285, None, 285, None)
    (report,) = reports(line for line in lines(FILES["6.12-global"]) if not line.text.startswith(b"["))
    assert (report.tid, report.pid) == (196, 196)


def test_names_and_words() -> None:
    """The owner is derived as for any other record, and the summary omits what is unknown."""
    (_, record), (other,) = records("7.2-oddcgroup"), records("6.1-thread")
    enrich_oom_kill(record, started_ns=-1)
    assert record["limit"] is not None
    assert record["limit"]["level"] == "slice"
    assert record["systemd"] == {"unit": None, "slice": POD[1:]}
    assert record["victim"]["cmdline"] is None
    assert describe_kill(other) == (
        "The kernel killed hog-leader (pid 539), 29 MiB resident, because the cgroup /thr was at its limit of 30 MiB "
        "when hog-thread requested more memory."
    )
    (suppressed, *_) = records("6.1-v1-storm")
    assert describe_kill(suppressed) == (
        "The kernel killed storm-26 (pid 368), 4164 KiB resident, because a memory cgroup was at its limit."
    )
