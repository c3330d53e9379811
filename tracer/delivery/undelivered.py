# SPDX-License-Identifier: Apache-2.0
"""Undelivered lines of one output: a queue in memory and a spool on disk.

If the spool is not empty, it holds the oldest lines.  Only the disk worker's thread uses the spool, so neither the
thread that puts lines nor the thread that delivers them waits for a hung disk.  While the disk hangs, lines are
delivered from memory, ahead of those in the spool; lines that are in both are delivered twice.
"""

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from tracer.base.hung_disk import DiskWorker
from tracer.base.log import warn
from tracer.delivery.line_queue import LineQueue
from tracer.delivery.spool import Spool, sync
from tracer.records.record_id import RecordId, extract_record_ids

MOVE_S = 0.2
"""Longest time that one job moves lines to the spool; a longer job would count as a hung disk."""
SPOOL_RETRY_S = 1.0


class Batch(NamedTuple):
    """The oldest undelivered lines."""

    lines: list[bytes]
    is_spooled: bool
    position: int
    """If not spooled: the queue's ``acknowledged`` at the first line."""


class UndeliveredLines:
    """``close`` closes the spool as well."""

    def __init__(self, spool: Spool | None, disk: DiskWorker) -> None:
        self.queue = LineQueue()
        self.lock = threading.Lock()
        """Guards the queue."""
        self.changed = threading.Condition(self.lock)
        """The delivering thread waits for it."""
        self.spool = spool
        self._disk = disk
        self._retry_s = 0.0
        self._delivered_from_spool = 0
        """Number of the spool's oldest lines that were delivered and that the spool does not know about yet."""
        self._moving: bytes | None = None
        """The queue's oldest line, while it is written to the spool."""
        self._is_moving_delivered = False
        """Whether that line was delivered meanwhile, in its turn."""
        self._bypasses_spool = False
        """Whether the batch comes from the queue although the spool has older lines."""
        self._is_closed = False
        self._has_reported_damage = False
        self._has_lines_of_previous_run = not self.is_spool_empty
        """The previous run may have delivered the spool's first lines before it was killed."""

    @property
    def is_spool_empty(self) -> bool:
        return self.spool is None or self.spool.is_empty

    @property
    def is_empty(self) -> bool:
        return not self.queue.first() and self.is_spool_empty

    @property
    def is_disk_hung(self) -> bool:
        return self.spool is not None and self._disk.is_hung()

    def spool_queue(self, *, wait: bool = True) -> None:
        """Move the queue to the spool, as far as that has room; ``wait`` for it, unless the disk hangs."""
        if self.spool is not None:
            self._disk.submit(self._move)
            if wait:
                self._disk.wait_idle()

    def first_batch(self, count: int, read_recent_ids: Callable[[], set[RecordId]]) -> Batch:
        """The oldest lines, ``count`` at most.

        ``read_recent_ids`` returns the ids of the records that the sink already has.

        Raises OSError if the spool cannot be read now.
        """
        self._bypasses_spool = False
        if self.spool is not None and not self.spool.is_empty:
            delivered = read_recent_ids() if self._has_lines_of_previous_run else set()
            try:
                lines = self._disk.run(partial(self._first_spooled, self.spool, count, delivered))
            except TimeoutError:
                lines, self._bypasses_spool = [], True
            if lines:
                return Batch(lines, True, 0)
        with self.lock:
            is_queue_first = self._bypasses_spool or self.is_spool_empty
            return Batch(self.queue.first(count) if is_queue_first else [], False, self.queue.acknowledged)

    def acknowledge(self, batch: Batch, count: int) -> None:
        """The first ``count`` lines of the batch were delivered."""
        with self.lock:
            if self._is_closed:
                return
            spooled = count
            if not batch.is_spooled:  # some may have been moved to the spool meanwhile, where they are the oldest
                spooled = min(count, self.queue.acknowledged - batch.position)
                self.queue.acknowledge(count - spooled)
                if count > spooled and self._moving is not None:
                    self._moving, self._is_moving_delivered = None, not self._bypasses_spool
            if self._bypasses_spool or not spooled:
                return
            self._delivered_from_spool += spooled
        self._disk.submit(self._advance_spool)

    def read_recent_ids(self) -> set[RecordId]:
        """Ids of the latest records in the spool.

        Raises TimeoutError if the disk hangs.
        """
        spool = self.spool
        return self._disk.run(lambda: extract_record_ids(spool.recent())) if spool is not None else set()

    def set_aside(self, lines: list[bytes]) -> bool:
        """Store rejected lines; return whether all of them were stored."""
        spool = self.spool
        if spool is None:
            return False
        try:
            return self._disk.run(lambda: not self._is_closed and sum(map(spool.set_aside, lines)) == len(lines))
        except TimeoutError:
            return False

    def close(self) -> int:
        """Spool the queue, as far as possible, and return the number of lines that are left and unacknowledged."""
        if self._is_closed:
            return 0
        self._retry_s = 0.0
        before = -1
        while before != (before := self.queue.lines):
            self.spool_queue()
        with self.lock:
            self._is_closed = True
            left = self.queue.lines
        if self.spool is not None:
            self._disk.submit(self._close_spool)
            self._disk.wait_idle()
        return left

    # The methods below run in the disk worker's thread.

    def _move(self) -> None:
        spool, now_s = self.spool, time.monotonic()
        if spool is None or now_s < self._retry_s or self._is_closed:
            return
        while self._move_first(spool):
            if time.monotonic() - now_s > MOVE_S:
                self._disk.submit(self._move)
                break
        if complete := spool.take_complete():
            self._disk.submit_sync(partial(sync, complete))
        with self.changed:
            self.changed.notify()

    def _move_first(self, spool: Spool) -> bool:
        """Move the oldest line; return False if there is none or if the spool has no room."""
        with self.lock:
            lines = self.queue.first()
            if not lines or self._is_closed:
                return False
            self._moving, self._is_moving_delivered = lines[0], False
        is_spooled = spool.append(lines[0])
        with self.lock:
            is_queued, self._moving = self._moving is not None, None
            if not is_spooled:
                self._retry_s = time.monotonic() + SPOOL_RETRY_S
                return False
            if self._is_closed:
                return False
            if is_queued:
                self.queue.acknowledge()
            else:
                self._delivered_from_spool += self._is_moving_delivered
        return True

    def _advance_spool(self) -> None:
        if self.spool is not None and self._delivered_from_spool:
            with self.lock:
                self._delivered_from_spool, count = 0, self._delivered_from_spool
            self.spool.advance(count)

    def _close_spool(self) -> None:
        if self.spool is not None:
            self._advance_spool()
            self.spool.close()

    def _first_spooled(self, spool: Spool, count: int, delivered: set[RecordId]) -> list[bytes]:
        """``delivered``: ids of records that the previous run has delivered."""
        if self._is_closed:
            return []
        self._advance_spool()
        lines = spool.peek(count)
        if self._has_lines_of_previous_run:
            while lines and not delivered.isdisjoint(extract_record_ids(lines[:1])):
                spool.advance(1)
                lines = spool.peek(1)
            self._has_lines_of_previous_run = False
        if spool.damaged and not self._has_reported_damage:
            self._has_reported_damage = True
            warn(f"{spool.path} is damaged: unreadable records are skipped and counted")
        return lines
