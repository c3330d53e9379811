# SPDX-License-Identifier: Apache-2.0
"""What an engine is: the programs attached, and their events as bytes.

Both engines end in the same thing: maps, known by descriptor, and links that hold the programs in place.
"""

import mmap
import sys
from collections.abc import Callable
from typing import Literal, NamedTuple

from tracer.ring import Ring

EngineName = Literal["core", "bcc"]


COUNTER_LOST = 0
COUNTER_UNSEEN_CGROUPS = 1
COUNTER_MISREAD = 2
"""enum counter in bpf/incident.h."""


class Settings(NamedTuple):
    """What the programs are told before they are loaded (SETTING in bpf/*.h)."""

    cpus: int
    kprobes: int
    stats_index: int
    stats_index_size: int


class Hook(NamedTuple):
    """Where a program goes: a function of the kernel, its return, or a raw tracepoint."""

    program: str
    kind: Literal["kprobe", "kretprobe", "raw_tp"]
    target: str


class Attached(NamedTuple):
    """Programs at work."""

    engine: EngineName
    hooks: tuple[Hook, ...]
    maps: dict[str, int]
    """Name -> descriptor."""
    detach: Callable[[], None]
    """Ends the capture; what is in the maps stays readable."""


def open_ring(descriptor: int) -> Ring:
    """Raises OSError where that is no ring buffer, or cannot be mapped."""
    return Ring(descriptor, int(map_info(descriptor)["max_entries"]))


def map_info(descriptor: int) -> dict[str, str]:
    """What the kernel tells of a map, or of a link, by name: map_type, max_entries, link_id, ... (fdinfo, proc(5))."""
    with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as file:
        return {name: value.strip() for name, _, value in (line.partition(":") for line in file)}


class Counters:
    """The programs' counters, read from memory: a system call on a map would keep kprobes from this CPU meanwhile."""

    def __init__(self, maps: dict[str, int]) -> None:
        self._memory = mmap.mmap(maps["counters"], mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ)

    def read(self, counter: int) -> int:
        """One of COUNTER_*, since the programs were loaded."""
        return int.from_bytes(self._memory[8 * counter : 8 * counter + 8], sys.byteorder)
