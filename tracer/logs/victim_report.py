# SPDX-License-Identifier: Apache-2.0
"""What a kernel log says about one victim of the OOM killer."""

from typing import NamedTuple

from tracer.logs.log_line import Clock
from tracer.logs.oom_tasks import TaskRow


class Counter(NamedTuple):
    """The line of a limit; bytes."""

    usage: int
    limit: int
    failcnt: int


class VictimReport(NamedTuple):
    """One victim and its incident; a field is None if the log does not say."""

    time_ns: int | None
    """Of the kill, by `clock`."""
    incident_ns: int | None
    """Of the incident's first line, by `clock`."""
    clock: Clock | None
    tid: int
    pid: int | None
    """The thread group, from the table of tasks or the summary: "Killed process" names a thread."""
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
    """Of the limit's cgroup and all cgroups below it; bytes."""
    trigger_comm: bytes | None
    trigger_tid: int | None
    trigger_pid: int | None
    tasks: list[TaskRow] | None
    """The incident's first victim, then the largest other processes."""
    group_kill: bool | None
    victims: int | None
    wall_ns: int | None = None
    """Unix time of the kill by the log's wall clock, if the log has one."""
    first_tid: int | None = None
    """Of the incident's first victim: the seconds that some logs have do not identify an incident."""
    group: bytes | None = None
    """The cgroup of a group kill; all of its victims are in or below it."""
    rss_bytes: int | None = None
    """The total, if the log does not split it."""
    swap_bytes: int | None = None
    ram_pages: int | None = None
    """The host's RAM, without what the kernel reserves for itself."""
    host_swap_bytes: int | None = None
