# SPDX-License-Identifier: Apache-2.0
"""console_report.py: the kernel's report of an OOM kill, in the pieces in which it reaches the console."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.pipeline.console_report import ConsoleReport, parse_console_report
from tracer.records.model import Scope

INVOKED = b"hog invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0\n"
KILLED = (
    b"Memory cgroup out of memory: Killed process 135 (hog) total-vm:103536kB, anon-rss:30564kB, file-rss:704kB, "
    b"shmem-rss:0kB, UID:0 pgtables:100kB oom_score_adj:0\n"
)
OUT_OF_MEMORY = KILLED.replace(b"Memory cgroup o", b"O")
UNKNOWN = ConsoleReport(None, None, None, None, None, None)


def summary(limit: bytes, victim: bytes, comm: bytes = b"hog", cpuset: bytes = b"/") -> list[bytes]:
    """The summary of a memory cgroup's kill, in the pieces in which the kernel prints it (pr_cont)."""
    return [
        b"oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null)",
        b",cpuset=",
        cpuset,
        b",mems_allowed=0",
        b",oom_memcg=",
        limit,
        b",task_memcg=",
        victim,
        b",task=" + comm + b",pid=135,uid=0\n",
    ]


# From the logs of Debian's kernels 5.10, 6.1, 6.12 and 7.2.
@pytest.mark.parametrize(
    ("invoked", "constraint", "killed", "expected"),
    [
        pytest.param(
            INVOKED,
            b"oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/test,"
            b"task_memcg=/test,task=hog,pid=135,uid=0\n",
            KILLED,
            ConsoleReport("memcg", 0xCC0, "GFP_KERNEL", 0, "Memory cgroup out of memory", "/test"),
            id="memcg",
        ),
        pytest.param(
            b"hog-global invoked oom-killer: gfp_mask=0x100dca(GFP_HIGHUSER_MOVABLE|__GFP_ZERO), order=0, "
            b"oom_score_adj=0\n",
            b"oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/test,"
            b"task=hog-global,pid=134,uid=0\n",
            OUT_OF_MEMORY,
            ConsoleReport("host", 0x100DCA, "GFP_HIGHUSER_MOVABLE|__GFP_ZERO", 0, "Out of memory", None),
            id="host",
        ),
        pytest.param(
            b"hog-cpuset invoked oom-killer: gfp_mask=0x140cca(GFP_HIGHUSER_MOVABLE|__GFP_COMP), order=0, "
            b"oom_score_adj=0\n",
            b"oom-kill:constraint=CONSTRAINT_CPUSET,nodemask=(null),cpuset=cs,mems_allowed=1,global_oom,"
            b"task_memcg=/test,task=hog-cpuset,pid=170,uid=0\n",
            OUT_OF_MEMORY,
            ConsoleReport("cpuset", 0x140CCA, "GFP_HIGHUSER_MOVABLE|__GFP_COMP", 0, "Out of memory", None),
            id="cpuset",
        ),
        pytest.param(
            b"hog-node1 invoked oom-killer: gfp_mask=0x140dca(GFP_HIGHUSER_MOVABLE|__GFP_ZERO|__GFP_COMP), order=0, "
            b"oom_score_adj=0\n",
            b"oom-kill:constraint=CONSTRAINT_MEMORY_POLICY,nodemask=1,cpuset=/,mems_allowed=0-1,global_oom,"
            b"task_memcg=/test,task=hog-node1,pid=142,uid=0\n",
            OUT_OF_MEMORY,
            ConsoleReport(
                "mempolicy", 0x140DCA, "GFP_HIGHUSER_MOVABLE|__GFP_ZERO|__GFP_COMP", 0, "Out of memory", None
            ),
            id="mempolicy",
        ),
        pytest.param(
            b"kworker/0:1 invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=-1, oom_score_adj=0\n",
            b"oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/test,"
            b"task=hog-sysrq,pid=663,uid=0\n",
            OUT_OF_MEMORY,
            ConsoleReport("sysrq", 0xCC0, "GFP_KERNEL", -1, "Out of memory", None),
            id="sysrq",
        ),
    ],
)
def test_report(invoked: bytes, constraint: bytes, killed: bytes, expected: ConsoleReport) -> None:
    """A complete report contains scope, request and limit."""
    assert expected == parse_console_report([invoked, constraint, killed], b"/test")


def test_pieces() -> None:
    """The summary is printed in pieces, and parsed as one line."""
    report = parse_console_report([INVOKED, *summary(b"/pod", b"/pod/a/b"), KILLED], b"/pod/a/b")
    assert ConsoleReport("memcg", 0xCC0, "GFP_KERNEL", 0, "Memory cgroup out of memory", "/pod") == report


@pytest.mark.parametrize(
    ("killed", "scope", "message"),
    [
        (KILLED, "memcg", "Memory cgroup out of memory"),
        (OUT_OF_MEMORY, None, "Out of memory"),
        (
            b"Out of memory (oom_kill_allocating_task): Killed process 7 (hog) total-vm:1kB",
            None,
            "Out of memory (oom_kill_allocating_task)",
        ),
        (
            b"Memory cgroup out of memory: Killed process 7 (: Killed process ) total-vm:1kB",
            "memcg",
            "Memory cgroup out of memory",
        ),
    ],
)
def test_rate_limited(killed: bytes, scope: Scope | None, message: str) -> None:
    """Of a rate-limited report only the last line is printed."""
    assert UNKNOWN._replace(scope=scope, message=message) == parse_console_report([killed], b"/test")


def test_nothing() -> None:
    """Without any line all fields are None."""
    assert parse_console_report([], b"/test") == UNKNOWN


@pytest.mark.parametrize("comm", [b"a b", b"()", b"[", b"x: y", b"\xff\x1b[2J", b"gfp_mask=0x1(A)", b"invoked oom-kil"])
def test_odd_comm(comm: bytes) -> None:
    """The names of trigger and victim do not influence the result."""
    pieces = [
        INVOKED.replace(b"hog", comm),
        *summary(b"/test", b"/test", comm),
        KILLED.replace(b"(hog)", b"(" + comm + b")"),
    ]
    assert ConsoleReport(
        "memcg", 0xCC0, "GFP_KERNEL", 0, "Memory cgroup out of memory", "/test"
    ) == parse_console_report(pieces, b"/test")


ODD = [
    b"/odd, name=x,task=y\ttab:\"q\xc3\xa9",
    b"/a,task_memcg=/a",
    b"/a,oom_memcg=/a,task_memcg=/a",
    b"/a,task_memcg=/a,task_memcg=/a",
    b"/,oom_memcg=/,task_memcg=/,task=",
    b"/x\ny\x1b[31m",
    b"/oom-kill:constraint=CONSTRAINT_NONE,",
    b"/x invoked oom-killer: gfp_mask=0x1(EVIL), order=-1",
    b"/x: Killed process 1 (",
    b"/" + b"x" * 255,
]  # fmt: skip


@pytest.mark.parametrize("victim", ODD)
@pytest.mark.parametrize("whole", [False, True])
def test_odd_cgroup(victim: bytes, whole: bool) -> None:
    """A cgroup whose name looks like a part of the report can be the limit, and changes nothing else."""
    pieces = summary(victim, victim)
    report = parse_console_report([INVOKED, *([b"".join(pieces)] if whole else pieces), KILLED], victim)
    expected = victim.decode("utf-8", "backslashreplace")
    assert ConsoleReport("memcg", 0xCC0, "GFP_KERNEL", 0, "Memory cgroup out of memory", expected) == report


NAMES = st.sampled_from(
    [b"a", b",oom_memcg=", b",task_memcg=", b"a,oom_memcg=", b"a,task_memcg=", b",task=hog", b"oom-kill:", b" "]
) | st.binary(min_size=1, max_size=8).filter(lambda name: not {0, ord("/"), ord("\n")} & set(name))


@given(st.lists(NAMES, min_size=1, max_size=6), st.integers(0, 5), NAMES)
def test_limit_among_any_names(names: list[bytes], depth: int, cpuset: bytes) -> None:
    """The limit is found for any names of the victim's cgroup and its ancestors."""
    victim = b"".join(b"/" + name for name in names)
    limit = b"".join(b"/" + name for name in names[: 1 + depth % len(names)])
    report = parse_console_report([INVOKED, *summary(limit, victim, cpuset=cpuset), KILLED], victim)
    assert limit.decode("utf-8", "backslashreplace") == report.limit_cgroup


def test_limit_of_another_cgroup() -> None:
    """A limit that is not an ancestor of the victim's cgroup is ignored."""
    assert parse_console_report(summary(b"/other", b"/test"), b"/test").limit_cgroup is None


@pytest.mark.parametrize(
    "line",
    [
        b"hog invoked oom-killer: gfp_mask=0x%s(GFP_KERNEL), order=0, oom_score_adj=0\n" % (b"f" * 17),
        b"hog invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=%s, oom_score_adj=0\n" % (b"9" * 40),
    ],
)
def test_numbers_that_are_too_large(line: bytes) -> None:
    """A number that no kernel prints is ignored."""
    report = parse_console_report([line], b"/")
    assert (report.gfp_mask, report.order) == (None, None)


def test_flags_that_are_no_text() -> None:
    """Any bytes are decoded."""
    line = b"hog invoked oom-killer: gfp_mask=0xcc0(GFP_\xff), order=0, oom_score_adj=0\n"
    assert parse_console_report([line], b"/").gfp_flags == "GFP_\\xff"
