# SPDX-License-Identifier: Apache-2.0
"""Lines of one output that it has not delivered yet: a queue in memory, a spool on disk.

The oldest ones are in the spool if that holds any.  The thread of a Disk alone touches the spool: neither who puts
lines nor who delivers them waits for one that hangs.  While it does, lines are delivered from memory, ahead of the
spool's; what then is in both comes twice.
"""

import threading
import time
from collections.abc import Callable
from functools import partial

from tracer.base.hung_disk import DiskWorker
from tracer.base.log import warn
from tracer.delivery.line_queue import LineQueue
from tracer.delivery.spool import Spool, sync
from tracer.records.record_id import RecordId, extract_record_ids

MOVE_S = 0.2
"""After so long who moves lines to the spool gives way: without a pause it would be taken for a disk that hangs."""
SPOOL_RETRY_S = 1.0


class UndeliveredLines:
    """``spool`` is closed with it."""

    def __init__(self, spool: Spool | None, disk: DiskWorker) -> None:
        self.queue = LineQueue()
        self.lock = threading.Lock()
        """Guards the queue."""
        self.news = threading.Condition(self.lock)
        """Who delivers waits for it."""
        self.spool = spool
        self._disk = disk
        self._retry_s = 0.0
        self._owed = 0
        """So many of the spool's first lines were delivered, and are yet to leave it."""
        self._moving: bytes | None = None
        """The first line of the queue, while it is written to the spool."""
        self._is_passed = False
        """That one was delivered meanwhile, in its turn."""
        self._overtakes = False
        """The lines that are being delivered are not the spool's, which holds older ones."""
        self._is_closed = False
        self._damage_told = False
        self._is_inherited = not self.is_spool_empty
        """The first lines in the spool are an earlier run's, which may have delivered them before it was killed."""

    @property
    def is_spool_empty(self) -> bool:
        return self.spool is None or self.spool.is_empty

    @property
    def is_empty(self) -> bool:
        return not self.queue.first() and self.is_spool_empty

    @property
    def hangs(self) -> bool:
        """Whether the disk does at this moment."""
        return self.spool is not None and self._disk.is_hung()

    def keep(self, *, waits: bool = True) -> None:
        """Have the queue moved into the spool, as far as that has room; wait for that, unless it hangs."""
        if self.spool is not None:
            self._disk.submit(self._move)
            if waits:
                self._disk.wait_idle()

    def first(self, count: int, delivered: Callable[[], set[RecordId]]) -> tuple[list[bytes], bool, int]:
        """The oldest lines; whether they are spooled; if not, the value of ``acknowledged`` at the first of them.

        ``delivered`` tells what the sink has already.  Raises OSError where the spool cannot be read now.
        """
        self._overtakes = False
        if self.spool is not None and not self.spool.is_empty:
            known = delivered() if self._is_inherited else set()
            try:
                lines = self._disk.run(partial(self._first_spooled, self.spool, count, known))
            except TimeoutError:
                lines, self._overtakes = [], True
            if lines:
                return lines, True, 0
        with self.lock:
            may = self._overtakes or self.is_spool_empty
            return self.queue.first(count) if may else [], False, self.queue.acknowledged

    def delivered(self, count: int, is_spooled: bool, begin: int) -> None:
        """So many of the lines that ``first`` had told were delivered."""
        with self.lock:
            if self._is_closed:
                return
            spooled = count
            if not is_spooled:  # they may have been moved to the spool meanwhile, where they are the first
                spooled = min(count, self.queue.acknowledged - begin)
                self.queue.acknowledge(count - spooled)
                if count > spooled and self._moving is not None:
                    self._moving, self._is_passed = None, not self._overtakes
            if self._overtakes or not spooled:
                return
            self._owed += spooled
        self._disk.submit(self._pass_over)

    def recent(self) -> set[RecordId]:
        """What the last lines in the spool tell of.  Raises TimeoutError where the disk hangs."""
        spool = self.spool
        return self._disk.run(lambda: extract_record_ids(spool.recent())) if spool is not None else set()

    def set_aside(self, lines: list[bytes]) -> bool:
        """Keep lines that are never delivered; False: not all of them."""
        spool = self.spool
        if spool is None:
            return False
        try:
            return self._disk.run(lambda: not self._is_closed and sum(map(spool.set_aside, lines)) == len(lines))
        except TimeoutError:
            return False

    def close(self) -> int:
        """Keep what can be kept; how many lines are left in memory, which are not acknowledged."""
        self._retry_s = 0.0
        before = -1
        while before != (before := self.queue.lines):
            self.keep()
        with self.lock:
            self._is_closed = True
            left = self.queue.lines
        if self.spool is not None:
            self._disk.submit(self._close_spool)
            self._disk.wait_idle()
        return left

    # What follows is for the thread of the disk.

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
        with self.news:  # there may be something to deliver that was not there before
            self.news.notify()

    def _move_first(self, spool: Spool) -> bool:
        """Move the oldest line; False: there is none, or no room for it."""
        with self.lock:
            lines = self.queue.first()
            if not lines or self._is_closed:
                return False
            self._moving, self._is_passed = lines[0], False
        is_kept = spool.append(lines[0])
        with self.lock:
            is_queued, self._moving = self._moving is not None, None
            if not is_kept:
                self._retry_s = time.monotonic() + SPOOL_RETRY_S
                return False
            if self._is_closed:
                return False
            if is_queued:
                self.queue.acknowledge()
            else:
                self._owed += self._is_passed
        return True

    def _pass_over(self) -> None:
        if self.spool is not None and self._owed:
            with self.lock:
                self._owed, owed = 0, self._owed
            self.spool.advance(owed)

    def _close_spool(self) -> None:
        if self.spool is not None:
            self._pass_over()
            self.spool.close()

    def _first_spooled(self, spool: Spool, count: int, known: set[RecordId]) -> list[bytes]:
        """``known``: what was delivered already of what an earlier run has left."""
        if self._is_closed:
            return []
        self._pass_over()
        lines = spool.peek(count)
        if self._is_inherited:
            while lines and not known.isdisjoint(extract_record_ids(lines[:1])):
                spool.advance(1)
                lines = spool.peek(1)
            self._is_inherited = False
        if spool.skipped and not self._damage_told:
            self._damage_told = True
            warn(f"{spool.path} was damaged: what cannot be read is skipped and counted")
        return lines
