# SPDX-License-Identifier: Apache-2.0
"""Makes events of the ring buffer: a plain kill by default, with the changes of a test.

``encode`` is the inverse of ``wire.decode``: the bytes that the BPF programs would have sent.
"""

import os
from typing import Any

from tracer.capture import brief, wire
from tracer.pipeline.incidents import JoinedKill

INCIDENT_NS = 5_000_000_000
KILL_NS = INCIDENT_NS + 40_000
NOBODY = 0x7FFFFFFF
"""A pid above pid_max: no process can have it."""


def comm(name: bytes) -> bytes:
    """A comm as in the kernel: 16 bytes, NUL-padded."""
    return name[:15].ljust(16, b"\0")


def path(whole: bytes) -> bytes:
    """``/parent/leaf`` -> ``leaf\\0parent\\0``."""
    return b"".join(name + b"\0" for name in reversed(whole.split(b"/")[1:]) if name)


def header(kind: int, **changes: Any) -> wire.Header:
    return wire.Header(kind, tid=NOBODY - 1, time_ns=KILL_NS, incident_ns=INCIDENT_NS)._replace(**changes)


def counters(**changes: Any) -> wire.MemcgCounters:
    """Counters of a cgroup v2 without limits."""
    return wire.MemcgCounters(
        usage_pages=4096,
        limit_pages=(1 << 51) - 1,
        failcnt=-1,
        swap_usage_pages=0,
        swap_limit_pages=(1 << 51) - 1,
        memsw_usage_pages=-1,
        memsw_limit_pages=-1,
        oom_group=0,
    )._replace(**changes)


def victim(**changes: Any) -> wire.VictimEvent:
    flags = wire.VICTIM_TASK | wire.VICTIM_CMDLINE | wire.VICTIM_EXE | wire.VICTIM_CGROUP | wire.VICTIM_RSS_EXACT
    return wire.VictimEvent(
        header=header(wire.VICTIM),
        started_ns=1_000_000_000,
        init_started_ns=900_000_000,
        network_cookie=4097,
        anon_rss_pages=4000,
        file_rss_pages=90,
        shmem_rss_pages=6,
        swap_pages=0,
        total_vm_pages=25_884,
        peak_rss_pages=4200,
        page_tables_bytes=102_400,
        pid=NOBODY,
        tid=NOBODY,
        ppid=1,
        uid=1000,
        oom_score_adj=0,
        namespace_pid=7,
        namespace_level=1,
        mm_users=1,
        threads=1,
        flags=flags,
        init_pid=NOBODY - 7,
        network_namespace=4026532008,
        ancestors_len=1,
        comm=comm(b"hog"),
        ancestors=(wire.AncestorEntry(NOBODY - 7, comm(b"sh")),),
        cgroup=path(b"/system.slice/hog.service"),
        exe=path(b"/usr/bin/hog"),
        cmdline=b"/usr/bin/hog\0--all\0",
        brief=None,
    )._replace(**changes)


def brief_victim(**changes: Any) -> bytes:
    """A brief event of victim(), in the layout of bpf/event.h; its cgroup's path is in PATHS."""
    names = path(b"/system.slice/hog.service")
    fields = brief.BriefFields(
        started_ns=1_000_000_000,
        total_vm_pages=25_884,
        anon_rss_pages=4000,
        file_rss_pages=90,
        shmem_rss_pages=6,
        swap_pages=0,
        pid=NOBODY,
        tid=NOBODY,
        uid=1000,
        namespace_pid=7,
        flags=wire.VICTIM_TASK | wire.VICTIM_CGROUP | brief.BRIEF_OC | brief.BRIEF_MEMCG,
        path=PATH_AT,
        comm=comm(b"hog"),
        oom_score_adj=0,
        path_len=len(names),
        namespace_level=1,
        limit_level=1,
        constraint=3,
    )
    changed = fields._replace(**{name: value for name, value in changes.items() if name != "header"})
    return wire.HEADER.pack(*changes.get("header", header(brief.BRIEF))) + brief.BRIEF_FIXED.pack(*changed)


def reported(message: int, **changes: Any) -> bytes:
    """An event of the kernel log's line about the last victim."""
    return wire.HEADER.pack(*header(brief.LOG_BRIEF)._replace(**changes)) + brief.LOG_BRIEF_FIXED.pack(message)


def _kept_paths() -> brief.PathStore:
    descriptor = os.memfd_create("paths")
    os.truncate(descriptor, brief.PATHS_BYTES)
    os.pwrite(descriptor, path(b"/system.slice/hog.service"), PATH_AT)
    return brief.PathStore(descriptor)


PATH_AT = 4096
PATHS = _kept_paths()


def candidate(**changes: Any) -> wire.CandidateEntry:
    return wire.CandidateEntry(points=4121, rss_pages=4096, pid=NOBODY, oom_score_adj=0, comm=comm(b"hog"))._replace(
        **changes
    )


def incident(**changes: Any) -> wire.IncidentEvent:
    """An incident by the limit of the victim's cgroup, triggered by the victim."""
    return wire.IncidentEvent(
        header=header(wire.INCIDENT, tid=NOBODY),
        total_pages=4096,
        gfp_mask=0xCC0,
        chosen_points=4121,
        order=0,
        constraint=3,
        chosen_pid=NOBODY,
        scored=1,
        candidates_len=1,
        trigger_pid=NOBODY,
        trigger_uid=1000,
        trigger_comm=comm(b"hog"),
        flags=wire.INCIDENT_OC | wire.INCIDENT_MEMCG | wire.INCIDENT_STAT | wire.INCIDENT_TRIGGER_CGROUP,
        limit=counters(limit_pages=4096),
        stat=wire.MemcgStat(4000, 90, 6, 8192, 3, 0),
        candidates=(candidate(),),
        message=b"Memory cgroup out of memory\0",
        limit_cgroup=path(b"/system.slice/hog.service"),
        trigger_cgroup=path(b"/system.slice/hog.service"),
    )._replace(**changes)


def blind_incident(**changes: Any) -> wire.IncidentEvent:
    """An incident without struct oom_control, as with tracepoints only."""
    return incident(
        total_pages=0,
        gfp_mask=0,
        chosen_points=0,
        constraint=0,
        chosen_pid=0,
        scored=0,
        candidates_len=0,
        flags=wire.INCIDENT_TRIGGER_CGROUP,
        limit=wire.MemcgCounters(*[0] * 8),
        stat=wire.MemcgStat(*[0] * 6),
        candidates=(),
        message=b"",
        limit_cgroup=b"",
    )._replace(**changes)


def shared_mm(pid: int, victim_pid: int = NOBODY, **changes: Any) -> wire.SharedMmEvent:
    return wire.SharedMmEvent(header(wire.SHARED_MM), victim_pid, pid, comm(b"child"))._replace(**changes)


def memcg_chain(*each: wire.MemcgCounters, **changes: Any) -> wire.MemcgChainEvent:
    return wire.MemcgChainEvent(header(wire.MEMCG_CHAIN), each)._replace(**changes)


def log(text: bytes, **changes: Any) -> wire.LogEvent:
    return wire.LogEvent(header(wire.LOG), text)._replace(**changes)


def end() -> wire.EndEvent:
    return wire.EndEvent(header(wire.END))


def sigkill(**changes: Any) -> wire.SigkillEvent:
    """SIGKILL of a container's init by its runtime."""
    return wire.SigkillEvent(
        header(wire.SIGKILL, incident_ns=0),
        pid=NOBODY,
        tid=NOBODY,
        uid=1000,
        namespace_pid=1,
        namespace_level=1,
        flags=wire.SIGKILL_CGROUP | wire.SIGKILL_SENDER_CGROUP,
        sender_pid=NOBODY - 1,
        sender_uid=0,
        comm=comm(b"hog"),
        sender_comm=comm(b"runc"),
        cgroup=path(b"/docker/" + b"ab" * 32),
        sender_cgroup=path(b"/system.slice/docker.service"),
    )._replace(**changes)


def kill(
    of: wire.VictimEvent | None = None,
    by: wire.IncidentEvent | None = None,
    shared_mm: tuple[wire.SharedMmEvent, ...] = (),
) -> JoinedKill:
    """A victim joined to its incident, with all hooks attached."""
    return JoinedKill(of or victim(), by or incident(), 1, shared_mm, (), ())


def encode(event: wire.Event) -> bytes:
    """The event in the layout of bpf/event.h."""
    head = wire.HEADER.pack(*event.header)
    match event:
        case wire.VictimEvent():
            *fields, ancestors, cgroup, exe, cmdline, _ = event[1:]
            strings = (cgroup, exe, cmdline)
            body = wire.VICTIM_FIXED.pack(*fields, *map(len, strings))
            body += b"".join(wire.ANCESTOR.pack(*ancestor) for ancestor in ancestors)
            body += bytes((wire.ANCESTORS_MAX - len(ancestors)) * wire.ANCESTOR.size)
            return head + body + b"".join(strings)
        case wire.CgroupEvent():
            return head + wire.CGROUP_FIXED.pack(len(event.path) + 1) + event.path + b"\0"
        case wire.IncidentEvent():
            *fields, limit, stat, candidates, message, limit_cgroup, trigger_cgroup = event[1:]
            strings = (message, limit_cgroup, trigger_cgroup)
            body = wire.INCIDENT_FIXED.pack(*fields, *map(len, strings))
            body += wire.MEMCG_COUNTERS.pack(*limit) + wire.MEMCG_STAT.pack(*stat)
            body += b"".join(wire.CANDIDATE.pack(*entry) for entry in candidates)
            body += bytes(wire.CANDIDATE.size * (wire.CANDIDATES_MAX - len(candidates)))
            return head + body + b"".join(strings)
        case wire.SharedMmEvent():
            return head + wire.SHARED_MM_FIXED.pack(*event[1:])
        case wire.ExitEvent():
            return head + wire.EXIT_FIXED.pack(*event[1:])
        case wire.KilledAgainEvent():
            return head + wire.KILLED_AGAIN_FIXED.pack(*event[1:])
        case wire.MemcgChainEvent():
            packed = b"".join(wire.MEMCG_COUNTERS.pack(*level) for level in event.memcg_chain)
            return head + wire.MEMCG_CHAIN_FIXED.pack(len(event.memcg_chain)) + packed
        case wire.LogEvent():
            return head + wire.LOG_FIXED.pack(len(event.text)) + event.text
        case wire.EndEvent():
            return head
        case wire.SigkillEvent():
            *fields, cgroup, sender_cgroup = event[1:]
            return head + wire.SIGKILL_FIXED.pack(*fields, len(cgroup), len(sender_cgroup)) + cgroup + sender_cgroup
