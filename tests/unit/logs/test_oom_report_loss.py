# SPDX-License-Identifier: Apache-2.0
"""logs/oom_report.py: lines are lost in any way: no kill has anything of another's report, and none is missing."""

import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.harness.kernel_log_files import FILES, TRIMMED, lines, reports
from tracer.logs import oom_lines, oom_tasks
from tracer.logs.log_line import LogLine
from tracer.logs.victim_report import VictimReport

from .test_oom_report_hostile import FRAGMENTS, INVOKED, NAMES, killed, mixed, summary

SECOND_NS = 1_000_000_000
LINES = {name: list(lines(log)) for name, log in (TRIMMED | FILES).items()}
# Posted logs have lost lines before, so no property could decide what is right if others follow: this is the line
# without which the first one says nothing.
LINES["posted-before-5.3"].insert(
    1, LINES["posted-before-5.3"][0]._replace(text=b"CPU: 0 PID: 6600 Comm: sed Not tainted 3.10.0-327.el7.x86_64 #1")
)
NAMED = sorted(LINES)
"""Each has one report or more, or a part of one: posted logs have lost lines already."""

Loss = tuple[int, int]
LOSSES = st.lists(st.tuples(st.integers(0, 600), st.one_of(st.just(1), st.integers(1, 120))), max_size=12)
"""The position and number of the lost lines."""

WHOSE = frozenset(("tid", "pid", "comm", "uid", "cgroup", "limit_cgroup", "constraint"))
TRIGGERS = frozenset(("trigger_comm", "trigger_tid", "trigger_pid", "gfp_mask", "gfp_flags", "order"))
MANY = {"tasks", "counters", "statistics"}
"""What is left of them."""
OF_A_LINE = {"time_ns", "wall_ns", "total_vm_bytes", "anon_rss_bytes", "file_rss_bytes", "shmem_rss_bytes"}
"""The first victim of a group kill is killed a second time, with the group."""


@pytest.fixture(autouse=True, scope="module")
def _all_rows() -> Any:
    """Reports keep all rows, so that rows of another report are seen."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(oom_tasks, "_LARGEST_ROWS", 1 << 20)
        yield


def sequence(names: Sequence[str], pause_ns: int, caller: bytes | None = None) -> list[LogLine]:
    """Logs, one report after the other, with this pause."""
    log, later_ns = list[LogLine](), 0
    for name in names:
        for number, line in enumerate(LINES[name]):
            if log and (number == 0 or oom_lines.INVOKED.fullmatch(line.text) is not None):
                later_ns = (log[-1].time_ns or 0) + pause_ns - (line.time_ns or 0)
            log.append(line._replace(time_ns=(line.time_ns or 0) + later_ns, caller=caller))
    return log


def without(log: Sequence[LogLine], losses: Sequence[Loss], marked: bool = False) -> list[LogLine]:
    """What is left; a line may mark where lines are missing."""
    lost = {at % len(log) + n for at, count in losses for n in range(count)}
    left = list[LogLine]()
    for number, line in enumerate(log):
        if number not in lost:
            left.append(line)
        elif marked and number - 1 not in lost:
            left.append(LogLine(b"** 1 printk messages dropped **"))
    return left


def check(
    found: Sequence[VictimReport],
    whole: Sequence[VictimReport],
    left: Sequence[LogLine],
    only: frozenset[str] = frozenset(),
) -> None:
    """Each kill is one of the whole log's, with nothing that this has not; and each line about one that is left has its
    kill.

    ``only``: fields beside which those are right that a line which is missing would have proven.
    """
    assert {report.tid for report in found} == killed(list(left))
    for report in found:
        twin = min(
            (each for each in whole if each.tid == report.tid),
            key=lambda each: abs((each.time_ns or 0) - (report.time_ns or 0)),
        )
        checked = only | certain(report, left) if only else None
        for name, value in report._asdict().items():
            right = getattr(twin, name)
            if value is None or (checked is not None and name not in checked):
                continue
            if name in OF_A_LINE and report.time_ns != twin.time_ns:
                continue
            if name in ("group_kill", "victims"):
                assert value == right or value == as_left(name, twin, whole, left), name
            elif name == "incident_ns":
                # If nothing in front of the kill is certain, the report begins with the kill.
                assert value <= report.time_ns
                assert twin.incident_ns <= value or twin.incident_ns == twin.time_ns
            elif name == "first_tid":
                assert any(each.tid == value and each.incident_ns == twin.incident_ns for each in whole)
            elif name == "tasks":
                assert set(value) <= set(right or ()), name
            elif name in MANY:
                assert value.items() <= right.items(), name
            else:
                assert value == right, name


def as_left(name: str, twin: VictimReport, whole: Sequence[VictimReport], left: Sequence[LogLine]) -> bool | int | None:
    """The values of a group kill if none of its other lines is left, which leave no trace."""
    times = [each.time_ns or 0 for each in whole if each.incident_ns == twin.incident_ns]
    lines = [line.text for line in left if line.time_ns and min(times) <= line.time_ns <= max(times)]
    others = [text for text in lines if oom_lines.KILLED.fullmatch(text) or oom_lines.GROUP.fullmatch(text)]
    if name == "victims":
        return len(killed([LogLine(text) for text in others]))
    return False if len(others) == 1 else None


def certain(report: VictimReport, left: Sequence[LogLine]) -> frozenset[str]:
    """Fields that are null because a line is missing that all kernels print between two lines."""
    end = next(n for n, line in enumerate(left) if (line.time_ns, report.tid) == (report.time_ns, *killed([line])))
    begin = max((n + 1 for n in range(end) if killed([left[n]])), default=0)
    texts = [line.text for line in left[begin:end]]
    has_cpu = any(map(oom_lines.CPU.match, texts))
    has_counters = any(map(oom_lines.COUNTER.fullmatch, texts))
    has_statistics = any(text.startswith(b"Memory cgroup stats for ") for text in texts)
    header = next((n for n, text in enumerate(texts) if oom_tasks.TaskTable.is_header(text)), len(texts))
    has_rows = any(re.match(rb"\[ *\d+\] ", text) for text in texts[header:])
    if not (has_cpu or has_counters or has_statistics or has_rows):
        return frozenset()  # as grep leaves them
    is_memcg = b"Memory cgroup out of memory: Killed" in left[end].text
    fields = frozenset[str]()
    if not has_cpu or (is_memcg and not (has_counters and has_statistics)):
        fields |= TRIGGERS
    if is_memcg and not has_statistics:
        fields |= {"counters"}
        if not has_counters and any(map(oom_lines.INVOKED.fullmatch, texts)):
            fields |= {"tasks"}
    return fields


@settings(max_examples=400)
@given(st.lists(st.sampled_from(NAMED), min_size=1, max_size=4), LOSSES)
def test_silent_loss(names: list[str], losses: list[Loss]) -> None:
    """Nothing marks the missing lines, but the reports are some seconds apart."""
    log = sequence(names, 10 * SECOND_NS)
    left = without(log, losses)
    check(reports(left), reports(log), left)


@settings(max_examples=400)
@given(st.lists(st.sampled_from(NAMED), min_size=1, max_size=4, unique=True), LOSSES)
def test_marked_loss(names: list[str], losses: list[Loss]) -> None:
    """Reports follow each other at once, and a line marks where lines are missing."""
    log = sequence(names, 1_000_000)
    left = without(log, losses, marked=True)
    check(reports(left), reports(log), left)


@settings(max_examples=400)
@given(st.lists(st.sampled_from(NAMED), min_size=1, max_size=4, unique=True), LOSSES)
def test_silent_loss_at_once(names: list[str], losses: list[Loss]) -> None:
    """Nothing separates two reports: the owner of a kill is right all the same."""
    log = sequence(names, 1_000_000)
    left = without(log, losses)
    check(reports(left), reports(log), left, WHOSE)


@settings(max_examples=200)
@given(st.tuples(*[st.lists(st.sampled_from(NAMED), min_size=1, max_size=2, unique=True)] * 2), LOSSES, st.data())
def test_loss_of_two_callers(names: tuple[list[str], list[str]], losses: list[Loss], data: st.DataObject) -> None:
    """The lines of two callers are interleaved."""
    logs = [sequence(each, 10 * SECOND_NS, caller) for each, caller in zip(names, (b"T1", b"C2"), strict=True)]
    whole = reports(logs[0]) + reports(logs[1])
    left = without(mixed(logs, data), losses)
    check(reports(left), whole, left)


FORGED = st.one_of(
    st.tuples(st.sampled_from([b"app: ", b"[1] ", b" x: ", b"audit: exe=", b"x"]), NAMES).map(b"".join),
    st.sampled_from(FRAGMENTS).map(lambda words: b"audit: proctitle=" + words),
    st.sampled_from(
        [
            b"audit: cmd=oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/evil,"
            b"task_memcg=/evil,task=x,pid=236,uid=0",
            b"usb 1-1: Memory cgroup stats for /evil:",
            b"x Task in /evil killed as a result of limit of /evil",
            b"drbd memory: usage 1kB, limit 1kB, failcnt 1",
            b"y: Memory cgroup out of memory: Killed process 1 (init) total-vm:1kB, anon-rss:1kB, file-rss:1kB, "
            b"shmem-rss:0kB, UID:0 pgtables:1kB oom_score_adj:0 and more",
            b" oom_kill_process evil",
            b"Tasks in nowhere are going to be killed due to memory.oom.group set",
        ]
    ),
)


@settings(max_examples=300)
@given(st.sampled_from(NAMED), st.lists(st.tuples(st.integers(0, 600), FORGED), max_size=20))
def test_forged_lines(name: str, forged: list[tuple[int, bytes]]) -> None:
    """Kernel lines that contain words of others, interleaved, change nothing."""
    log, log_with = LINES[name], list(LINES[name])
    for at, text in forged:
        at %= len(log_with) + 1
        # A record that continues in the next one, for a long path, is printed under the console's lock.
        if not (at < len(log_with) and log_with[at].text[:1] in (b"/", b",", b":")):
            log_with.insert(at, LogLine(text, log_with[min(at, len(log_with) - 1)].time_ns, "printk"))
    assert reports(log_with) == reports(log)


SIZES = b"total-vm:112400kB, anon-rss:91000kB, file-rss:14184kB, shmem-rss:0kB"
SINCE_5_4 = SIZES + b", UID:0 pgtables:4kB oom_score_adj:0"


def kill(pid: int, message: bytes = b"Memory cgroup out of memory: ", sizes: bytes = SINCE_5_4) -> bytes:
    return b"%bKilled process %d (x) %b" % (message, pid, sizes)


def read(*texts: bytes) -> list[VictimReport]:
    """The reports in these lines, a millisecond apart."""
    return reports(LogLine(text, 10**9 + n * 10**6, "printk") for n, text in enumerate(texts))


TABLE = b"[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name"
ROW = b"[   %4d]     0   %3d    28100    26296   102400        0             0 x"
OTHERS = [
    pytest.param([INVOKED], id="first line"),
    pytest.param([summary(b"/b", 222)], id="summary"),
    pytest.param([b"Task in /b killed as a result of limit of /b"], id="cgroups"),
    pytest.param([b"memory: usage 7kB, limit 7kB, failcnt 1"], id="counter"),
    pytest.param([b"Memory cgroup stats for /b:", b"anon 4096"], id="statistics"),
    pytest.param([b"Memory cgroup stats for /b: cache:0KB rss:7KB"], id="statistics on one line"),
    pytest.param([TABLE, ROW % (111, 111), ROW % (222, 222)], id="table"),
    pytest.param([b"CPU: 0 PID: 9 Comm: y Not tainted 6.1.0 #1", b" oom_kill_process.cold+0xb/0x10"], id="stack"),
]


@pytest.mark.parametrize("others", OTHERS)
def test_kill_keeps_its_report(others: list[bytes]) -> None:
    """A line after a kill that only begins reports belongs to another one, also if the next kill has no other line."""
    one = [INVOKED, summary(b"/a", 111), kill(111)]
    (alone,) = read(*one)
    for log in ([*one, *others], [*one, *others, kill(222)]):
        first, *_ = read(*log)
        assert first._replace(group_kill=None, victims=None) == alone._replace(group_kill=None, victims=None)
    assert {report.limit_cgroup for report in read(*one, *others, kill(222))[1:]} <= {None, b"/b"}


@pytest.mark.parametrize("others", [each for each in OTHERS if each.id not in ("summary", "table")])
def test_kill_has_nothing_of_a_former_report(others: list[bytes]) -> None:
    """A kill whose report is lost has nothing of one whose kill is lost: the summary's pid decides."""
    *_, second = read(*others, summary(b"/a", 111), kill(222))
    assert (second.tid, second.pid, second.limit_cgroup, second.trigger_comm, second.counters) == (
        222,
        None,
        None,
        None,
        {},
    )


def test_summaries_alone() -> None:
    """``dmesg | grep -E 'oom-kill|Killed process'``: each kill has the cgroup of its own line."""
    found = read(summary(b"/a", 111), kill(111), summary(b"/b", 222), kill(222), kill(333))
    assert [(each.pid, each.cgroup, each.limit_cgroup) for each in found] == [
        (111, b"/a", b"/a"),
        (222, b"/b", b"/b"),
        (None, None, None),
    ]


def test_two_lines_of_old_kernels() -> None:
    """Before 5.0: cgroups and counters are those in front of each kill."""
    log = [
        line
        for cgroup, tid, kb in ((b"/a", 111, 5), (b"/b", 222, 7))
        for line in (
            b"Task in %b killed as a result of limit of %b" % (cgroup, cgroup),
            b"memory: usage %dkB, limit %dkB, failcnt 1" % (kb, kb),
            b"Memory cgroup out of memory: Kill process %d (x) score 100 or sacrifice child" % tid,
            kill(tid, b"", SIZES),
        )
    ]
    found = read(*log)
    assert [(each.tid, each.cgroup, each.counters[b"memory"].limit >> 10) for each in found] == [
        (111, b"/a", 5),
        (222, b"/b", 7),
    ]


@pytest.mark.parametrize("first", range(9))
def test_first_line_that_is_left(first: int) -> None:
    """A report counts from whichever of its lines is left: ring buffers wrap, and people use tail."""
    log = [
        INVOKED,
        b"CPU: 0 PID: 9 Comm: sh Not tainted 6.1.0 #1",
        b" oom_kill_process.cold+0xb/0x10",
        b"memory: usage 7kB, limit 7kB, failcnt 1",
        b"swap: usage 0kB, limit 0kB, failcnt 0",
        b"Memory cgroup stats for /a:",
        TABLE,
        ROW % (111, 111),
        summary(b"/a", 111),
        kill(111),
    ]
    (report,) = read(*log[first:])
    assert (report.pid, report.limit_cgroup, report.cgroup) == (111, b"/a", b"/a")
    assert (report.trigger_tid == 9) is (first <= 1)
    assert (b"memory" in report.counters) is (first <= 3)
    assert (report.tasks is not None) is (first <= 6)
    # The rest of a stack says nothing, nor do rows without a header.
    assert report.incident_ns == 10**9 + (10**6 if first in (2, 7) else 0)
    assert report.gfp_mask == (0xCC0 if first == 0 else None)


def test_stack_of_something_else() -> None:
    """A warning's stack trace in front of a report does not make a trigger."""
    warning = [b"CPU: 0 PID: 9 Comm: kworker/0:1 Not tainted 6.1.0 #1", b" __warn+0x1"]
    (report,) = read(*warning, summary(b"/a", 111), kill(111))
    assert (report.trigger_comm, report.cgroup) == (None, b"/a")


def test_group_without_its_first_victim() -> None:
    """It is a group kill, but its number of victims is unknown."""
    path = b"Tasks in /a are going to be killed due to memory.oom.group set"
    found = read(path, kill(111), kill(112))
    assert [(each.tid, each.group, each.group_kill, each.victims) for each in found] == [
        (111, b"/a", True, None),
        (112, b"/a", True, None),
    ]
    apart = read(summary(b"/b", 110), kill(110), path, kill(111))
    assert [(each.tid, each.group, each.limit_cgroup) for each in apart] == [(110, None, b"/b"), (111, b"/a", None)]


def test_child_of_the_chosen() -> None:
    """Before 5.1 a child may be killed instead of the chosen process, whose cgroup is not the child's."""
    log = [
        b"Task in /a/b killed as a result of limit of /a",
        b"[ pid ]   uid  tgid total_vm      rss nr_ptes swapents oom_score_adj name",
        b"[  111]     0   111     1073      178       8        0             0 sh",
        b"[  112]     0   112   609544     3160      47        0             0 x",
        b"Memory cgroup out of memory: Kill process 111 (sh) score 100 or sacrifice child",
        kill(112, b"", SIZES),
    ]
    (report,) = read(*log)
    assert (report.tid, report.cgroup, report.limit_cgroup) == (112, None, b"/a")
    (report,) = read(*log[:1], *log[4:])  # without the table it may be any report's
    assert (report.tid, report.message, report.limit_cgroup) == (112, b"Memory cgroup out of memory", None)
