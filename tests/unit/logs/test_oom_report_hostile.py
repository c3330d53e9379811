# SPDX-License-Identifier: Apache-2.0
"""logs/oom_report.py, log_records.py: damaged logs, interleaved ones, and names with the kernel's own words."""

import itertools
import re
import tracemalloc

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.harness.kernel_log_files import FILES, lines, reports
from tests.harness.records import HOST
from tests.harness.schema import validate
from tracer.logs.log_line import LogLine
from tracer.logs.log_records import LogRecords
from tracer.logs.oom_report import ReportAssembler
from tracer.logs.victim_report import VictimReport

KILL = (
    b"Memory cgroup out of memory: Killed process 135 (%s) total-vm:103536kB, anon-rss:30564kB, file-rss:704kB, "
    b"shmem-rss:0kB, UID:0 pgtables:100kB oom_score_adj:0"
)
COUNTERS = (b"memory: usage 7kB, limit 7kB, failcnt 1", b"swap: usage 0kB, limit 0kB, failcnt 0")
INVOKED = b"sh invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0"
SMALL = [name for name in FILES if name != "6.1-v1-storm"]
LINES = {name: list(lines(log)) for name, log in FILES.items()}
FRAGMENTS = [
    b",task=",
    b",pid=1",
    b",uid=0",
    b"task_memcg=",
    b",oom_memcg=",
    b",global_oom",
    b",cpuset=",
    b"Killed process ",
    b" (1) ",
    b") total-vm:1kB",
    b"Out of memory: ",
    b"Kill process 1 ",
    b" invoked oom",
    b"oom-kill:",
    b"Not tainted",
    b"Comm: ",
    b"[    1]",
    b"\n[  pid  ]",
    b"anon 1",
    b"\x01c",
    b"\x1b[m",
    b"\xff",
]
COMMS = st.one_of(
    st.binary(min_size=1, max_size=15),
    st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=3).map(lambda parts: b"".join(parts)[:15]),
).map(lambda comm: comm.replace(b"\0", b"?"))
NAMES = st.one_of(
    st.binary(min_size=1, max_size=60),
    st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=6).map(b"".join),
).map(lambda name: name.translate(bytes.maketrans(b"\0/\n", b"?_?")))


def is_idle(joiner: ReportAssembler) -> bool:
    return joiner.awaits == "words"


def check_records(found: list[VictimReport]) -> None:
    """Each makes a valid record."""
    for report in found:
        record = LogRecords("6a4ce4a0", 4096).oom_kill(report)
        record["host"] = HOST
        validate(orjson.loads(orjson.dumps(record)))


def killed(log: list[LogLine]) -> set[int]:
    """The threads whose kills are in the log."""
    return {int(tid) for line in log for tid in re.findall(rb"[Kk]illed process (\d+)", line.text)}


def mixed(logs: list[list[LogLine]], data: st.DataObject) -> list[LogLine]:
    """The lines of two logs, each in its order, interleaved."""
    found, rest = list[LogLine](), [log.copy() for log in logs]
    while rest[0] or rest[1]:
        source = rest[data.draw(st.integers(0, 1))] or rest[0] or rest[1]
        count = data.draw(st.integers(1, 60))
        found += source[:count]
        del source[:count]
    return found


@given(st.lists(st.one_of(st.binary(), st.lists(st.sampled_from(FRAGMENTS)).map(b"".join)), max_size=20))
def test_anything(texts: list[bytes]) -> None:
    """Any lines: no error, and no kill that is not in them."""
    log = [LogLine(text) for text in texts]
    found = reports(log)
    assert {report.tid for report in found} <= killed(log)
    check_records(found)


@given(st.sampled_from(SMALL), st.data())
def test_truncated(name: str, data: st.DataObject) -> None:
    """A log that is cut anywhere, also within a line, at both ends."""
    log = FILES[name]
    begin = data.draw(st.integers(0, len(log)))
    cut = list(lines(log[begin : data.draw(st.integers(begin, len(log)))]))
    found = reports(cut)
    # A number that was cut is not the kernel's.
    assert {report.tid for report in found} <= killed(cut) & killed(LINES[name])
    check_records(found)


@given(st.sampled_from(SMALL), st.data())
def test_lost_lines(name: str, data: st.DataObject) -> None:
    """If lines are missing, the others still count: each "Killed process" has its report."""
    log = [line for line in LINES[name] if data.draw(st.integers(0, 9))]
    found = reports(log)
    assert {report.tid for report in found} == killed(log)
    assert len(found) == len({(report.tid, report.time_ns) for report in found})
    check_records(found)


@given(st.sampled_from(SMALL), st.sampled_from(SMALL), st.data())
def test_callers(one: str, other: str, data: st.DataObject) -> None:
    """Two logs in one, with the callers that CONFIG_PRINTK_CALLER prints: each is read as if it were separate."""
    logs = [
        [line._replace(caller=caller, time_ns=n) for n, line in enumerate(LINES[name])]
        for name, caller in ((one, b"T1"), (other, b"T2"))
    ]
    alone = sorted(map(repr, reports(logs[0]) + reports(logs[1])))
    both = mixed(logs, data)
    assert sorted(map(repr, reports(both))) == alone


@given(st.sampled_from(SMALL), st.sampled_from(SMALL), st.data())
def test_interleaved(one: str, other: str, data: st.DataObject) -> None:
    """Two logs in one without callers: no kill is invented."""
    both = mixed([LINES[one], LINES[other]], data)
    found = reports(both)
    assert {report.tid for report in found} == killed(both)
    check_records(found)


@given(COMMS, NAMES, NAMES, st.booleans())
def test_names(comm: bytes, name: bytes, child: bytes, is_limited: bool) -> None:
    """Any names of victim and cgroups: the values are right or null."""
    limit = b"/" + name
    cgroup = limit + b"/" + child
    where = b"oom_memcg=" + limit if is_limited else b"global_oom"
    texts = [
        comm + b" invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
        b"CPU: 0 PID: 135 Comm: " + comm + b" Not tainted 6.1.0 #1",
        *((*COUNTERS, b"Memory cgroup stats for " + limit + b":", b"anon 4096") if is_limited else ()),
        b"[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name",
        b"[    135]     0   135    25884     7817   102400        0             0 " + comm,
        b"oom-kill:constraint=CONSTRAINT_%b,nodemask=(null),cpuset=" % (b"MEMCG" if is_limited else b"NONE")
        + child
        + b",mems_allowed=0,"
        + where
        # dump_oom_victim()
        + b",task_memcg="
        + cgroup
        + b",task="
        + comm
        + b",pid=135,uid=0",
        KILL % comm if is_limited else KILL.replace(b"Memory cgroup out", b"Out") % comm,
    ]
    (report,) = reports(LogLine(text, n) for n, text in enumerate(texts))
    assert (report.tid, report.pid, report.comm) == (135, 135, comm)
    assert (report.trigger_tid, report.trigger_comm) == (135, comm)
    assert report.anon_rss_bytes == 30564 << 10
    assert report.tasks is not None
    assert [task.comm for task in report.tasks] == [comm]
    assert report.cgroup in (None, cgroup)
    assert report.limit_cgroup == limit if is_limited else report.limit_cgroup in (None, limit)
    check_records([report])


@pytest.mark.parametrize(
    "text",
    [
        b"usb 1-1: Product: " + KILL % b"x",
        b"usb 1-1: " + KILL % b"x",
        b"systemd[1]: " + KILL % b"x",
        b"Out of memory, says a driver: Killed process 1 (x) total-vm:1kB, anon-rss:1kB, file-rss:1kB",
        KILL % b"a name of more bytes than any process or thread may have, with all of them spelled as four each",
        KILL % b"x" + b" and more",
        b" " + KILL % b"x",
        b"Killed process 1 (init)",
        b"oom_reaper: reaped process 1 (init), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB",
        b"Memory cgroup out of memory: OOM victim 1 (init) is already exiting. Skip killing the task",
    ],
)
def test_not_the_kernels(text: bytes) -> None:
    """Words of other programs, or the kernel's about another subject."""
    assert reports([LogLine(text)]) == []


def summary(cgroup: bytes, pid: int) -> bytes:
    return (
        b"oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=%b,task_memcg=%b,"
        b"task=x,pid=%d,uid=0" % (cgroup, cgroup, pid)
    )


def storm(*kills: bytes) -> list[LogLine]:
    """As many reports as the kernel prints in 5 s, then these lines."""
    return [LogLine(text, n * 1000, "printk") for n, text in enumerate([*[INVOKED] * 10, *kills])]


def test_other_group_at_once() -> None:
    """Two group kills without reports: the second one's first victim is not the last of the first.

    Others than those before the first victim's second kill may be of neither.
    """
    group = b"Tasks in /%s are going to be killed due to memory.oom.group set"
    kills = [(KILL % b"x").replace(b"135", b"%d" % tid) for tid in range(1, 6)]
    log = [kills[0], group % b"a", kills[0], kills[1], kills[2], group % b"b", kills[3], kills[2], kills[4]]
    for found in (reports(storm(*log)), reports(storm(*log)[10:])):
        assert [(report.tid, report.group, report.group_kill, report.victims) for report in found] == [
            (1, b"/a", True, None),
            (2, None, None, None),
            (3, b"/b", True, None),
            (4, b"/b", True, None),
            (5, None, None, None),
        ]
        at_ns = [(report.incident_ns or 0) - (found[0].incident_ns or 0) for report in found]
        assert at_ns == [0, 3000, 4000, 4000, 8000]


def test_group_without_its_table() -> None:
    """Beyond the first victim's second kill, those that look like the others are of the group; of none where the kernel
    limits its reports.
    """
    group = b"Tasks in /a are going to be killed due to memory.oom.group set"
    first, second, third = ((KILL % b"x").replace(b"135", b"%d" % tid) for tid in (1, 2, 3))
    other = (KILL % b"y").replace(b"135", b"4")
    told = [summary(b"/a", 1), first, group, second, first, third, other]
    found = reports(LogLine(text, n * 1000, "printk") for n, text in enumerate(told))
    assert [(report.tid, report.group, report.limit_cgroup) for report in found] == [
        (1, b"/a", b"/a"),
        (2, b"/a", b"/a"),
        (3, b"/a", b"/a"),
        (4, None, None),
    ]
    found = reports(storm(*told))
    assert [(report.tid, report.group) for report in found] == [(1, b"/a"), (2, b"/a"), (3, None), (4, None)]


def test_kill_after_a_kill() -> None:
    """One without a report has none of the other's: not as a first, not as one of a group.

    That it was alone is known where the kernel limits its reports; else lines are missing.
    """
    (told, *_), suppressed = reports(LINES["7.2-group"]), LogLine((KILL % b"x"), LINES["7.2-group"][-1].time_ns)
    *group, alone = reports([*LINES["7.2-group"], suppressed])
    assert told._replace(victims=None) == group[0]
    assert (alone.tid, alone.group_kill, alone.victims, alone.limit_cgroup) == (135, None, None, None)
    *_, alone = reports(storm(KILL % b"x"))
    assert (alone.tid, alone.group_kill, alone.victims, alone.limit_cgroup) == (135, False, 1, None)
    unfinished = [
        line for line in LINES["7.2-group"] if b"Killed process" not in line.text and b"Tasks in" not in line.text
    ]
    (alone,) = reports([*unfinished, suppressed])
    assert (alone.tid, alone.trigger_tid, alone.limit_cgroup, alone.tasks) == (135, None, None, None)


def test_dropped() -> None:
    """If lines were lost, open reports are not complete."""
    log = LINES["6.12-other"]
    (report,) = reports([*log, LogLine(b"** 3 printk messages dropped **"), *log[:1]])
    assert (report.tid, report.group_kill, report.victims) == (358, None, None)


def summarised(cgroup: bytes, comm: bytes = b"x") -> VictimReport:
    """The report of a kill for lack of host memory, in which only the summary names the cgroup."""
    summary = b"oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg="
    texts = [
        b"x invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
        summary + cgroup + b",task=" + comm + b",pid=135,uid=0",
        KILL % comm,
    ]
    (report,) = reports(map(LogLine, texts))
    assert (report.tid, report.pid, report.comm) == (135, 135, comm)
    return report


def test_ambiguous_summary() -> None:
    """The comm in the line of the kill shows where the cgroup ends; an ambiguous cgroup is null."""
    assert summarised(b"/a,task=y").cgroup == b"/a,task=y"
    assert summarised(b"/a", b"x,task=y").cgroup == b"/a"
    assert summarised(b"/a,global_oom,task_memcg=/b").cgroup is None


def test_report_without_end() -> None:
    """A report does not wait without end, nor does what may follow a kill, also in lines without a time."""
    other, joiner = LogLine(b"usb 1-1: reset"), ReportAssembler()
    joiner.feed(LINES["6.12-other"][0]._replace(time_ns=None))
    assert not is_idle(joiner)
    for _ in range(5000):
        assert not joiner.feed(other)
    assert is_idle(joiner)
    joiner.feed(LogLine(KILL % b"x"))
    assert not is_idle(joiner)
    found = [report.tid for _ in range(100) for report in joiner.feed(other)]
    assert found == [135]
    assert is_idle(joiner)


def test_time_passes() -> None:
    """Lines a second after a kill, or a minute after a line of a report, belong to another one; so do earlier ones."""
    kill, other = LogLine(KILL % b"x", 100 * 10**9, "printk"), LogLine(b"usb 1-1: reset", 0, "printk")
    for seconds, count in ((100, 0), (101, 0), (102, 1), (98, 1)):
        joiner = ReportAssembler()
        assert joiner.feed(kill) == []
        assert len(joiner.feed(other._replace(time_ns=seconds * 10**9))) == count
    told = LINES["6.12-other"]
    late = told[-1]._replace(time_ns=(told[-1].time_ns or 0) + 61 * 10**9)
    (report,) = reports([*told[:-1], late])
    assert (report.tid, report.trigger_tid) == (358, None)


def test_memory() -> None:
    """A table of a million rows, and a report that never ends, are not kept in memory."""
    log = LINES["6.12-global"]
    at = next(n for n, line in enumerate(log) if line.text.startswith(b"[  pid  ]")) + 1
    row = b"[%7d]     0 %5d     1646 %8d        0       24         0    49152        0             0 sh"
    big = (LogLine(row % (n + 1000, n + 1000, n * 7919 % 10007)) for n in range(10000))
    tracemalloc.start()
    (report,) = reports(itertools.chain(log[:at], big, log[at:]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000
    assert report.pid == 196
    sizes = sorted((n * 7919 % 10007 for n in range(10000)), reverse=True)
    assert [task.rss_pages for task in report.tasks or ()] == [38272, *sizes[:9]]
