# SPDX-License-Identifier: Apache-2.0
"""The contract of an engine: it loads programs and maps, and returns their descriptors.

tracer/capture/attach.py turns the programs into links, which keep them attached.
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
"""Maps that the daemon reads or writes; their names are also those of the pins."""


_MAP_LRU_HASH = 9
"""enum bpf_map_type in include/uapi/linux/bpf.h."""
_LRU_SPARE = 128
"""Free entries of an LRU map that each CPU may reserve: LOCAL_FREE_TARGET in kernel/bpf/bpf_lru_list.c."""


class Settings(NamedTuple):
    """Constants of the programs, set before they are loaded (``setting()`` in bpf/*.h)."""

    cpus: int
    kprobes: int
    stats_index: int
    stats_index_size: int
    sigkill: int
    """enum sigkill_scope in bpf/sigkill.h."""


class Hook(NamedTuple):
    """Where a program is attached: a kernel function, its return, or a raw tracepoint."""

    program: str
    kind: Literal["kprobe", "kretprobe", "raw_tp"]
    target: str


class LoadedPrograms(NamedTuple):
    """Programs and maps that an engine has loaded: name -> descriptor."""

    programs: dict[str, int]
    maps: dict[str, int]
    """Those in MAPS; the programs hold the others."""


class Link(NamedTuple):
    """Keeps a program attached while it is open or pinned."""

    hook: Hook
    descriptor: int
    pinnable: bool


class AttachedPrograms(NamedTuple):
    """Programs that are attached, and their maps."""

    engine: EngineName
    hooks: tuple[Hook, ...]
    maps: dict[str, int]
    """Those in MAPS: name -> descriptor."""
    detach: Callable[[], None]
    """Ends the capture and removes its pins; the maps stay readable."""


def entry_count(name: str, map_type: int, declared: int, cmdlines: int, cpus: int) -> int:
    """A map's number of entries; ``declared`` is the number in the C source, which an LRU map must always hold."""
    if name == "cmdlines":
        return cmdlines
    return declared + _LRU_SPARE * cpus if map_type == _MAP_LRU_HASH else declared


def open_ring(descriptor: int) -> Ring:
    """Map a ring buffer into memory; raises OSError if it is not one or cannot be mapped."""
    return Ring(descriptor, int(read_map_info(descriptor)["max_entries"]))


def read_map_info(descriptor: int) -> dict[str, str]:
    """The properties of a map or link, by name: map_type, max_entries, link_id, ... (fdinfo in proc(5))."""
    with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as file:
        return {name: value.strip() for name, _, value in (line.partition(":") for line in file)}


class ProgramCounters:
    """The programs' counters, memory-mapped: during a system call on a map the kernel skips kprobes on this CPU."""

    def __init__(self, maps: dict[str, int]) -> None:
        memory = mmap.mmap(maps["counters"], mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._values = memoryview(memory).cast("Q")

    def read(self, counter: int) -> int:
        """The value of one of COUNTER_*, counted since the programs were loaded."""
        return self._values[counter]

    def write(self, counter: int, value: int) -> None:
        """Set a counter that user space keeps: COUNTER_*_REPORTED or COUNTER_LOSSLESS_UNTIL_NS."""
        self._values[counter] = value
