# SPDX-License-Identifier: Apache-2.0
"""Kills in brief, which the programs send while the ring buffer is full (bpf/brief.h).

Mirrors these events of bpf/event.h, as tracer/capture/wire.py mirrors the others.
"""

import mmap
import struct
from typing import NamedTuple

# The mirror of bpf/event.h, written by `make layout`.
# enum event_type
BRIEF = 10
LOG_BRIEF = 11

# enum brief_flags
BRIEF_OC = 1 << 16
BRIEF_MEMCG = 1 << 17
BRIEF_SYSRQ = 1 << 18
BRIEF_LEAF_TRUNCATED = 1 << 19

UNKNOWN_PAGES = 0xFFFFFFFF
NO_LEVEL = 0xFF

BRIEF_FIXED = struct.Struct("=Qq10I16shH3Bx")
LOG_BRIEF_FIXED = struct.Struct("=I4x")


class BriefFields(NamedTuple):
    """struct brief_event, without its header."""

    started_ns: int
    total_vm_pages: int
    anon_rss_pages: int
    file_rss_pages: int
    shmem_rss_pages: int
    swap_pages: int
    pid: int
    tid: int
    uid: int
    namespace_pid: int
    flags: int
    path: int
    comm: bytes
    oom_score_adj: int
    path_len: int
    namespace_level: int
    limit_level: int
    constraint: int


# The end of what `make layout` writes.

LOG_MESSAGES = (
    b": Killed process 0 (",
    b"Memory cgroup out of memory: Killed process 0 (",
    b"Out of memory: Killed process 0 (",
)
"""The kernel log line for each value of enum log_brief_message."""
PATHS_BYTES = 1 << 19


class BriefIncident(NamedTuple):
    """The incident, as far as a victim in brief shows it."""

    flags: int
    constraint: int
    limit_level: int | None
    """The number of names, from the root of the victim's cgroup path, of the cgroup whose limit was reached."""


class PathStore:
    """The map ``paths``, memory-mapped: during a system call on a map the kernel skips kprobes on this CPU.

    The path that an event refers to stays there until the event is released.
    """

    def __init__(self, descriptor: int) -> None:
        self._bytes = mmap.mmap(descriptor, PATHS_BYTES, mmap.MAP_SHARED, mmap.PROT_READ)

    def read(self, at: int, length: int) -> bytes:
        """The path of ``length`` bytes at the offset ``at``; raises struct.error if it is out of range."""
        if at + length > PATHS_BYTES:
            raise struct.error(f"path out of range: {length} bytes at {at}")
        return self._bytes[at : at + length]
