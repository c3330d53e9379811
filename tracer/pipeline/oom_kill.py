# SPDX-License-Identifier: Apache-2.0
"""Builds the oom_kill record of a joined kill: units, names, and null for unknown values.

Container, pod and unit are null here; tracer/pipeline/enrichment.py adds them.
"""

import mmap

from tracer.base.clock import boottime_ns, boottime_to_rfc3339
from tracer.capture import wire
from tracer.linux.gfp_flags import GfpNames
from tracer.pipeline import oom_kill_brief
from tracer.pipeline.console_report import ConsoleReport, parse_console_report
from tracer.pipeline.incidents import JoinedKill
from tracer.records.model import (
    HOST_PLACEHOLDER,
    NO_LIMIT_BYTES,
    SCHEMA,
    Breakdown,
    Candidate,
    Incident,
    Limit,
    OomExit,
    OomKill,
    Scope,
    SharedMmProcess,
    Source,
    Trigger,
    Victim,
)
from tracer.records.owner import Network

PAGE = mmap.PAGESIZE
PAGE_COUNTER_MAX = (1 << 63) // PAGE - 1
"""A memory cgroup's limit in pages if it has none (LONG_MAX / PAGE_SIZE)."""
CONSTRAINT_SCOPES: dict[int, Scope] = {0: "host", 1: "cpuset", 2: "mempolicy"}
"""enum oom_constraint."""
NOT_COUNTED = wire.MemcgCounters(*[-1] * len(wire.MemcgCounters._fields))
DELAYED_NS = 5_000_000_000
"""A busy host takes a second for an incident; an event this old has waited for a run of oomtrace."""


class RecordBuilder:
    """Builds records.  ``boot`` names this boot in ids; ``scores``: the programs see the scoring of candidates."""

    def __init__(self, source: Source, boot: str, gfp: GfpNames, scores: bool) -> None:
        self._source = source
        self._boot = boot
        self._gfp = gfp
        self._scores = scores

    def kill_id(self, incident_ns: int, pid: int) -> str:
        """The id of a kill in all records."""
        return f"{self._incident_id(incident_ns)}-{pid}"

    def _incident_id(self, incident_ns: int) -> str:
        return f"{self._boot}-{incident_ns:x}"

    def oom_kill(self, kill: JoinedKill) -> OomKill:
        """The record of one victim, without seq and host, which the stream adds."""
        victim, event = kill.victim, kill.incident
        cgroup = wire.join_path(victim.cgroup) if victim.flags & wire.VICTIM_CGROUP else None
        report = parse_console_report(kill.log, wire.join_path_bytes(victim.cgroup))
        truncated: list[str] = []
        seen = event is not None and event.flags & wire.INCIDENT_OC
        if seen and event is not None:
            incident = self._incident(event)
            limit = _limit(event, truncated)
        elif victim.brief is not None:
            incident = oom_kill_brief.brief_incident(victim, victim.brief, report)
            limit_cgroup = oom_kill_brief.brief_limit_cgroup(victim.brief, report, cgroup)
            limit = _limit_of(limit_cgroup, NOT_COUNTED, None) if limit_cgroup else None
        else:
            # The depth of a path without its leaf end is unknown.
            whole = None if victim.flags & wire.VICTIM_CGROUP_TRUNCATED else cgroup
            depth = _limit_depth(report, kill.memcg_chain, whole)
            incident = _reported_incident(report, kill, depth)
            limit = _reported_limit(kill.memcg_chain, whole, depth)
        incident["id"] = self._incident_id(victim.header.incident_ns)
        incident["victims"] = kill.victims
        chosen = seen and event is not None and event.chosen_pid == victim.pid and bool(event.chosen_points)
        # Points without a candidate: the compiler has inlined oom_badness(), so its hook never fires.
        # Without scoring (oom_kill_allocating_task) there are no points either.
        scored = seen and self._scores and event is not None and (event.scored or not event.chosen_points)
        return {
            "schema": SCHEMA,
            "type": "oom_kill",
            "id": self.kill_id(victim.header.incident_ns, victim.pid or victim.tid),
            "time": boottime_to_rfc3339(victim.header.time_ns),
            "seq": 0,
            "host": HOST_PLACEHOLDER,
            "source": self._source,
            "delayed": boottime_ns() - victim.header.time_ns > DELAYED_NS,
            "reduced": victim.brief is not None,
            "incident": incident,
            "limit": limit,
            "victim": _victim(kill, cgroup, event.chosen_points if chosen and event else None, truncated),
            "trigger": _trigger(event, truncated),
            "candidates": _candidates(event) if scored and event else None,
            "candidates_scored": event.scored if scored and event else None,
            "container": None,
            "kubernetes": None,
            "systemd": None,
            "owner": None,
            "network": _network(victim) if victim.flags & wire.VICTIM_TASK and victim.brief is None else None,
            "truncated": truncated,
        }

    def oom_exit(self, event: wire.ExitEvent) -> OomExit:
        """The record of a victim's exit, without seq and host."""
        return {
            "schema": SCHEMA,
            "type": "oom_exit",
            "id": self.kill_id(event.header.incident_ns, event.pid),
            "time": boottime_to_rfc3339(event.header.time_ns),
            "seq": 0,
            "host": HOST_PLACEHOLDER,
            "incident_id": self._incident_id(event.header.incident_ns),
            "pid": event.pid,
            "after_ns": max(0, event.header.time_ns - event.killed_ns),  # the signal comes before the mark
            "container_init_died": None,
            "runtime_verdict": None,
        }

    def _incident(self, event: wire.IncidentEvent) -> Incident:
        scope: Scope | None
        if event.flags & wire.INCIDENT_MEMCG:
            # oc->constraint was not set in 5.0-5.2 (fixed by "mm/oom_kill.c: fix uninitialized oc->constraint")
            scope = "memcg"
        elif event.order == -1:
            scope = "sysrq"
        else:
            scope = CONSTRAINT_SCOPES.get(event.constraint)
        return {
            "id": "",
            "scope": scope,
            "group_kill": bool(event.flags & wire.INCIDENT_GROUP),
            "victims": None,
            "gfp_mask": event.gfp_mask,
            "gfp_flags": self._gfp.spell(event.gfp_mask),
            "order": event.order,
            "total_pages": event.total_pages,
            "message": wire.decode_text(event.message) or None,
        }


def _reported_incident(report: ConsoleReport, kill: JoinedKill, depth: int | None) -> Incident:
    group_kill = None
    if depth is not None or report.scope not in (None, "memcg"):
        group_kill = any(level.oom_group > 0 for level in kill.memcg_chain[: None if depth is None else depth + 1])
    elif kill.memcg_chain and not any(level.oom_group > 0 for level in kill.memcg_chain):
        group_kill = False
    return {
        "id": "",
        "scope": report.scope,
        "group_kill": group_kill,
        "victims": None,
        "gfp_mask": report.gfp_mask,
        "gfp_flags": report.gfp_flags,
        "order": report.order,
        "total_pages": None,
        "message": report.message,
    }


def _limit(event: wire.IncidentEvent, truncated: list[str]) -> Limit | None:
    if not event.flags & wire.INCIDENT_MEMCG:
        return None
    if event.flags & wire.INCIDENT_LIMIT_TRUNCATED:
        truncated.append("limit.cgroup")
    breakdown = _breakdown(event.stat) if event.flags & wire.INCIDENT_STAT else None
    is_known = event.limit_cgroup or not event.flags & wire.INCIDENT_LIMIT_TRUNCATED
    return _limit_of(wire.join_path(event.limit_cgroup) if is_known else None, event.limit, breakdown)


def _limit_depth(report: ConsoleReport, memcg_chain: tuple[wire.MemcgCounters, ...], cgroup: str | None) -> int | None:
    """How many levels above the victim's cgroup the limit is: as in the kernel log, or the only limit there is."""
    if report.scope != "memcg" or cgroup is None or not memcg_chain:
        return None
    names = cgroup.split("/")[1:]
    if report.limit_cgroup is not None:
        depth = len(names) - len(report.limit_cgroup.strip("/").split("/"))
        return depth if 0 <= depth < len(memcg_chain) else None
    limited = [depth for depth, level in enumerate(memcg_chain) if _is_limited(level)]
    return limited[0] if len(limited) == 1 and len(names) == len(memcg_chain) else None


def _reported_limit(memcg_chain: tuple[wire.MemcgCounters, ...], cgroup: str | None, depth: int | None) -> Limit | None:
    if depth is None or cgroup is None:
        return None
    names = cgroup.split("/")[1:]
    return _limit_of("/" + "/".join(names[: len(names) - depth]), memcg_chain[depth], None)


def _is_limited(counters: wire.MemcgCounters) -> bool:
    return min(counters.limit_pages, _value_or(counters.memsw_limit_pages, PAGE_COUNTER_MAX)) < PAGE_COUNTER_MAX


def _value_or(value: int, otherwise: int) -> int:
    return otherwise if value < 0 else value


def _limit_of(cgroup: str | None, counters: wire.MemcgCounters, breakdown: Breakdown | None) -> Limit:
    swap_usage = counters.swap_usage_pages
    if counters.memsw_usage_pages >= 0:  # v1 counts memory and swap together
        swap_usage = max(0, counters.memsw_usage_pages - counters.usage_pages)
    return {
        "cgroup": cgroup,
        "level": "other",
        "usage_bytes": _pages(counters.usage_pages),
        "limit_bytes": _limit_pages(counters.limit_pages),
        "failcnt": _or_none(counters.failcnt),
        "swap_usage_bytes": _pages(swap_usage),
        "swap_limit_bytes": _limit_pages(counters.swap_limit_pages),
        "memsw_usage_bytes": _pages(counters.memsw_usage_pages),
        "memsw_limit_bytes": _limit_pages(counters.memsw_limit_pages),
        "breakdown": breakdown,
    }


def _breakdown(stat: wire.MemcgStat) -> Breakdown:
    return {
        "anon_bytes": _pages(stat.anon_pages),
        "file_bytes": _pages(stat.file_pages),
        "shmem_bytes": _pages(stat.shmem_pages),
        "slab_bytes": _or_none(stat.slab_bytes),
        "kernel_bytes": _pages(stat.kernel_pages),
        "sock_bytes": _pages(stat.sock_pages),
    }


def _victim(kill: JoinedKill, cgroup: str | None, points: int | None, truncated: list[str]) -> Victim:
    event = kill.victim
    known = bool(event.flags & wire.VICTIM_TASK)
    whole = known and event.brief is None
    for flag, name in (
        (wire.VICTIM_CGROUP_TRUNCATED, "victim.cgroup"),
        (wire.VICTIM_EXE_TRUNCATED, "victim.exe"),
        (wire.VICTIM_CMDLINE_TRUNCATED | wire.VICTIM_CMDLINE, "victim.cmdline"),
    ):
        if event.flags & flag == flag:
            truncated.append(name)
    resident = (event.anon_rss_pages, event.file_rss_pages, event.shmem_rss_pages)
    rss_bytes = _pages(sum(resident)) if min(resident) >= 0 else None
    peak_rss_bytes = _pages(event.peak_rss_pages)
    if peak_rss_bytes is not None and rss_bytes is not None:
        peak_rss_bytes = max(peak_rss_bytes, rss_bytes)  # the kernel updates the peak only when memory is freed
    shared_mm: list[SharedMmProcess] = [
        {"pid": process.pid, "comm": wire.decode_text(process.comm)} for process in kill.shared_mm
    ]
    return {
        "pid": event.pid if known else None,
        "tid": event.tid,
        "ppid": event.ppid if whole else None,
        "comm": wire.decode_text(event.comm) if known else None,
        "cmdline": _cmdline(event.cmdline) if event.flags & wire.VICTIM_CMDLINE else None,
        "exe": (wire.join_path(event.exe) if event.exe else None) if event.flags & wire.VICTIM_EXE else None,
        "uid": event.uid if known else None,
        "namespace_pid": event.namespace_pid if known else None,
        "is_container_init": event.namespace_level > 0 and event.namespace_pid == 1 if known else None,
        "started_at": boottime_to_rfc3339(event.started_ns) if known else None,
        "oom_score_adj": event.oom_score_adj if known else None,
        "points": points,
        "rss_bytes": rss_bytes,
        "anon_rss_bytes": _pages(event.anon_rss_pages),
        "file_rss_bytes": _pages(event.file_rss_pages),
        "shmem_rss_bytes": _pages(event.shmem_rss_pages),
        "swap_bytes": _pages(event.swap_pages),
        "total_vm_bytes": _pages(event.total_vm_pages),
        "page_tables_bytes": _or_none(event.page_tables_bytes),
        "peak_rss_bytes": peak_rss_bytes,
        "cgroup": cgroup,
        "ancestors": [{"pid": each.pid, "comm": wire.decode_text(each.comm)} for each in event.ancestors]
        if whole
        else None,
        "shared_mm": shared_mm if whole else None,
    }


def _network(event: wire.VictimEvent) -> Network:
    inode = event.network_namespace or None
    is_host = bool(event.flags & wire.VICTIM_HOST_NETWORK)
    return {"namespace_inode": inode, "host_network": is_host if inode else None, "interfaces": None}


def _cmdline(raw: bytes) -> list[str]:
    arguments = raw.split(b"\0")
    if arguments[-1] == b"":
        arguments.pop()
    return [wire.decode_text(argument) for argument in arguments]


def _trigger(event: wire.IncidentEvent | None, truncated: list[str]) -> Trigger | None:
    if event is None:
        return None
    if event.flags & wire.INCIDENT_TRIGGER_TRUNCATED:
        truncated.append("trigger.cgroup")
    known = event.flags & wire.INCIDENT_TRIGGER_CGROUP
    return {
        "pid": event.trigger_pid,
        "tid": event.header.tid,
        "comm": wire.decode_text(event.trigger_comm),
        "uid": event.trigger_uid,
        "cgroup": wire.join_path(event.trigger_cgroup) if known else None,
    }


def _candidates(event: wire.IncidentEvent) -> list[Candidate]:
    ranked = sorted(event.candidates, key=lambda entry: (-entry.points, entry.pid != event.chosen_pid))
    return [
        {
            "pid": entry.pid,
            "comm": wire.decode_text(entry.comm),
            "points": entry.points,
            "rss_bytes": _pages(entry.rss_pages),
            "oom_score_adj": entry.oom_score_adj,
        }
        for entry in ranked
    ]


def _or_none(value: int) -> int | None:
    return None if value < 0 else value


def _pages(pages: int) -> int | None:
    return None if not 0 <= pages < PAGE_COUNTER_MAX else pages * PAGE


def _limit_pages(pages: int) -> int | None:
    return NO_LIMIT_BYTES if pages >= PAGE_COUNTER_MAX else _pages(pages)
