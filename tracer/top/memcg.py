# SPDX-License-Identifier: Apache-2.0
"""Memory cgroups with a limit (cgroup v1 and v2): limit, usage, and the total that OOM scores are relative to."""

import mmap
import os
from typing import NamedTuple

from tracer.linux import cgroupfs

_NO_LIMIT_MIN_BYTES = 0x7FFFFFFFFFFF0000
"""PAGE_COUNTER_MAX with pages of 64 KiB; it is larger with smaller pages."""


class Memcg(NamedTuple):
    """A memory cgroup with a limit."""

    cgroup: str
    """Path; bytes that are not UTF-8 are surrogates."""
    limit_bytes: int
    usage_bytes: int
    """Page cache included."""
    total_pages: int
    """The limit plus the swap allowed beyond it: mem_cgroup_get_max() in mm/memcontrol.c."""

    @property
    def free_bytes(self) -> int:
        """Limit minus usage; negative if the limit was lowered below the usage."""
        return self.limit_bytes - self.usage_bytes


class MemcgLimits:
    """Limits at one moment: each file is read once."""

    def __init__(self, swap_bytes: int) -> None:
        """``swap_bytes``: the host's swap space."""
        self._mount = cgroupfs.find_mount()
        self._swap_bytes = swap_bytes
        self._above: dict[str, tuple[Memcg, ...]] = {}

    def limits(self, path: str) -> tuple[Memcg, ...]:
        """The memory cgroups that limit a cgroup: itself, its parent, and so on; empty if their files are missing."""
        if path not in self._above:
            own = self._read(path)
            parent = path.rpartition("/")[0]
            above = self.limits(parent) if parent and self._is_hierarchical(parent) else ()
            self._above[path] = above if own is None else (own, *above)
        return self._above[path]

    def tightest(self, path: str) -> Memcg | None:
        """The memory cgroup with the least free memory, whose limit would be hit first."""
        return min(self.limits(path), key=lambda memcg: memcg.free_bytes, default=None)

    def _is_hierarchical(self, path: str) -> bool:
        """Whether usage of children is charged to the parent; optional in cgroup v1 before Linux 5.11."""
        return self._read_number(path, "memory.use_hierarchy") != 0

    def _read(self, path: str) -> Memcg | None:
        limit = self._read_number(path, "memory.max")
        if limit is not None:
            usage = self._read_number(path, "memory.current")
            swap = self._read_number(path, "memory.swap.max")
        else:
            limit, usage = (
                self._read_number(path, "memory.limit_in_bytes"),
                self._read_number(path, "memory.usage_in_bytes"),
            )
            both = self._read_number(path, "memory.memsw.limit_in_bytes")
            swap = None if both is None or limit is None else both - limit
        if limit is None or usage is None or limit >= _NO_LIMIT_MIN_BYTES:
            return None
        most = self._swap_bytes if swap is None else min(swap, self._swap_bytes)
        if self._swappiness(path) == 0:
            most = 0
        return Memcg(path, limit, usage, max(1, (limit + most) // mmap.PAGESIZE))

    def _swappiness(self, path: str) -> int | None:
        own = self._read_number(path, "memory.swappiness")
        return own if own is not None else _read_number("/proc/sys/vm/swappiness")

    def _read_number(self, path: str, name: str) -> int | None:
        if self._mount is None:
            return None
        return _read_number(f"{self._mount.point}/{path.removeprefix(self._mount.root)}/{name}")


def _read_number(path: str) -> int | None:
    """The number in a file, _NO_LIMIT_MIN_BYTES for ``max``; None: the file is missing or has no number."""
    try:
        with open(os.fsencode(path), "rb") as file:
            text = file.read().strip()
        return _NO_LIMIT_MIN_BYTES if text == b"max" else int(text)
    except (OSError, ValueError):
        return None
