# SPDX-License-Identifier: Apache-2.0
"""What an engine is: the programs attached, and their events as bytes.

Both engines end in the same thing: maps, known by descriptor, and links that hold the programs in place.
"""

import ctypes
import mmap
import sys
from collections.abc import Callable
from typing import Literal, NamedTuple

from tracer import libbpf

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


class RingBuffers:
    """Reads the maps of events, one after the other; ``fileno()`` becomes readable when there is something."""

    def __init__(self, maps: dict[str, int], on_event: Callable[[bytes], None]) -> None:
        self._library = libbpf.library()

        def sample(_context: int, data: int, size: int) -> int:
            on_event(ctypes.string_at(data, size))
            return 0

        self._sample = libbpf.SAMPLE_FN(sample)  # must outlive the ring buffer
        self._ring = self._library.ring_buffer__new(maps["events"], self._sample, None, None)
        if not self._ring or self._library.ring_buffer__add(self._ring, maps["cgroups"], self._sample, None):
            raise libbpf.last_error()

    def fileno(self) -> int:
        return int(self._library.ring_buffer__epoll_fd(self._ring))

    def consume(self) -> None:
        """Hand every event that is there to ``on_event``."""
        self._library.ring_buffer__consume(self._ring)

    def close(self) -> None:
        self._library.ring_buffer__free(self._ring)


class Counters:
    """The programs' counters, read from memory: a system call on a map would keep kprobes from this CPU meanwhile."""

    def __init__(self, maps: dict[str, int]) -> None:
        self._memory = mmap.mmap(maps["counters"], mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ)

    def read(self, counter: int) -> int:
        """One of COUNTER_*, since the programs were loaded."""
        return int.from_bytes(self._memory[8 * counter : 8 * counter + 8], sys.byteorder)
