# SPDX-License-Identifier: Apache-2.0
"""Memory cgroups with a limit, cgroup v1 and v2: limit, usage, and what the OOM killer would measure scores by."""

import mmap
import os
from typing import NamedTuple

from tracer.linux import cgroupfs

_LEAST_NO_LIMIT_BYTES = 0x7FFFFFFFFFFF0000
"""PAGE_COUNTER_MAX with pages of 64 KiB; smaller pages give more."""


class Memcg(NamedTuple):
    """A memory cgroup with a limit."""

    cgroup: str
    """As the kernel names it; bytes that are no UTF-8 as surrogates."""
    limit_bytes: int
    usage_bytes: int
    """Page cache included."""
    total_pages: int
    """The limit, and the swap that may be used beyond it: mem_cgroup_get_max() in mm/memcontrol.c."""

    @property
    def free_bytes(self) -> int:
        """What is left; negative where the limit was lowered below the usage."""
        return self.limit_bytes - self.usage_bytes


class MemcgLimits:
    """What the limits are at one moment: each file is read once."""

    def __init__(self, swap_bytes: int) -> None:
        """``swap_bytes``: the host's swap space."""
        self._mount = cgroupfs.find_mount()
        self._swap_bytes = swap_bytes
        self._above: dict[str, tuple[Memcg, ...]] = {}

    def limits(self, path: str) -> tuple[Memcg, ...]:
        """Those whose limit holds for a cgroup: its own, its parent's, ... up to the root; none where no files are."""
        if path not in self._above:
            own = self._read(path)
            parent = path.rpartition("/")[0]
            above = self.limits(parent) if parent and self._is_charged(parent) else ()
            self._above[path] = above if own is None else (own, *above)
        return self._above[path]

    def tightest(self, path: str) -> Memcg | None:
        """That which would be hit first: the least is left."""
        return min(self.limits(path), key=lambda memcg: memcg.free_bytes, default=None)

    def _is_charged(self, path: str) -> bool:
        """Whether what the children use counts here; cgroup v1 before Linux 5.11 could be told not to."""
        return self._number(path, "memory.use_hierarchy") != 0

    def _read(self, path: str) -> Memcg | None:
        limit = self._number(path, "memory.max")
        if limit is not None:
            usage = self._number(path, "memory.current")
            swap = self._number(path, "memory.swap.max")
        else:
            limit, usage = self._number(path, "memory.limit_in_bytes"), self._number(path, "memory.usage_in_bytes")
            both = self._number(path, "memory.memsw.limit_in_bytes")
            swap = None if both is None or limit is None else both - limit
        if limit is None or usage is None or limit >= _LEAST_NO_LIMIT_BYTES:
            return None
        most = self._swap_bytes if swap is None else min(swap, self._swap_bytes)
        if self._swappiness(path) == 0:
            most = 0
        return Memcg(path, limit, usage, max(1, (limit + most) // mmap.PAGESIZE))

    def _swappiness(self, path: str) -> int | None:
        own = self._number(path, "memory.swappiness")
        return own if own is not None else _number("/proc/sys/vm/swappiness")

    def _number(self, path: str, name: str) -> int | None:
        if self._mount is None:
            return None
        return _number(f"{self._mount.point}/{path.removeprefix(self._mount.root)}/{name}")


def _number(path: str) -> int | None:
    """The number in a file, very high for ``max``; None: it is not there."""
    try:
        with open(os.fsencode(path), "rb") as file:
            text = file.read().strip()
        return _LEAST_NO_LIMIT_BYTES if text == b"max" else int(text)
    except (OSError, ValueError):
        return None
