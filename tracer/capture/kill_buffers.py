# SPDX-License-Identifier: Apache-2.0
"""The ring buffer of OOM kills, and the one for kills in brief while the first is full, read as one.

The kernel runs one OOM killer at a time (oom_lock), so a kill is in its ring buffer before the next one is sent to the
other: merged by time, the events have the order of the kills.
"""

import struct
from collections.abc import Callable, Iterator
from typing import TypeAlias

from tracer.capture import brief, wire
from tracer.capture.programs import open_ring
from tracer.capture.ringbuf_retention import RetainedRing, Token

EVENTS_MAX = 512
"""Events read at once from each ring buffer: their room is released before the next ones are read."""

Event: TypeAlias = wire.Event | wire.DecodeError
"""An event that was read.  A malformed one is an event as well: it is reported as lost."""

ReadEvent: TypeAlias = tuple[Event, Token]
"""An event, and what keeps it in its ring buffer."""


class KillRings:
    """Both ring buffers of one capture.

    A capture of an older version has the first one only.

    Raises OSError if a map is not a ring buffer.
    """

    def __init__(self, maps: dict[str, int]) -> None:
        self._full = RetainedRing(open_ring(maps["events"]))
        self._briefs = RetainedRing(open_ring(maps["briefs"])) if "briefs" in maps else None
        self._paths = brief.PathStore(maps["paths"]) if "paths" in maps else None
        self._rings = [ring for ring in (self._full, self._briefs) if ring is not None]

    def batches(self) -> Iterator[Iterator[ReadEvent]]:
        """The events up to the present end, in the order of time, at most about EVENTS_MAX of each ring buffer at once.

        Each batch must be handled before the next one is requested, and can be released before that.
        """
        end = self._end()  # a storm must not keep the caller from other work
        while self._position() < end and (found := self.read()):
            yield ((decode_or_error(data, self.decode), token) for data, token in found)

    def _position(self) -> int:
        return sum(retained.ring.position for retained in self._rings)

    def _end(self) -> int:
        return sum(retained.ring.end for retained in self._rings)

    def read(self) -> list[tuple[bytes, Token]]:
        """The next events as bytes; none: all events have been read."""
        full = self._full.ring.read(EVENTS_MAX)
        briefs = self._briefs.ring.read(EVENTS_MAX) if self._briefs is not None else []
        if self._briefs is None or not briefs:
            return [(data, self._full.retention.issue(position)) for position, data in full]
        full += self._full.ring.read(
            EVENTS_MAX
        )  # read last: all events that precede the last brief one are there by now
        full_has_more = self._full.ring.position < self._full.ring.end
        # Only events that no unread event can precede; the others are read again.
        merged: list[tuple[bytes, Token]] = []
        i = j = 0
        while j < len(briefs) and (i < len(full) or not full_has_more):
            if i < len(full) and _moment(full[i][1]) <= _moment(briefs[j][1]):
                merged.append((full[i][1], self._full.retention.issue(full[i][0])))
                i += 1
            else:
                merged.append((briefs[j][1], self._briefs.retention.issue(briefs[j][0])))
                j += 1
        if i < len(full):
            self._full.ring.position = full[i][0]
        if j < len(briefs):
            self._briefs.ring.position = briefs[j][0]
        return merged

    def decode(self, data: bytes) -> wire.Event:
        """One event; to be called before the events behind it are released.

        Raises wire.DecodeError if its type is unknown or its bytes do not fit.
        """
        return decode(data, self._paths)

    def release(self, acknowledged: int, *, is_saved: bool) -> None:
        """As ``RetainedRing.release``, of both."""
        for retained in self._rings:
            retained.release(acknowledged, is_saved=is_saved)

    def awaits_outputs(self, acknowledged: int) -> bool:
        """As ``Retention.awaits_outputs``, of either."""
        return any(retained.retention.awaits_outputs(acknowledged) for retained in self._rings)


def decode(data: bytes, paths: brief.PathStore | None) -> wire.Event:
    """An event of either ring buffer.

    Raises wire.DecodeError if its type is unknown or its bytes do not fit.
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


def decode_or_error(data: bytes, decode: Callable[[bytes], wire.Event]) -> Event:
    """An event, or why it is malformed."""
    try:
        return decode(data)
    except wire.DecodeError as error:
        return error


def _victim(header: wire.Header, fields: brief.BriefFields, paths: brief.PathStore | None) -> wire.VictimEvent:
    names = b""
    flags = fields.flags & (wire.VICTIM_TASK | wire.VICTIM_GROUP | wire.VICTIM_MARKED | wire.VICTIM_CGROUP_TRUNCATED)
    if fields.flags & wire.VICTIM_CGROUP and paths is not None:
        names = paths.read(fields.path, fields.path_len)
        flags |= wire.VICTIM_CGROUP
        if fields.flags & brief.BRIEF_LEAF_TRUNCATED:
            names = names.partition(b"\0")[2]  # without the name that was truncated
            flags |= wire.VICTIM_CGROUP_TRUNCATED
    return wire.VictimEvent(
        header=header,
        started_ns=fields.started_ns,
        init_started_ns=0,
        network_cookie=0,
        anon_rss_pages=_pages(fields.anon_rss_pages),
        file_rss_pages=_pages(fields.file_rss_pages),
        shmem_rss_pages=_pages(fields.shmem_rss_pages),
        swap_pages=_pages(fields.swap_pages),
        total_vm_pages=fields.total_vm_pages,
        peak_rss_pages=-1,
        page_tables_bytes=-1,
        pid=fields.pid,
        tid=fields.tid,
        ppid=0,
        uid=fields.uid,
        oom_score_adj=fields.oom_score_adj,
        namespace_pid=fields.namespace_pid,
        namespace_level=fields.namespace_level,
        mm_users=0,
        threads=0,
        flags=flags,
        init_pid=0,
        network_namespace=0,
        ancestors_len=0,
        comm=fields.comm,
        ancestors=(),
        cgroup=names,
        exe=b"",
        cmdline=b"",
        brief=brief.BriefIncident(
            fields.flags, fields.constraint, None if fields.limit_level == brief.NO_LEVEL else fields.limit_level
        ),
    )


def _moment(data: bytes) -> tuple[int, bool]:
    """Time of an event, for the merge; a malformed event is reported by the decoder."""
    if len(data) < wire.HEADER.size:
        return 0, False
    header = wire.Header(*wire.HEADER.unpack_from(data))
    if header.type != wire.EXIT or len(data) < wire.HEADER.size + wire.EXIT_FIXED.size:
        return header.time_ns, False
    killed_ns, _ = wire.EXIT_FIXED.unpack_from(data, wire.HEADER.size)
    return max(header.time_ns, killed_ns), True  # a killed process may exit before it is marked


def _pages(pages: int) -> int:
    return -1 if pages == brief.UNKNOWN_PAGES else pages
