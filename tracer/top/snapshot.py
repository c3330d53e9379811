# SPDX-License-Identifier: Apache-2.0
"""Snapshots of all processes, with limits, owners and the next OOM victims, for ``oomtrace top``."""

import os
import pwd
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple, TypedDict

from tracer.base.clock import boottime_ns, boottime_to_rfc3339
from tracer.identity import cgroup_path, enrich
from tracer.identity.runtimes import Runtimes
from tracer.linux.cgroupfs import escape_path
from tracer.reading.processes import Process
from tracer.records.matching import OwnerFilter
from tracer.records.model import Level
from tracer.records.owner import Container, Kubernetes, Owner, Systemd, owner_of
from tracer.redaction.cmdline import Redactor
from tracer.top.badness import badness, next_choice
from tracer.top.memcg import Memcg, MemcgLimits

HOST = "host"
"""Stands for an OOM of the whole host in a list of cgroup paths, which all begin with a slash."""

Sort = Literal["rss", "mem", "vsz", "cpu", "oom"]


class HostMemory(NamedTuple):
    """The host's memory, from /proc/meminfo."""

    total_bytes: int
    available_bytes: int
    swap_bytes: int

    @property
    def total_pages(self) -> int:
        """RAM and swap, as in constrained_alloc() in mm/oom_kill.c."""
        return (self.total_bytes + self.swap_bytes) // os.sysconf("SC_PAGE_SIZE")


class ProcessEntry(NamedTuple):
    """One process."""

    process: Process
    user: str
    cpu_percent: float
    """CPU time per lifetime, in percent of one CPU, as in ps."""
    memory_percent: float
    limit: Memcg | None
    """The memory cgroup above it with the least free memory."""
    next_of: tuple[str, ...]
    """Cgroups with a limit (HOST: the host) in which the kernel would kill this process first."""
    identity: enrich.ResolvedIdentity
    cmdline: list[str]
    """Redacted."""


class LimitJson(TypedDict):
    cgroup: str
    level: Level
    limit_bytes: int
    usage_bytes: int
    free_bytes: int


class ProcessJson(TypedDict):
    pid: int
    ppid: int
    uid: int
    user: str
    comm: str
    cmdline: list[str]
    state: str
    tty: str | None
    started_at: str
    cpu_time_ns: int
    cpu_percent: float
    memory_percent: float
    total_vm_bytes: int
    rss_bytes: int
    swap_bytes: int
    page_tables_bytes: int
    oom_score: int | None
    oom_score_adj: int | None
    points: int | None
    next_choice_of: list[str]
    cgroup: str | None
    limit: LimitJson | None
    container: Container | None
    kubernetes: Kubernetes | None
    systemd: Systemd | None
    owner: Owner | None


class TopJson(TypedDict):
    memory_total_bytes: int
    memory_available_bytes: int
    swap_total_bytes: int
    processes: list[ProcessJson]
    unread: list[str]
    """Runtime directories that could not be read, each with the consequence."""


class Snapshots:
    """Takes snapshots of the host."""

    def __init__(self, runtimes: Runtimes, read_processes: Callable[[], Iterable[Process]]) -> None:
        self._runtimes = runtimes
        self._read_processes = read_processes
        self._redactor = Redactor()
        self._identities: dict[str, enrich.ResolvedIdentity] = {}
        self._users: dict[int, str] = {}

    def take(self) -> tuple[HostMemory, list[ProcessEntry]]:
        """The host's memory and all processes."""
        host = read_host_memory()
        now_ns = boottime_ns()
        self._runtimes.unread.clear()
        memcgs = MemcgLimits(host.swap_bytes)
        found = list(self._read_processes())
        chosen = next_choices(found, memcgs, host)
        self._drop_cached({each.cgroup for each in found})
        return host, [self._entry(each, host, now_ns, memcgs, tuple(chosen.get(each.pid, ()))) for each in found]

    @property
    def unread(self) -> list[str]:
        """Runtime directories that could not be read in the last snapshot, each with the consequence."""
        return list(self._runtimes.unread.values())

    def _entry(
        self, each: Process, host: HostMemory, now_ns: int, memcgs: MemcgLimits, next_of: tuple[str, ...]
    ) -> ProcessEntry:
        return ProcessEntry(
            each,
            self._user_name(each.uid),
            100 * each.cpu_ns / max(1, now_ns - each.start_ns),
            100 * each.rss_bytes / max(1, host.total_bytes),
            None if each.cgroup is None else memcgs.tightest(each.cgroup),
            next_of,
            self._identity(each.cgroup),
            self._redactor.redact(list(each.cmdline)),
        )

    def _user_name(self, uid: int) -> str:
        if uid not in self._users:
            try:
                self._users[uid] = pwd.getpwuid(uid).pw_name
            except (KeyError, OSError):
                self._users[uid] = str(uid)
        return self._users[uid]

    def _identity(self, path: str | None) -> enrich.ResolvedIdentity:
        if path is None:
            return enrich.ResolvedIdentity(None, None, None, None, False)
        if path not in self._identities:
            identity = enrich.resolve_cgroup(escape_path(path), self._runtimes.fetch_metadata)
            container = owner_of(identity._asdict()).container
            if container is not None and container["name"] is None:
                return identity  # its name may be known in the next snapshot
            self._identities[path] = identity
        return self._identities[path]

    def _drop_cached(self, paths: set[str | None]) -> None:
        for path in self._identities.keys() - paths:
            del self._identities[path]


def next_choices(found: list[Process], memcgs: MemcgLimits, host: HostMemory) -> dict[int, list[str]]:
    """Pid -> the cgroups in which it is the next victim, innermost first, HOST last."""
    members: dict[str, list[Process]] = {}
    limits: dict[str, Memcg] = {}
    for each in found:
        for memcg in () if each.cgroup is None else memcgs.limits(each.cgroup):
            members.setdefault(memcg.cgroup, []).append(each)
            limits[memcg.cgroup] = memcg
    chosen: dict[int, list[str]] = {}
    for path in sorted(members, key=lambda path: (-path.count("/"), path)):
        choice = next_choice(members[path], limits[path].total_pages)
        if choice is not None:
            chosen.setdefault(choice.pid, []).append(escape_path(path))
    choice = next_choice(found, host.total_pages)
    if choice is not None:
        chosen.setdefault(choice.pid, []).append(HOST)
    return chosen


def select_entries(entries: list[ProcessEntry], sort: Sort, owner: OwnerFilter) -> list[ProcessEntry]:
    """The entries that pass the filter, those with the highest sort key first."""
    keys: dict[Sort, Callable[[ProcessEntry], float]] = {
        "rss": lambda entry: entry.process.rss_bytes,
        "mem": lambda entry: entry.process.rss_bytes,
        "vsz": lambda entry: entry.process.total_vm_bytes,
        "cpu": lambda entry: entry.cpu_percent,
        "oom": lambda entry: entry.process.oom_score or 0,
    }
    kept = [entry for entry in entries if owner.matches(entry.identity._asdict(), _cgroup(entry.process))]
    return sorted(kept, key=lambda entry: (-keys[sort](entry), entry.process.pid))


def _cgroup(process: Process) -> str | None:
    """The path of its cgroup, as in records."""
    return None if process.cgroup is None else escape_path(process.cgroup)


def _process_json(entry: ProcessEntry, host: HostMemory) -> ProcessJson:
    """The points are relative to the tightest limit or, without one, to the host's memory."""
    process, limit, identity = entry.process, entry.limit, entry.identity
    return {
        "pid": process.pid,
        "ppid": process.ppid,
        "uid": process.uid,
        "user": entry.user,
        "comm": process.comm,
        "cmdline": entry.cmdline,
        "state": process.state,
        "tty": process.tty,
        "started_at": boottime_to_rfc3339(process.start_ns),
        "cpu_time_ns": process.cpu_ns,
        "cpu_percent": round(entry.cpu_percent, 1),
        "memory_percent": round(entry.memory_percent, 1),
        "total_vm_bytes": process.total_vm_bytes,
        "rss_bytes": process.rss_bytes,
        "swap_bytes": process.swap_bytes,
        "page_tables_bytes": process.page_tables_bytes,
        "oom_score": process.oom_score,
        "oom_score_adj": process.oom_score_adj,
        "points": badness(process, limit.total_pages if limit is not None else host.total_pages),
        "next_choice_of": list(entry.next_of),
        "cgroup": _cgroup(process),
        "limit": None if limit is None else _limit_json(limit),
        "container": identity.container,
        "kubernetes": identity.kubernetes,
        "systemd": identity.systemd,
        "owner": identity.owner,
    }


def snapshot_json(host: HostMemory, entries: list[ProcessEntry], unread: list[str]) -> TopJson:
    """The output of ``--json``."""
    return {
        "memory_total_bytes": host.total_bytes,
        "memory_available_bytes": host.available_bytes,
        "swap_total_bytes": host.swap_bytes,
        "processes": [_process_json(entry, host) for entry in entries],
        "unread": unread,
    }


def _limit_json(limit: Memcg) -> LimitJson:
    path = escape_path(limit.cgroup)
    return {
        "cgroup": path,
        "level": cgroup_path.classify_cgroup(path),
        "limit_bytes": limit.limit_bytes,
        "usage_bytes": limit.usage_bytes,
        "free_bytes": limit.free_bytes,
    }


def read_host_memory() -> HostMemory:
    with open("/proc/meminfo", encoding="ascii") as file:
        lines = dict(line.split(":", 1) for line in file)
    total, available, swap = (
        int(lines.get(name, "0").split()[0]) << 10 for name in ("MemTotal", "MemAvailable", "SwapTotal")
    )
    return HostMemory(total, available, swap)
