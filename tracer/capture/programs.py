# SPDX-License-Identifier: Apache-2.0
"""What an engine is: programs loaded, and their maps.

Both engines end in the same thing, descriptors: tracer/capture/attach.py makes links of the programs, which hold them
in place.
"""

import mmap
from collections.abc import Callable
from typing import Literal, NamedTuple

from tracer.capture.ringbuf import Ring

EngineName = Literal["core", "bcc"]

COUNTER_LOST = 0
COUNTER_CGROUPS_LOST = 1
COUNTER_MISREAD = 2
COUNTER_LOST_REPORTED = 3
COUNTER_SIGKILLS_LOST = 4
COUNTER_SIGKILLS_LOST_REPORTED = 5
COUNTER_LOSSLESS_UNTIL_NS = 6
"""enum counter in bpf/incident.h."""

MAPS = ("events", "cgroups", "sigkills", "counters", "cmdlines", "briefs", "paths")
"""What the daemon reads or writes."""


_MAP_LRU_HASH = 9
"""enum bpf_map_type in include/uapi/linux/bpf.h."""
_LRU_SPARE = 128
"""Free entries of an LRU map that a CPU may keep to itself: LOCAL_FREE_TARGET in kernel/bpf/bpf_lru_list.c."""


class Settings(NamedTuple):
    """What the programs are told before they are loaded (SETTING in bpf/*.h)."""

    cpus: int
    kprobes: int
    stats_index: int
    stats_index_size: int
    sigkill: int
    """enum sigkill_scope in bpf/sigkill.h."""


class Hook(NamedTuple):
    """Where a program goes: a function of the kernel, its return, or a raw tracepoint."""

    program: str
    kind: Literal["kprobe", "kretprobe", "raw_tp"]
    target: str


class LoadedPrograms(NamedTuple):
    """Programs and maps that an engine has loaded; descriptors by name."""

    programs: dict[str, int]
    maps: dict[str, int]
    """Those of MAPS; the programs hold the others."""


class Link(NamedTuple):
    """What holds a program in place for as long as it is open, or pinned."""

    hook: Hook
    descriptor: int
    pinnable: bool


class AttachedPrograms(NamedTuple):
    """Programs at work."""

    engine: EngineName
    hooks: tuple[Hook, ...]
    maps: dict[str, int]
    """Those of MAPS: name -> descriptor."""
    detach: Callable[[], None]
    """Ends the capture, pins and all; what is in the maps stays readable."""


def entry_count(name: str, map_type: int, written: int, cmdlines: int, cpus: int) -> int:
    """How many entries a map gets; ``written`` is what its source says, which an LRU map is to hold at any time."""
    if name == "cmdlines":
        return cmdlines
    return written + _LRU_SPARE * cpus if map_type == _MAP_LRU_HASH else written


def open_ring(descriptor: int) -> Ring:
    """Raises OSError where that is no ring buffer, or cannot be mapped."""
    return Ring(descriptor, int(read_map_info(descriptor)["max_entries"]))


def read_map_info(descriptor: int) -> dict[str, str]:
    """What the kernel tells of a map, or of a link, by name: map_type, max_entries, link_id, ... (fdinfo, proc(5))."""
    with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as file:
        return {name: value.strip() for name, _, value in (line.partition(":") for line in file)}


class ProgramCounters:
    """The programs' counters, in memory: a system call on a map would keep kprobes from this CPU meanwhile."""

    def __init__(self, maps: dict[str, int]) -> None:
        memory = mmap.mmap(maps["counters"], mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._values = memoryview(memory).cast("Q")

    def read(self, counter: int) -> int:
        """One of COUNTER_*, since the programs were loaded."""
        return self._values[counter]

    def write(self, counter: int, value: int) -> None:
        """Set a counter that user space keeps: COUNTER_*_REPORTED or COUNTER_LOSSLESS_UNTIL_NS."""
        self._values[counter] = value
