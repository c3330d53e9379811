# SPDX-License-Identifier: Apache-2.0
r"""The grammar of the lines that Linux 2.6 to 7.x print about OOM kills.

Sources: mm/oom_kill.c and mm/memcontrol.c of these kernels.  Names in the lines (comm, cgroups) may hold anything,
newlines and the kernel's own words too: a line counts only if all of it, from its first byte to its last, is what the
kernel prints, and where a name makes it ambiguous what it says, it says nothing.
"""

import re
from typing import Literal, NamedTuple

from tracer.records.matching import is_below
from tracer.records.model import Scope

INVOKED = re.compile(
    rb"(.{0,64}?) invoked oom-killer: gfp_mask=(0x[0-9a-f]{1,8})\b(?:\(([^)]*)\))?.*?, +order=(-?\d{1,9})\b"
    rb"(?:, (?:oom_adj|oomkilladj|oom_score_adj)=-?\d{1,20})*",
    re.DOTALL,
)
"""The first line of a report: comm of who asked for memory, gfp mask, its names (4.6 and later), order."""

CHOSEN = re.compile(
    rb"([^:]{1,100}): [Kk]ill process (\d{1,10})(?:, UID \d{1,20},)? \(.{0,64}\),?(?: UID \d{1,20},)? "
    rb"score -?\d{1,20} (?:or a child|or sacrifice child|and children\.?)",
    re.DOTALL,
)
"""Before 5.1: message, pid of the process whose memory is to be freed; the line after it names the victim, which may be
a child."""

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

KILLED_IN_UB = re.compile(
    rb"(Out of memory(?: in UB \d{1,10})?): OOM killed process (\d{1,10}) \((.{0,64}?)\) score -?\d{1,20} "
    rb"vm:(\d{1,20})kB, rss:(\d{1,20})kB, swap:(\d{1,20})kB",
    re.DOTALL,
)
"""A kill of OpenVZ and Virtuozzo (2.6.32): message with the number of the beancounter, tid, comm, sizes in kB."""

SUMMARY = re.compile(
    rb"oom-kill:constraint=CONSTRAINT_(\w+),nodemask=.*,task=.{0,64},pid=(\d{1,20}),uid=(\d{1,20})\n?", re.DOTALL
)
"""5.0 and later: constraint, pid and uid of the process that was chosen."""
GROUP = re.compile(rb"Tasks in (/.*) are going to be killed due to memory\.oom\.group set", re.DOTALL)
COUNTER = re.compile(rb"(memory|memory\+swap|kmem|swap): usage (\d{1,20})kB, limit (\d{1,20})kB, failcnt (\d{1,20})")
SWAP = re.compile(rb"Total swap = (\d{1,20})kB")
"""The first of the lines about all of the host's memory: __show_mem(), mm/show_mem.c."""
MEMORY = re.compile(rb"(\d{1,20}) pages (RAM|HighMem/MovableOnly|reserved|cma reserved)")
"""Those that follow it. Only since "mm: do not walk all of system memory during show_mem" (3.14), which brought
`MovableOnly`, RAM without what is reserved is totalram_pages()."""
CPU = re.compile(
    rb"(?:CPU: \d{1,20} (?:UID: \d{1,20} )?PID|Pid): (\d{1,20}),? [Cc]omm: (.{0,15}) "
    rb"(?:Not tainted|Tainted: |Kdump: loaded)",
    re.DOTALL,
)
"""The thread that asked for memory: dump_stack_print_info(), lib/dump_stack.c."""
TRACE = re.compile(rb" ?(?:\[<[0-9a-f]{1,16}>\] )?(?:\? )?oom_kill_process[.+]\S*.*", re.DOTALL)
"""The function that prints a report, in its stack trace: what else dumps a stack has a `CPU` line, too."""
INLINE_STATISTICS = re.compile(rb"Memory cgroup stats for (/.*):((?: ?\w+:\d{1,20}KB)+) ?", re.DOTALL)
INLINE_STATISTIC = re.compile(rb"(\w+):(\d{1,20})KB")
STATISTICS = frozenset(b"anon file shmem slab kernel sock cache rss total_cache total_rss total_shmem".split())
"""Those that are kept, of cgroup v2 and of v1."""
STATISTIC_LINES = re.compile(rb"(?: *[a-z_0-9]{1,40} \d{1,20}(?:\n|\Z))+")
LINE_STATISTIC = re.compile(rb"^ *(" + b"|".join(sorted(STATISTICS)) + rb") (\d{1,20})$", re.MULTILINE)
DROPPED = re.compile(rb"\*\* \d{1,20} printk messages dropped \*\*.*", re.DOTALL)
"""What the console shows where lines are missing: console_emit_next_record(), kernel/printk/printk.c."""
DROPPED_LINE = b"** %d printk messages dropped **"
"""The same, for readers that learn of it in another way."""
MISSED = re.compile(rb"Missed (\d{1,9}) kernel messages")
"""What journald says where it was too slow for /dev/kmsg."""

MEMCG = b"Memory cgroup out of memory"
ALLOCATING = b"Out of memory (oom_kill_allocating_task)"
"""The thread that asked for memory is chosen, even where it is not the first of its process."""
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
"""What oom_kill_process() was ever given to say."""

_MESSAGE_IN_UB = re.compile(rb"Out of memory in UB \d{1,10}")


def is_message(message: bytes | None, has_sizes: bool) -> bool:
    """Whether a line about a kill is the kernel's own, though there is no other line of its report."""
    if message is None:
        return has_sizes
    return message in MESSAGES or _MESSAGE_IN_UB.fullmatch(message) is not None


PANIC_WORD = b"Kernel panic - not syncing: "
OOM_PANIC = re.compile(PANIC_WORD + rb"(?:[Oo]ut of memory\b|System is deadlocked on memory).*", re.DOTALL)
"""A panic of out_of_memory() and check_panic_on_oom(), whose words each kernel has had."""
NO_KILLABLE = b"Out of memory and no killable processes"


def ends_without_kill(text: bytes, is_group: bool) -> bool:
    """Whether a line says that a report has no kill; of a group's others one may be gone already."""
    if text.startswith((NO_KILLABLE, PANIC_WORD)):
        return True
    return not is_group and text.endswith(b" is already exiting. Skip killing the task") and b": OOM victim " in text


SCOPES: dict[bytes, Scope] = {b"MEMCG": "memcg", b"CPUSET": "cpuset", b"MEMORY_POLICY": "mempolicy", b"NONE": "host"}
"""enum oom_constraint, as the summary spells it."""

_MOST_READINGS = 64

Clock = Literal["printk", "realtime", "unknown"]
"""``unknown`` is that of a stamp that cannot be read: it tells one line from another, but neither when it was nor how
long after another."""


class LogLine(NamedTuple):
    """One record of printk, without what stands in front of it and unescaped; from formats that split records, a line.

    A last line that lacks its end may be cut, and must not be made one of these.
    """

    text: bytes
    time_ns: int | None = None
    """Nanoseconds of `clock`."""
    clock: Clock | None = None
    caller: bytes | None = None
    """Who printed it, as CONFIG_PRINTK_CALLER shows it (`T123`, `C1`)."""
    wall_ns: int | None = None
    """The log's wall clock, Unix time, where it has one beside or instead of printk's."""


_WHOLE_PATH_BYTES, _ESCAPED_PATH_BYTES = 980, 2000
_PREFIX_BYTES = 900
_ESCAPED = re.compile(rb"[^ -\[\]-~]")


def may_be_cut(path: bytes) -> bool:
    """Whether the kernel may have printed a part of a cgroup's path only, its begin.

    printk takes 1 KiB at most (LOG_LINE_MAX), and since 6.4 /dev/kmsg gives 2 KiB of a record at most
    (PRINTK_MESSAGE_MAX), in which bytes that cannot be printed take four each.
    """
    length = len(path)
    if length <= _ESCAPED_PATH_BYTES // 4:
        return False
    return length > _WHOLE_PATH_BYTES or length + 3 * len(_ESCAPED.findall(path)) > _ESCAPED_PATH_BYTES


def known_part(path: bytes) -> bytes:
    """The begin of a path that may be cut: in another record of the kernel it is cut some bytes earlier or later."""
    return path[: min(_PREFIX_BYTES, len(path) - 80)]


_PLAIN_SUMMARY = re.compile(
    rb"oom-kill:constraint=\w+,nodemask=(?:\(null\)|[\d,-]*),cpuset=[^,]*,mems_allowed=[\d,-]*"
    rb"(?:,oom_memcg=(/[^,]*)|,global_oom),task_memcg=(/[^,]*),task=[^,]{0,64},pid=\d+,uid=\d+\n?"
)
"""Most summaries: without a comma in a name there is one reading only."""


class Cgroups(NamedTuple):
    """Paths, as bytes; None where the line does not say, or could be read in two ways."""

    limit: bytes | None
    task: bytes | None


def read_summary_cgroups(summary: bytes, comm: bytes, limit: bytes | None) -> Cgroups:
    """The cgroups in a whole summary line (5.0 and later), where the victim's comm and the limit's cgroup are known.

    ``cpuset=NAME,mems_allowed=LIST,oom_memcg=PATH,task_memcg=PATH,task=COMM,pid=PID,uid=UID``, with ``global_oom``
    instead of the limit where none was hit.  The limit is the victim's cgroup or one above it.
    """
    plain = _PLAIN_SUMMARY.fullmatch(summary)
    readings = _summary_readings(summary, comm) if plain is None else {Cgroups(*plain.groups())}
    readings = {each for each in readings if each.limit is None or is_below(each.task or b"", each.limit)}
    if limit is not None:
        readings = {each for each in readings if each.limit == limit}
    return readings.pop() if len(readings) == 1 else Cgroups(limit, None)


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

    Of a line that is cut the task's path is whole, and the limit's is one above it that begins so.
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
    """Where what follows the first ``length`` bytes of each ``word`` begins."""
    places: list[int] = []
    at = text.find(word)
    while at >= 0 and len(places) < _MOST_READINGS:
        places.append(at + length)
        at = text.find(word, at + 1)
    return places
