# SPDX-License-Identifier: Apache-2.0
"""What a kernel log says of one victim of the OOM killer."""

from typing import NamedTuple

from tracer.logs.oom_lines import Clock
from tracer.logs.oom_tasks import TaskRow


class Counter(NamedTuple):
    """A limit's line; bytes."""

    usage: int
    limit: int
    failcnt: int


class VictimReport(NamedTuple):
    """What the log says of one victim and of its incident; None is what it does not say."""

    time_ns: int | None
    incident_ns: int | None
    """When the incident's first line was printed."""
    clock: Clock | None
    tid: int
    pid: int | None
    """The thread group, where a table of tasks or the summary tells it: "Killed process" names a thread."""
    comm: bytes
    uid: int | None
    total_vm_bytes: int | None
    anon_rss_bytes: int | None
    file_rss_bytes: int | None
    shmem_rss_bytes: int | None
    page_tables_bytes: int | None
    oom_score_adj: int | None
    task: TaskRow | None
    """The victim's row in the table of tasks."""
    cgroup: bytes | None
    message: bytes | None
    constraint: bytes | None
    gfp_mask: int | None
    gfp_flags: bytes | None
    order: int | None
    limit_cgroup: bytes | None
    counters: dict[bytes, Counter]
    statistics: dict[bytes, int]
    """Of the limit's cgroup and all below it; bytes."""
    trigger_comm: bytes | None
    trigger_tid: int | None
    trigger_pid: int | None
    tasks: list[TaskRow] | None
    """The incident's first victim, then the largest others."""
    group_kill: bool | None
    victims: int | None
    wall_ns: int | None = None
    """When it was by the log's wall clock, Unix time, if it has one."""
    first_tid: int | None = None
    """The incident's first victim: the seconds that some logs show do not name an incident."""
    group: bytes | None = None
    """The cgroup, in or below which all victims of a group kill are."""
    rss_bytes: int | None = None
    """All of it, where the log does not tell of what kind it is."""
    swap_bytes: int | None = None
    ram_pages: int | None = None
    """All of the host's RAM that the kernel does not reserve for itself."""
    host_swap_bytes: int | None = None
