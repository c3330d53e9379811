# SPDX-License-Identifier: Apache-2.0
"""The ring buffer of the OOM killer's kills, and the one that holds their essentials while that is full, read as one.

The kernel runs one OOM killer at a time (oom_lock), so what is sent to one of them is there before the next kill is
sent to the other: merged by time they tell the kills in their order.
"""

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tracer.capture import brief, wire
from tracer.capture.programs import open_ring
from tracer.capture.ringbuf import Ring
from tracer.capture.ringbuf_retention import Backlog, Place

Where = TypeVar("Where", Place, int)
EVENTS_MAX = 512
"""Read at once of each: what was made of these is let go of before the next ones are read."""


class KillRings:
    """Of one capture; raises OSError where a map is not what it should be.

    A capture of an older version has the first ring buffer only.
    """

    def __init__(self, maps: dict[str, int]) -> None:
        self._whole = open_ring(maps["events"])
        self._briefs = open_ring(maps["briefs"]) if "briefs" in maps else None
        self._paths = brief.PathStore(maps["paths"]) if "paths" in maps else None
        self._rings = [(ring, Backlog(ring.end)) for ring in (self._whole, self._briefs) if ring is not None]
        self.backlogs = tuple(backlog for _, backlog in self._rings)
        """What is in these must outlive the daemon."""

    def events(
        self, lose: Callable[[str, Exception], None], between: Callable[[], None] = lambda: None
    ) -> Iterator[tuple[wire.Event, Place]]:
        """What is there now, with its places; ``between`` is called where there is more than is read at once.

        ``lose`` is told of what is malformed.
        """
        end = sum(ring.end for ring, _ in self._rings)  # a storm must not keep the caller from all else
        while sum(ring.position for ring, _ in self._rings) < end and (found := self.read()):
            yield from decoded(found, self.decode, lose)
            if sum(ring.position for ring, _ in self._rings) < end:
                between()

    def read(self) -> list[tuple[bytes, Place]]:
        """The next events in the order of time, with their places; none: all has been read for now."""
        whole = self._whole.read(EVENTS_MAX)
        briefs = self._briefs.read(EVENTS_MAX) if self._briefs else []
        if not briefs:
            return [(data, Place(self.backlogs[0], position)) for position, data in whole]
        whole += self._whole.read(EVENTS_MAX)  # read last: what came before the last of the briefs is there by now
        return self._merge(whole, briefs, whole_has_more=self._whole.position < self._whole.end)

    def _merge(
        self, whole: list[tuple[int, bytes]], briefs: list[tuple[int, bytes]], *, whole_has_more: bool
    ) -> list[tuple[bytes, Place]]:
        """Those before which nothing can come that was not read; the others are left to be read again."""
        merged: list[tuple[bytes, Place]] = []
        i = j = 0
        while j < len(briefs) and (i < len(whole) or not whole_has_more):
            if i < len(whole) and _moment(whole[i][1]) <= _moment(briefs[j][1]):
                merged.append((whole[i][1], Place(self.backlogs[0], whole[i][0])))
                i += 1
            else:
                merged.append((briefs[j][1], Place(self.backlogs[1], briefs[j][0])))
                j += 1
        if i < len(whole):
            self._whole.position = whole[i][0]
        if self._briefs and j < len(briefs):
            self._briefs.position = briefs[j][0]
        return merged

    def decode(self, data: bytes) -> wire.Event:
        """One event; to be called before what comes after it is let go of.

        Raises wire.DecodeError where it is unknown or does not fit.
        """
        return decode(data, self._paths)

    def release(self, incident_is_open: bool, is_noted: bool) -> None:
        """Let the kernel have back the room of what is done with, if ``is_noted``: the ledger knows of all kills."""
        for ring, backlog in self._rings:
            release(ring, backlog, backlog.first_needed(ring.position, incident_is_open) if is_noted else 0)


def decode(data: bytes, paths: brief.PathStore | None) -> wire.Event:
    """An event of either ring buffer.

    Raises wire.DecodeError where it is unknown or does not fit.
    """
    try:
        header = wire.Header(*wire.HEADER.unpack_from(data))
        if header.type == brief.BRIEF:
            return _victim(header, brief.BriefFields(*brief.BRIEF_FIXED.unpack_from(data, wire.HEADER.size)), paths)
        if header.type == brief.LOG_BRIEF:
            (message,) = brief.LOG_BRIEF_FIXED.unpack_from(data, wire.HEADER.size)
            return wire.LogEvent(header, brief.LOG_MESSAGES[message])
    except (struct.error, IndexError) as error:
        raise wire.DecodeError(f"{len(data)} bytes: {error}") from error
    return wire.decode_event(data)


def decoded(
    found: Iterable[tuple[bytes, Where]],
    decode: Callable[[bytes], wire.Event],
    lose: Callable[[str, Exception], None],
) -> Iterator[tuple[wire.Event, Where]]:
    """Events with what stands beside them; ``lose`` is told of those that are malformed."""
    for data, where in found:
        try:
            yield decode(data), where
        except wire.DecodeError as error:
            lose("decode", error)


def release(ring: Ring, backlog: Backlog, needed: int) -> None:
    """Let the kernel have back what is before the position ``needed``."""
    # An output that takes nothing must not take the room of what is to come: the older half goes.
    needed = max(needed, ring.position - ring.size_bytes // 2)
    ring.release(needed)
    backlog.released(needed)


def _victim(header: wire.Header, known: brief.BriefFields, paths: brief.PathStore | None) -> wire.VictimEvent:
    names = b""
    flags = known.flags & (wire.VICTIM_TASK | wire.VICTIM_GROUP | wire.VICTIM_MARKED | wire.VICTIM_CGROUP_TRUNCATED)
    if known.flags & wire.VICTIM_CGROUP and paths is not None:
        names = paths.read(known.path, known.path_len)
        flags |= wire.VICTIM_CGROUP
        if known.flags & brief.BRIEF_LEAF_TRUNCATED:
            names = names.partition(b"\0")[2]  # without the name that was cut
            flags |= wire.VICTIM_CGROUP_TRUNCATED
    return wire.VictimEvent(
        header=header,
        started_ns=known.started_ns,
        init_started_ns=0,
        network_cookie=0,
        anon_rss_pages=_pages(known.anon_rss_pages),
        file_rss_pages=_pages(known.file_rss_pages),
        shmem_rss_pages=_pages(known.shmem_rss_pages),
        swap_pages=_pages(known.swap_pages),
        total_vm_pages=known.total_vm_pages,
        peak_rss_pages=-1,
        page_tables_bytes=-1,
        pid=known.pid,
        tid=known.tid,
        ppid=0,
        uid=known.uid,
        oom_score_adj=known.oom_score_adj,
        namespace_pid=known.namespace_pid,
        namespace_level=known.namespace_level,
        mm_users=0,
        threads=0,
        flags=flags,
        init_pid=0,
        network_namespace=0,
        ancestors_len=0,
        comm=known.comm,
        ancestors=(),
        cgroup=names,
        exe=b"",
        cmdline=b"",
        brief=brief.BriefIncident(
            known.flags, known.constraint, None if known.limit_level == brief.NO_LEVEL else known.limit_level
        ),
    )


def _moment(data: bytes) -> tuple[int, bool]:
    """When an event happened, as far as order goes; of one that is malformed the decoder tells."""
    if len(data) < wire.HEADER.size:
        return 0, False
    header = wire.Header(*wire.HEADER.unpack_from(data))
    if header.type != wire.EXIT or len(data) < wire.HEADER.size + wire.EXIT_FIXED.size:
        return header.time_ns, False
    killed_ns, _ = wire.EXIT_FIXED.unpack_from(data, wire.HEADER.size)
    return max(header.time_ns, killed_ns), True  # a process that is killed may be gone before it is marked


def _pages(pages: int) -> int:
    return -1 if pages == brief.UNKNOWN_PAGES else pages
