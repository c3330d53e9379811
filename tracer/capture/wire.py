# SPDX-License-Identifier: Apache-2.0
"""Decodes events from the ring buffers: the mirror of bpf/event.h.

That header documents names, units and the meaning of -1 and 0; a test compiles it and compares every offset.
"""

import struct
from collections.abc import Callable
from typing import NamedTuple

from tracer.capture.brief import BriefIncident

# The mirror of bpf/event.h, written by `make layout`.
EVENT_LAYOUT = 3
CANDIDATES_MAX = 10
MEMCG_CHAIN_MAX = 16
ANCESTORS_MAX = 8

# enum event_type
VICTIM = 1
INCIDENT = 2
SHARED_MM = 3
EXIT = 4
MEMCG_CHAIN = 5
LOG = 6
END = 7
CGROUP = 8
SIGKILL = 9
KILLED_AGAIN = 12

# enum victim_flags
VICTIM_TASK = 1 << 0
VICTIM_CMDLINE = 1 << 1
VICTIM_EXE = 1 << 2
VICTIM_CGROUP = 1 << 3
VICTIM_CGROUP_TRUNCATED = 1 << 4
VICTIM_EXE_TRUNCATED = 1 << 5
VICTIM_CMDLINE_TRUNCATED = 1 << 6
VICTIM_RSS_EXACT = 1 << 7
VICTIM_GROUP = 1 << 8
VICTIM_FORKED = 1 << 9
VICTIM_MARKED = 1 << 10
VICTIM_HOST_NETWORK = 1 << 11

# enum incident_flags
INCIDENT_OC = 1 << 0
INCIDENT_MEMCG = 1 << 1
INCIDENT_STAT = 1 << 2
INCIDENT_LIMIT_TRUNCATED = 1 << 3
INCIDENT_TRIGGER_TRUNCATED = 1 << 4
INCIDENT_TRIGGER_CGROUP = 1 << 5
INCIDENT_GROUP = 1 << 6

# enum sigkill_flags
SIGKILL_FROM_KERNEL = 1 << 0
SIGKILL_CGROUP = 1 << 1
SIGKILL_CGROUP_TRUNCATED = 1 << 2
SIGKILL_SENDER_CGROUP = 1 << 3
SIGKILL_SENDER_TRUNCATED = 1 << 4
SIGKILL_UNSEEN = 1 << 5

HEADER = struct.Struct("=2I2Q")
ANCESTOR = struct.Struct("=I16s")
VICTIM_FIXED = struct.Struct("=3Q7q4Ii8I16s3H2x")
CANDIDATE = struct.Struct("=2qIi16s")
MEMCG_COUNTERS = struct.Struct("=8q")
MEMCG_STAT = struct.Struct("=6q")
INCIDENT_FIXED = struct.Struct("=2Qq2i5I16sI3H2x")
SHARED_MM_FIXED = struct.Struct("=2I16s")
EXIT_FIXED = struct.Struct("=QI4x")
KILLED_AGAIN_FIXED = struct.Struct("=I4x")
MEMCG_CHAIN_FIXED = struct.Struct("=I4x")
CGROUP_FIXED = struct.Struct("=I")
SIGKILL_FIXED = struct.Struct("=8I16s16s2H")
LOG_FIXED = struct.Struct("=I")


class Header(NamedTuple):
    """struct event."""

    type: int
    tid: int
    time_ns: int
    incident_ns: int


class AncestorEntry(NamedTuple):
    """struct ancestor."""

    pid: int
    comm: bytes


class VictimEvent(NamedTuple):
    """struct victim_event."""

    header: Header
    started_ns: int
    init_started_ns: int
    network_cookie: int
    anon_rss_pages: int
    file_rss_pages: int
    shmem_rss_pages: int
    swap_pages: int
    total_vm_pages: int
    peak_rss_pages: int
    page_tables_bytes: int
    pid: int
    tid: int
    ppid: int
    uid: int
    oom_score_adj: int
    namespace_pid: int
    namespace_level: int
    mm_users: int
    threads: int
    flags: int
    init_pid: int
    network_namespace: int
    ancestors_len: int
    comm: bytes
    ancestors: tuple[AncestorEntry, ...]
    cgroup: bytes
    exe: bytes
    cmdline: bytes
    brief: BriefIncident | None


class CandidateEntry(NamedTuple):
    """struct candidate."""

    points: int
    rss_pages: int
    pid: int
    oom_score_adj: int
    comm: bytes


class MemcgCounters(NamedTuple):
    """struct memcg_counters."""

    usage_pages: int
    limit_pages: int
    failcnt: int
    swap_usage_pages: int
    swap_limit_pages: int
    memsw_usage_pages: int
    memsw_limit_pages: int
    oom_group: int


class MemcgStat(NamedTuple):
    """struct memcg_stat."""

    anon_pages: int
    file_pages: int
    shmem_pages: int
    slab_bytes: int
    kernel_pages: int
    sock_pages: int


class IncidentEvent(NamedTuple):
    """struct incident_event."""

    header: Header
    total_pages: int
    gfp_mask: int
    chosen_points: int
    order: int
    constraint: int
    chosen_pid: int
    scored: int
    candidates_len: int
    trigger_pid: int
    trigger_uid: int
    trigger_comm: bytes
    flags: int
    limit: MemcgCounters
    stat: MemcgStat
    candidates: tuple[CandidateEntry, ...]
    message: bytes
    limit_cgroup: bytes
    trigger_cgroup: bytes


class SharedMmEvent(NamedTuple):
    """struct shared_mm_event."""

    header: Header
    victim_pid: int
    pid: int
    comm: bytes


class ExitEvent(NamedTuple):
    """struct exit_event."""

    header: Header
    killed_ns: int
    pid: int


class KilledAgainEvent(NamedTuple):
    """struct killed_again_event."""

    header: Header
    tid: int


class MemcgChainEvent(NamedTuple):
    """struct memcg_chain_event."""

    header: Header
    memcg_chain: tuple[MemcgCounters, ...]


class CgroupEvent(NamedTuple):
    """struct cgroup_event."""

    header: Header
    path: bytes


class SigkillEvent(NamedTuple):
    """struct sigkill_event."""

    header: Header
    pid: int
    tid: int
    uid: int
    namespace_pid: int
    namespace_level: int
    flags: int
    sender_pid: int
    sender_uid: int
    comm: bytes
    sender_comm: bytes
    cgroup: bytes
    sender_cgroup: bytes


class LogEvent(NamedTuple):
    """struct log_event."""

    header: Header
    text: bytes


# The end of what `make layout` writes.


class EndEvent(NamedTuple):
    header: Header


Event = (
    VictimEvent | IncidentEvent | SharedMmEvent | ExitEvent | MemcgChainEvent | LogEvent | EndEvent | CgroupEvent
    | SigkillEvent | KilledAgainEvent
)  # fmt: skip


class DecodeError(ValueError):
    """An event that does not match bpf/event.h."""


def decode_event(data: bytes) -> Event:
    """Decode one event.

    Raises DecodeError if the type is unknown or the event is too short.
    """
    try:
        header = Header(*HEADER.unpack_from(data))
        return _DECODERS[header.type](header, memoryview(data)[HEADER.size :])
    except (struct.error, KeyError) as error:
        raise DecodeError(f"{len(data)} bytes: {error}") from error


def join_path(names: bytes) -> str:
    """``leaf\\0parent\\0`` -> ``/parent/leaf``."""
    return join_path_bytes(names).decode("utf-8", "backslashreplace")


def join_path_bytes(names: bytes) -> bytes:
    return b"/" + b"/".join(reversed(names.split(b"\0")[:-1]))


def decode_text(raw: bytes) -> str:
    """Untrusted bytes up to the first NUL, as a string that JSON can hold."""
    return raw.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")


def _strings(data: memoryview, at: int, *lengths: int) -> list[bytes]:
    found = []
    for length in lengths:
        if at + length > len(data):
            raise struct.error(f"string out of range: {length} bytes at {at}")
        found.append(bytes(data[at : at + length]))
        at += length
    return found


def _victim(header: Header, data: memoryview) -> VictimEvent:
    *fields, cgroup_len, exe_len, cmdline_len = VICTIM_FIXED.unpack_from(data)
    at = VICTIM_FIXED.size
    ancestors = tuple(AncestorEntry(*ANCESTOR.unpack_from(data, at + i * ANCESTOR.size)) for i in range(ANCESTORS_MAX))
    at += ANCESTORS_MAX * ANCESTOR.size
    strings = _strings(data, at, cgroup_len, exe_len, cmdline_len)
    event = VictimEvent._make((header, *fields, ancestors, *strings, None))
    return event._replace(ancestors=ancestors[: event.ancestors_len])


def _incident(header: Header, data: memoryview) -> IncidentEvent:
    *fields, message_len, limit_len, trigger_len = INCIDENT_FIXED.unpack_from(data)
    at = INCIDENT_FIXED.size
    limit = MemcgCounters(*MEMCG_COUNTERS.unpack_from(data, at))
    at += MEMCG_COUNTERS.size
    stat = MemcgStat(*MEMCG_STAT.unpack_from(data, at))
    at += MEMCG_STAT.size
    candidates = tuple(
        CandidateEntry(*CANDIDATE.unpack_from(data, at + i * CANDIDATE.size)) for i in range(CANDIDATES_MAX)
    )
    at += CANDIDATES_MAX * CANDIDATE.size
    strings = _strings(data, at, message_len, limit_len, trigger_len)
    event = IncidentEvent._make((header, *fields, limit, stat, candidates, *strings))
    return event._replace(candidates=candidates[: event.candidates_len])


def _shared_mm(header: Header, data: memoryview) -> SharedMmEvent:
    return SharedMmEvent(header, *SHARED_MM_FIXED.unpack_from(data))


def _memcg_chain(header: Header, data: memoryview) -> MemcgChainEvent:
    (count,) = MEMCG_CHAIN_FIXED.unpack_from(data)
    at = MEMCG_CHAIN_FIXED.size
    chain = (
        MemcgCounters(*MEMCG_COUNTERS.unpack_from(data, at + i * MEMCG_COUNTERS.size))
        for i in range(min(count, MEMCG_CHAIN_MAX))
    )
    return MemcgChainEvent(header, tuple(chain))


def _log(header: Header, data: memoryview) -> LogEvent:
    (length,) = LOG_FIXED.unpack_from(data)
    return LogEvent(header, *_strings(data, LOG_FIXED.size, length))


def _cgroup(header: Header, data: memoryview) -> CgroupEvent:
    (length,) = CGROUP_FIXED.unpack_from(data)
    (path,) = _strings(data, CGROUP_FIXED.size, length)
    return CgroupEvent(header, path.rstrip(b"\0"))


def _sigkill(header: Header, data: memoryview) -> SigkillEvent:
    *fields, cgroup_len, sender_cgroup_len = SIGKILL_FIXED.unpack_from(data)
    strings = _strings(data, SIGKILL_FIXED.size, cgroup_len, sender_cgroup_len)
    return SigkillEvent._make((header, *fields, *strings))


_DECODERS: dict[int, Callable[[Header, memoryview], Event]] = {
    VICTIM: _victim,
    INCIDENT: _incident,
    SHARED_MM: _shared_mm,
    EXIT: lambda header, data: ExitEvent(header, *EXIT_FIXED.unpack_from(data)),
    MEMCG_CHAIN: _memcg_chain,
    LOG: _log,
    CGROUP: _cgroup,
    SIGKILL: _sigkill,
    KILLED_AGAIN: lambda header, data: KilledAgainEvent(header, *KILLED_AGAIN_FIXED.unpack_from(data)),
    END: lambda header, _data: EndEvent(header),
}
