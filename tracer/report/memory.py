# SPDX-License-Identifier: Apache-2.0
"""Memory under the limit that was hit, in parts that do not overlap."""

from typing import NamedTuple

from tracer.records.model import Limit


class MemoryPart(NamedTuple):
    name: str
    """CSS class in the page."""
    label: str
    size_bytes: int


def memory_parts(limit: Limit | None) -> list[MemoryPart]:
    """The known parts that are not empty; ``other`` is the rest of the usage.

    The kernel includes shared memory in page cache, and slab in kernel memory; here each byte counts once.
    """
    breakdown = None if limit is None else limit["breakdown"]
    if limit is None or breakdown is None:
        return []
    shmem, slab = breakdown["shmem_bytes"], breakdown["slab_bytes"]
    file, kernel = breakdown["file_bytes"], breakdown["kernel_bytes"]
    found = [
        MemoryPart("anon", "anonymous (heaps, stacks)", breakdown["anon_bytes"] or 0),
        MemoryPart("shmem", "tmpfs and shared memory", shmem or 0),
        MemoryPart("file", "other page cache", max(0, (file or 0) - (shmem or 0))),
        MemoryPart("slab", "kernel objects (slab)", slab or 0),
        MemoryPart("kernel", "other kernel memory", max(0, (kernel or 0) - (slab or 0))),
        MemoryPart("sock", "network buffers", breakdown["sock_bytes"] or 0),
    ]
    rest = (limit["usage_bytes"] or 0) - sum(part.size_bytes for part in found)
    found.append(MemoryPart("other", "unclassified", max(0, rest)))
    return [part for part in found if part.size_bytes > 0]


def size_text(size_bytes: int | None) -> str:
    """Size with a unit, to about three digits; ``?``: unknown."""
    if size_bytes is None:
        return "?"
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
