# SPDX-License-Identifier: Apache-2.0
"""What is kept of kills while their ring buffer is full: the essentials; bpf/brief.h tells how.

Field by field the mirror of bpf/event.h, as tracer/capture/wire.py is for the other events.
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
"""enum reported_message: the lines of the kernel log that it stands for."""
PATHS_BYTES = 1 << 19


class BriefIncident(NamedTuple):
    """What a victim that was told in brief tells of its incident."""

    flags: int
    constraint: int
    limit_level: int | None
    """So many names of the victim's cgroup, from the root, are the cgroup whose limit was hit."""


class PathStore:
    """The map ``paths``, in memory: a system call on a map would keep kprobes from this CPU meanwhile.

    What an event refers to stays there until the event is let go of.
    """

    def __init__(self, descriptor: int) -> None:
        self._bytes = mmap.mmap(descriptor, PATHS_BYTES, mmap.MAP_SHARED, mmap.PROT_READ)

    def read(self, at: int, length: int) -> bytes:
        """Raises struct.error where that is outside."""
        if at + length > PATHS_BYTES:
            raise struct.error("a path ends outside")
        return self._bytes[at : at + length]
