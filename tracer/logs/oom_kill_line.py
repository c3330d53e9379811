# SPDX-License-Identifier: Apache-2.0
"""A "Killed process" line of the kernel."""

from collections.abc import Sequence
from typing import NamedTuple

from tracer.logs.log_line import LogLine


class KillLine(NamedTuple):
    """A field is None if the line does not say."""

    time_ns: int | None
    message: bytes | None
    tid: int
    comm: bytes
    uid: int | None
    total_vm_bytes: int | None
    anon_rss_bytes: int | None
    file_rss_bytes: int | None
    shmem_rss_bytes: int | None
    page_tables_bytes: int | None
    oom_score_adj: int | None
    wall_ns: int | None = None
    rss_bytes: int | None = None
    swap_bytes: int | None = None


def parse_kill_line(groups: Sequence[bytes | None], line: LogLine) -> KillLine:
    """The kill in a line that `oom_lines.KILLED` has matched, from the groups of the match."""
    message, tid, uid6, comm, uid7, total_vm, anon, file, shmem, uid, page_tables, adj = groups
    return KillLine(
        line.time_ns,
        message,
        int(tid or 0),
        comm or b"",
        _int(uid6 or uid7 or uid),
        _bytes(total_vm),
        _bytes(anon),
        _bytes(file),
        _bytes(shmem),
        _bytes(page_tables),
        _int(adj),
        line.wall_ns,
    )


def parse_beancounter_kill_line(groups: Sequence[bytes | None], line: LogLine) -> KillLine:
    """The kill in a line that `oom_lines.KILLED_IN_UB` has matched, from the groups of the match."""
    message, tid, comm, total_vm, rss, swap = groups
    return KillLine(
        line.time_ns,
        message,
        int(tid or 0),
        comm or b"",
        None,
        _bytes(total_vm),
        None,
        None,
        None,
        None,
        None,
        line.wall_ns,
        _bytes(rss),
        _bytes(swap),
    )


def _int(digits: bytes | None) -> int | None:
    return None if digits is None else int(digits)


def _bytes(kb: bytes | None) -> int | None:
    return None if kb is None else int(kb) << 10


def has_plausible_page_tables(kill: KillLine) -> bool:
    """Whether the size of the page tables is in kB: 5.4.0 to 5.4.8 printed bytes (fixed by 941f762bcb27).

    One page of them maps 512 pages; 4 MiB more allow for small processes and huge pages.
    """
    return (kill.page_tables_bytes or 0) <= (((kill.total_vm_bytes or 0) >> 18) + 4096) << 10
