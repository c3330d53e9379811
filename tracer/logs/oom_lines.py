# SPDX-License-Identifier: Apache-2.0
r"""The grammar of the lines that Linux 2.6 to 7.x print about OOM kills.

Sources: mm/oom_kill.c and mm/memcontrol.c of these kernels. Names in the lines (comm, cgroups) may contain anything,
newlines and the kernel's own words as well. Therefore a line counts only if all of it, from its first byte to its last,
is what the kernel prints; if a name makes it ambiguous, the value is None.
"""

import re
from typing import NamedTuple

from tracer.records.matching import is_below
from tracer.records.model import Scope

_COMM_MAX_BYTES = 15
"""TASK_COMM_LEN - 1."""
_LOGGED_COMM_MAX_BYTES = 64
"""Logs may write a byte as four."""

INVOKED = re.compile(
    rb"(.{0,64}?) invoked oom-killer: gfp_mask=(0x[0-9a-f]{1,8})\b(?:\(([^)]*)\))?.*?, +order=(-?\d{1,9})\b"
    rb"(?:, (?:oom_adj|oomkilladj|oom_score_adj)=-?\d{1,20})*",
    re.DOTALL,
)
"""The first line of a report: comm of the trigger, gfp mask, its names (4.6 and later), order."""

CHOSEN = re.compile(
    rb"([^:]{1,100}): [Kk]ill process (\d{1,10})(?:, UID \d{1,20},)? \(.{0,64}\),?(?: UID \d{1,20},)? "
    rb"score -?\d{1,20} (?:or a child|or sacrifice child|and children\.?)",
    re.DOTALL,
)
"""Before 5.1: message, pid of the chosen process; the next line names the victim, which may be a child of it."""

_SIZES = (
    rb" (?:total-vm|vsz):(\d{1,20})kB, anon-rss:(\d{1,20})kB, file-rss:(\d{1,20})kB"
    rb"(?:, shmem-rss:(\d{1,20})kB)?(?:, UID:(\d{1,20}) pgtables:(\d{1,20})kB oom_score_adj:(-?\d{1,20}))?"
)
KILLED = re.compile(
    rb"(?:([^:]{1,100}): )?Killed process (\d{1,10}),?(?: UID (\d{1,20}),)? \((.{0,64}?)\),?(?: UID (\d{1,20}),)?"
    rb"(?:\.|" + _SIZES + rb")?",
    re.DOTALL,
)
"""A kill: message (5.1 and later, or before 2.6.18), tid, uid (RHEL 6), comm, uid (RHEL 7), sizes in kB (2.6.34; shmem
4.5), uid, page tables, oom_score_adj (5.4)."""

KILLED_BEGIN = re.compile(rb"(.*?): Killed process \d+ \(", re.DOTALL)
"""The begin of that line since 5.1, of which tracepoint printk:console may pass a part; the message may be any."""

KILLED_IN_UB = re.compile(
    rb"(Out of memory(?: in UB \d{1,10})?): OOM killed process (\d{1,10}) \((.{0,64}?)\) score -?\d{1,20} "
    rb"vm:(\d{1,20})kB, rss:(\d{1,20})kB, swap:(\d{1,20})kB",
    re.DOTALL,
)
"""A kill of OpenVZ and Virtuozzo (2.6.32): message with the beancounter's number, tid, comm, sizes in kB."""

_SUMMARY_BEGIN = rb"oom-kill:constraint=CONSTRAINT_(\w+),"
_SUMMARY_END = rb",task=.{0,%d},pid=(\d{1,20}),uid=(\d{1,20})\n?"
SUMMARY = re.compile(_SUMMARY_BEGIN + rb"nodemask=.*" + _SUMMARY_END % _LOGGED_COMM_MAX_BYTES, re.DOTALL)
"""5.0 and later: constraint, pid and uid of the chosen process."""
SUMMARY_BEGIN = re.compile(_SUMMARY_BEGIN)
SUMMARY_END = re.compile(_SUMMARY_END % _COMM_MAX_BYTES + rb"\Z", re.DOTALL)
"""Begin and end of a summary that comes in pieces, as tracepoint printk:console passes it, with nothing escaped."""
GROUP = re.compile(rb"Tasks in (/.*) are going to be killed due to memory\.oom\.group set", re.DOTALL)
COUNTER = re.compile(rb"(memory|memory\+swap|kmem|swap): usage (\d{1,20})kB, limit (\d{1,20})kB, failcnt (\d{1,20})")
SWAP = re.compile(rb"Total swap = (\d{1,20})kB")
"""The first of the lines about all of the host's memory: __show_mem(), mm/show_mem.c."""
MEMORY = re.compile(rb"(\d{1,20}) pages (RAM|HighMem/MovableOnly|reserved|cma reserved)")
"""The lines that follow it. Only since "mm: do not walk all of system memory during show_mem" (3.14), which added
`MovableOnly`, RAM minus what is reserved is totalram_pages()."""
CPU = re.compile(
    rb"(?:CPU: \d{1,20} (?:UID: \d{1,20} )?PID|Pid): (\d{1,20}),? [Cc]omm: (.{0,15}) "
    rb"(?:Not tainted|Tainted: |Kdump: loaded)",
    re.DOTALL,
)
"""The trigger: dump_stack_print_info(), lib/dump_stack.c."""
TRACE = re.compile(rb" ?(?:\[<[0-9a-f]{1,16}>\] )?(?:\? )?oom_kill_process[.+]\S*.*", re.DOTALL)
"""The function that prints a report, in its stack trace: other stack dumps have a `CPU` line as well."""
INLINE_STATISTICS = re.compile(rb"Memory cgroup stats for (/.*):((?: ?\w+:\d{1,20}KB)+) ?", re.DOTALL)
INLINE_STATISTIC = re.compile(rb"(\w+):(\d{1,20})KB")
STATISTICS = frozenset(b"anon file shmem slab kernel sock cache rss total_cache total_rss total_shmem".split())
"""The statistics that are kept, of cgroup v2 and of v1."""
STATISTIC_LINES = re.compile(rb"(?: *[a-z_0-9]{1,40} \d{1,20}(?:\n|\Z))+")
LINE_STATISTIC = re.compile(rb"^ *(" + b"|".join(sorted(STATISTICS)) + rb") (\d{1,20})$", re.MULTILINE)
DROPPED = re.compile(rb"\*\* \d{1,20} printk messages dropped \*\*.*", re.DOTALL)
"""The console's line for missing lines: console_emit_next_record(), kernel/printk/printk.c."""
DROPPED_LINE = b"** %d printk messages dropped **"
"""The same line, made by readers that notice missing lines in another way."""
MISSED = re.compile(rb"Missed (\d{1,9}) kernel messages")
"""journald's message if it was too slow for /dev/kmsg."""

MEMCG = b"Memory cgroup out of memory"
ALLOCATING = b"Out of memory (oom_kill_allocating_task)"
"""The trigger's thread is chosen, even if it is not the first one of its process."""
MESSAGES = frozenset(
    (
        b"Out of memory",
        b"Out of Memory",
        MEMCG,
        ALLOCATING,
        b"No available memory (MPOL_BIND)",
        b"No available memory in cpuset",
    )
)
"""All messages that kernels pass to oom_kill_process()."""

_MESSAGE_IN_UB = re.compile(rb"Out of memory in UB \d{1,10}")


def is_message(message: bytes | None, has_sizes: bool) -> bool:
    """Whether a line about a kill without a report is the kernel's own."""
    if message is None:
        return has_sizes
    return message in MESSAGES or _MESSAGE_IN_UB.fullmatch(message) is not None


PANIC_WORD = b"Kernel panic - not syncing: "
OOM_PANIC = re.compile(PANIC_WORD + rb"(?:[Oo]ut of memory\b|System is deadlocked on memory).*", re.DOTALL)
"""A panic of out_of_memory() or check_panic_on_oom(), in the words of any kernel."""
NO_KILLABLE = b"Out of memory and no killable processes"


def ends_without_kill(text: bytes, is_group: bool) -> bool:
    """Whether a line ends a report without a kill; a member of a group may have exited already."""
    if text.startswith((NO_KILLABLE, PANIC_WORD)):
        return True
    return not is_group and text.endswith(b" is already exiting. Skip killing the task") and b": OOM victim " in text


SCOPES: dict[bytes, Scope] = {b"MEMCG": "memcg", b"CPUSET": "cpuset", b"MEMORY_POLICY": "mempolicy", b"NONE": "host"}
"""enum oom_constraint, as the summary writes it."""

_MOST_READINGS = 64

_WHOLE_PATH_BYTES, _ESCAPED_PATH_BYTES = 980, 2000
_PREFIX_BYTES = 900
_ESCAPED = re.compile(rb"[^ -\[\]-~]")


def may_be_cut(path: bytes) -> bool:
    """Whether the kernel may have printed only the begin of a cgroup's path.

    A printk record has 1 KiB at most (LOG_LINE_MAX), and since 6.4 /dev/kmsg gives 2 KiB of a record at most
    (PRINTK_MESSAGE_MAX), in which an unprintable byte takes four.
    """
    length = len(path)
    if length <= _ESCAPED_PATH_BYTES // 4:
        return False
    return length > _WHOLE_PATH_BYTES or length + 3 * len(_ESCAPED.findall(path)) > _ESCAPED_PATH_BYTES


def known_part(path: bytes) -> bytes:
    """The begin of a path that may be cut: another record of the kernel cuts it some bytes earlier or later."""
    return path[: min(_PREFIX_BYTES, len(path) - 80)]


_PLAIN_SUMMARY = re.compile(
    rb"oom-kill:constraint=\w+,nodemask=(?:\(null\)|[\d,-]*),cpuset=[^,]*,mems_allowed=[\d,-]*"
    rb"(?:,oom_memcg=(/[^,]*)|,global_oom),task_memcg=(/[^,]*),task=[^,]{0,64},pid=\d+,uid=\d+\n?"
)
"""Most summaries: without a comma in a name there is only one reading."""


class Cgroups(NamedTuple):
    """Paths, as bytes; None if the line does not say, or is ambiguous."""

    limit: bytes | None
    task: bytes | None


def read_summary_cgroups(summary: bytes, comm: bytes, limit: bytes | None) -> Cgroups:
    """The cgroups in a complete summary line (5.0 and later), given the victim's comm and, if known, the limit's
    cgroup.

    ``cpuset=NAME,mems_allowed=LIST,oom_memcg=PATH,task_memcg=PATH,task=COMM,pid=PID,uid=UID``, with ``global_oom``
    instead of ``oom_memcg`` if no limit was hit. The limit is the victim's cgroup or one above it.
    """
    plain = _PLAIN_SUMMARY.fullmatch(summary)
    readings = _summary_readings(summary, comm) if plain is None else {Cgroups(*plain.groups())}
    readings = {each for each in readings if each.limit is None or is_below(each.task or b"", each.limit)}
    if limit is not None:
        readings = {each for each in readings if each.limit == limit}
    return readings.pop() if len(readings) == 1 else Cgroups(limit, None)


def find_limit_cgroup(summary: bytes, victim_cgroup: bytes) -> bytes | None:
    """The limit's cgroup in a summary line, where the victim's cgroup is known.

    A cgroup's name may contain anything, ``,task_memcg=`` as well, but the limit is the victim's cgroup or one above
    it.
    """
    above = victim_cgroup
    while True:
        if b",oom_memcg=" + above + b",task_memcg=" + victim_cgroup + b"," in summary:
            return above
        if above == b"/":
            return None
        above = above.rpartition(b"/")[0] or b"/"


def _summary_readings(summary: bytes, comm: bytes) -> set[Cgroups]:
    last = summary.rpartition(b",pid=")[0]
    ends = [end for end in _places(last, b",task=", 0) if len(last) - end <= 6 + 64]
    ends = [end for end in ends if last[end + 6 :] == comm] or ends
    readings: set[Cgroups] = set()
    for end in ends:
        text = last[:end]
        readings.update(Cgroups(above, task) for above, task in _pairs(text, b",oom_memcg=", b",task_memcg="))
        readings.update(Cgroups(None, text[at:]) for at in _places(text, b",global_oom,task_memcg=/", 23))
    return readings


def read_controlled_cgroups(line: bytes) -> Cgroups:
    """The cgroups in ``Task in PATH killed as a result of limit of PATH`` (before 5.0).

    In a line that is cut, the task's path is complete; the limit's is one above it with the same begin.
    """
    pairs = _pairs(line, b"Task in ", b" killed as a result of limit of ")
    readings = [Cgroups(limit, task) for task, limit in pairs if is_below(task, limit)]
    if readings or len(pairs) != 1 or not pairs[0][0].startswith(pairs[0][1]):
        return readings[0] if len(readings) == 1 else Cgroups(None, None)
    task, cut = pairs[0]
    return Cgroups(task if b"/" not in task[len(cut) :] else None, task)


def _pairs(text: bytes, first: bytes, second: bytes) -> list[tuple[bytes, bytes]]:
    found = []
    for at in _places(text, first + b"/", len(first)):
        for to in _places(text, second + b"/", len(second)):
            if to - len(second) > at:
                found.append((text[at : to - len(second)], text[to:]))
    return found


def _places(text: bytes, word: bytes, length: int) -> list[int]:
    """The positions ``length`` bytes behind the begin of each ``word``."""
    places: list[int] = []
    at = text.find(word)
    while at >= 0 and len(places) < _MOST_READINGS:
        places.append(at + length)
        at = text.find(word, at + 1)
    return places
