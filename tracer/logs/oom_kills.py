# SPDX-License-Identifier: Apache-2.0
"""A "Killed process" line of the kernel, as it says it."""

from collections.abc import Sequence
from typing import NamedTuple

from tracer.logs.oom_lines import LogLine


class Kill(NamedTuple):
    """None is what the line does not say."""

    time_ns: int | None
    message: bytes | None
    tid: int
    comm: bytes
    uid: int | None
    total_vm_kb: int | None
    anon_rss_kb: int | None
    file_rss_kb: int | None
    shmem_rss_kb: int | None
    page_tables_kb: int | None
    oom_score_adj: int | None
    wall_ns: int | None = None
    rss_kb: int | None = None
    swap_kb: int | None = None


def read_kill(groups: Sequence[bytes | None], line: LogLine) -> Kill:
    """What `oom_lines.KILLED` has found in a line."""
    message, tid, uid6, comm, uid7, total_vm, anon, file, shmem, uid, page_tables, adj = groups
    return Kill(
        line.time_ns,
        message,
        int(tid or 0),
        comm or b"",
        _int(uid6 or uid7 or uid),
        _int(total_vm),
        _int(anon),
        _int(file),
        _int(shmem),
        _int(page_tables),
        _int(adj),
        line.wall_ns,
    )


def read_kill_in_ub(groups: Sequence[bytes | None], line: LogLine) -> Kill:
    """What `oom_lines.KILLED_IN_UB` has found in a line."""
    message, tid, comm, total_vm, rss, swap = groups
    return Kill(
        line.time_ns,
        message,
        int(tid or 0),
        comm or b"",
        None,
        _int(total_vm),
        None,
        None,
        None,
        None,
        None,
        line.wall_ns,
        _int(rss),
        _int(swap),
    )


def _int(digits: bytes | None) -> int | None:
    return None if digits is None else int(digits)


def kb_bytes(kb: int | None) -> int | None:
    """Bytes of a size in kB."""
    return None if kb is None else kb << 10


def is_plausible(kill: Kill) -> bool:
    """Whether the size of the page tables is in kB: 5.4.0 to 5.4.8 printed bytes (fixed by 941f762bcb27).

    A page of them maps 512 pages; some 4 MiB are for small processes and large pages.
    """
    return (kill.page_tables_kb or 0) <= (kill.total_vm_kb or 0) // 256 + 4096
