# SPDX-License-Identifier: Apache-2.0
"""A victim report from a kernel log -> the `oom_kill` record; what the log does not say is null.

Container, pod and unit of a victim with a cgroup are null until tracer/identity/enrich.py derives them. For the other
victims of a group kill the log names only a cgroup that they are in or below: they get what all cgroups below it share.
"""

from tracer.base.clock import boottime_to_rfc3339, format_rfc3339
from tracer.identity import cgroup_path
from tracer.logs.oom_lines import ALLOCATING, SCOPES, may_be_cut
from tracer.logs.oom_tasks import TaskRow
from tracer.logs.victim_report import Counter, VictimReport
from tracer.records.model import (
    HOST_PLACEHOLDER,
    NO_LIMIT_BYTES,
    SCHEMA,
    Breakdown,
    Candidate,
    Limit,
    OomKill,
    Scope,
    Trigger,
    Victim,
)
from tracer.records.owner import Identity

_LEAST_NO_LIMIT_BYTES = 0x7FFFFFFFFFFF0000
"""PAGE_COUNTER_MAX with pages of 64 KiB; with smaller pages, and before 4.2, "no limit" is more."""
_PAGE_SIZES = (4096, 8192, 16384, 65536)
_MESSAGE_SCOPES: dict[bytes, Scope] = {
    b"Memory cgroup out of memory": "memcg",
    b"No available memory (MPOL_BIND)": "mempolicy",
    b"No available memory in cpuset": "cpuset",
    # mem_cgroup_out_of_memory() has had a message of its own since 2.6.25; the other scopes have shared these since
    # 2.6.36.
    b"Out of memory": "host_or_nodes",
    ALLOCATING: "host_or_nodes",
}
_GREATEST_GROWTH = 1.25
"""A victim may have grown since the table was printed; page sizes differ by more."""
_UNKNOWN_IDENTITY = Identity(None, None, None)


class LogRecords:
    """Builds records.

    ``boot`` names the boot in the ids. ``page_bytes`` is the page size of the host that wrote the log; None: unknown.
    ``ahead_ns`` is how far CLOCK_BOOTTIME is ahead of printk's clock; None if printk's clock is that of an unknown
    boot.
    """

    def __init__(self, boot: str, page_bytes: int | None, ahead_ns: int | None = 0) -> None:
        self._boot = boot
        self._page_bytes = page_bytes
        self._ahead_ns = ahead_ns

    def oom_kill(self, report: VictimReport) -> OomKill:
        """The record of one victim, without `seq` and `host`, which the caller adds; ``report`` must have a time."""
        page_bytes = self._page_bytes or _infer_page_bytes(report)
        scope = _scope(report)
        truncated: list[str] = []
        identity = _identity_by_limit(report) if report.cgroup is None else _UNKNOWN_IDENTITY
        incident_id, kill_id = self._ids(report)
        return {
            "schema": SCHEMA,
            "type": "oom_kill",
            "id": kill_id,
            "time": self._time(report),
            "seq": 0,
            "host": HOST_PLACEHOLDER,
            "source": "kernel_log",
            "delayed": True,
            "reduced": False,
            "incident": {
                "id": incident_id,
                "scope": scope,
                "group_kill": report.group_kill,
                "victims": report.victims,
                "gfp_mask": report.gfp_mask,
                "gfp_flags": _text(report.gfp_flags),
                "order": report.order,
                "total_pages": _total_pages(report, page_bytes) if scope in ("host", "sysrq") else None,
                "message": _text(report.message),
            },
            "limit": _limit(report, truncated) if scope == "memcg" else None,
            "victim": _victim(report, page_bytes, truncated),
            "trigger": _trigger(report),
            "candidates": None if report.tasks is None else [_candidate(task, page_bytes) for task in report.tasks],
            "candidates_scored": None,
            "container": identity.container,
            "kubernetes": identity.kubernetes,
            "systemd": identity.systemd,
            "owner": identity.owner,
            "network": None,
            "truncated": truncated,
        }

    def _ids(self, report: VictimReport) -> tuple[str, str]:
        """The ids of incident and kill, made of the microseconds that the log shows: the same for every reader."""
        time_ns = report.time_ns or 0
        incident_us = (time_ns if report.incident_ns is None else report.incident_ns) // 1000
        kill_us, victim = time_ns // 1000, report.pid or report.tid
        if report.clock not in ("realtime", "unknown"):
            return f"{self._boot}-k{incident_us:x}", f"{self._boot}-k{kill_us:x}-{victim}"
        letter = "t" if report.clock == "realtime" else "u"
        incident_id = f"{self._boot}-{letter}{incident_us:x}-{report.first_tid or report.tid}"
        return incident_id, f"{self._boot}-{letter}{kill_us:x}-{victim}"

    def _time(self, report: VictimReport) -> str | None:
        wall_ns = report.time_ns if report.clock == "realtime" else report.wall_ns
        if wall_ns is not None:
            return format_rfc3339(wall_ns)
        if report.clock == "unknown":
            return None
        return None if self._ahead_ns is None else boottime_to_rfc3339((report.time_ns or 0) + self._ahead_ns)


def _victim(report: VictimReport, page_bytes: int | None, truncated: list[str]) -> Victim:
    rss_bytes = report.rss_bytes
    if report.anon_rss_bytes is not None:  # before 4.5 file_rss includes shmem
        rss_bytes = report.anon_rss_bytes + (report.file_rss_bytes or 0) + (report.shmem_rss_bytes or 0)
    swap_pages = None if report.task is None else report.task.swap_pages
    return {
        "pid": report.pid,
        "tid": report.tid,
        "ppid": None,
        "comm": _text(report.comm),
        "cmdline": None,
        "exe": None,
        "uid": report.uid,
        "namespace_pid": None,
        "is_container_init": None,
        "started_at": None,
        "oom_score_adj": report.oom_score_adj,
        "points": None,
        "rss_bytes": _bounded(rss_bytes),
        "anon_rss_bytes": _bounded(report.anon_rss_bytes),
        "file_rss_bytes": _bounded(report.file_rss_bytes),
        "shmem_rss_bytes": _bounded(report.shmem_rss_bytes),
        "swap_bytes": _bounded(report.swap_bytes) if swap_pages is None else _pages(swap_pages, page_bytes),
        "total_vm_bytes": _bounded(report.total_vm_bytes),
        "page_tables_bytes": _bounded(report.page_tables_bytes),
        "peak_rss_bytes": None,
        "cgroup": _path(report.cgroup, "victim.cgroup", truncated),
        "ancestors": None,
        "shared_mm": None,
    }


def _identity_by_limit(report: VictimReport) -> Identity:
    """The identity of a victim of which only a cgroup above it is known: what all cgroups below that one share."""
    above = report.group or report.limit_cgroup
    if above is None or may_be_cut(above):
        return _UNKNOWN_IDENTITY
    path = above.decode("utf-8", "backslashreplace")
    identity = cgroup_path.parse_cgroup_path(path)
    below = cgroup_path.parse_cgroup_path(f"{path.rstrip('/')}/x.slice/x.service")
    return identity._replace(systemd=identity.systemd if identity.systemd == below.systemd else None)


def _infer_page_bytes(report: VictimReport) -> int | None:
    """The page size, if the log has the victim's virtual size both in pages and in bytes."""
    if report.task is None or report.total_vm_bytes is None or report.task.total_vm_pages <= 0:
        return None
    page_bytes = report.total_vm_bytes / report.task.total_vm_pages
    return next((size for size in _PAGE_SIZES if 1 / _GREATEST_GROWTH < page_bytes / size < _GREATEST_GROWTH), None)


def _total_pages(report: VictimReport, page_bytes: int | None) -> int | None:
    """The pages that constrained_alloc() counts if nothing constrains: all RAM and all swap."""
    ram, swap = report.ram_pages, report.host_swap_bytes
    if ram is None or swap is None or (swap and page_bytes is None):
        return None
    return _bounded(ram + (swap // page_bytes if page_bytes else 0)) if ram >= 0 else None


def _candidate(task: TaskRow, page_bytes: int | None) -> Candidate:
    return {
        "pid": task.pid,
        "comm": _text(task.comm) or "",
        "points": None,
        "rss_bytes": _pages(task.rss_pages, page_bytes),
        "oom_score_adj": task.oom_score_adj,
    }


def _pages(pages: int | None, page_bytes: int | None) -> int | None:
    return None if pages is None or page_bytes is None else _bounded(pages * page_bytes)


def _scope(report: VictimReport) -> Scope | None:
    if report.order == -1:
        return "sysrq"
    if report.constraint in SCOPES:
        return SCOPES[report.constraint]
    # Before 5.3 a report does not distinguish the host from the nodes of a cpuset or a memory policy.
    return _MESSAGE_SCOPES.get(report.message or b"")


def _limit(report: VictimReport, truncated: list[str]) -> Limit | None:
    path = _path(report.limit_cgroup, "limit.cgroup", truncated)
    if path is None and not report.counters and not report.statistics:
        return None
    memory, both, swap = map(report.counters.get, (b"memory", b"memory+swap", b"swap"))
    swap_usage = _usage(swap)
    if memory is not None and both is not None:
        swap_usage = max(0, both.usage - memory.usage)
    return {
        "cgroup": path,
        "level": "other",
        "usage_bytes": _usage(memory),
        "limit_bytes": _maximum(memory),
        "failcnt": None if memory is None else _bounded(memory.failcnt),
        "swap_usage_bytes": _bounded(swap_usage),
        "swap_limit_bytes": _maximum(swap),
        "memsw_usage_bytes": _usage(both),
        "memsw_limit_bytes": _maximum(both),
        "breakdown": _breakdown(report),
    }


def _breakdown(report: VictimReport) -> Breakdown | None:
    statistics = report.statistics
    if not statistics:
        return None

    def first(*names: bytes) -> int | None:
        for name in names:
            if name in statistics:
                return _bounded(statistics[name])
        return None

    kernel = first(b"kernel")
    return {
        # cgroup v1, except 5.2 to 6.4, has names of its own; those with total_ count the whole tree.
        "anon_bytes": first(b"anon", b"total_rss", b"rss"),
        "file_bytes": first(b"file", b"total_cache", b"cache"),
        "shmem_bytes": first(b"total_shmem", b"shmem"),
        "slab_bytes": first(b"slab"),
        "kernel_bytes": kernel if kernel is not None else _usage(report.counters.get(b"kmem")),
        "sock_bytes": first(b"sock"),
    }


def _trigger(report: VictimReport) -> Trigger | None:
    if report.trigger_comm is None:
        return None
    return {
        "pid": report.trigger_pid,
        "tid": report.trigger_tid,
        "comm": _text(report.trigger_comm) or "",
        "uid": None,
        "cgroup": None,
    }


def _usage(counter: Counter | None) -> int | None:
    return None if counter is None else _bounded(counter.usage)


def _maximum(counter: Counter | None) -> int | None:
    if counter is None:
        return None
    return NO_LIMIT_BYTES if counter.limit >= _LEAST_NO_LIMIT_BYTES else counter.limit


def _path(path: bytes | None, name: str, truncated: list[str]) -> str | None:
    if path is not None and may_be_cut(path):
        truncated.append(name)
    return _text(path)


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode("utf-8", "backslashreplace")


def _bounded(value: int | None) -> int | None:
    """A value that no kernel can count is of a damaged line."""
    return None if value is None or value >> 63 else value
