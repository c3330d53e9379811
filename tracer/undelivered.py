# SPDX-License-Identifier: Apache-2.0
"""Lines of one output that it has not delivered yet: a queue in memory, a spool on disk.

The oldest ones are in the spool if that holds any.  Lines go there by the thread of a Disk: neither who puts lines nor
who delivers them waits for one that hangs.  While it does, lines are delivered from memory, ahead of the spool's; what
then is in both comes twice.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tracer.disk import HUNG_S, Disk
from tracer.ids import Id, ids
from tracer.line_queue import LineQueue
from tracer.spool import Spool
from tracer.stderr import tell

MOVE_S = 0.2
"""After so long who moves lines to the spool gives way: without a pause it would be taken for a disk that hangs."""
SPOOL_RETRY_S = 1.0
LOCK_S = 0.5
"""How long to wait for a spool that is being written or synced."""


class Undelivered:
    """``spool`` is closed with it."""

    def __init__(self, spool: Spool | None, disk: Disk) -> None:
        self.queue = LineQueue()
        self.lock = threading.Lock()
        """Guards the queue."""
        self.news = threading.Condition(self.lock)
        """Who delivers waits for it."""
        self.spool = spool
        self.spool_lock = threading.Lock()
        """Held while the spool is read or written, and while lines leave the queue for it; taken before ``lock``."""
        self._wanted = 0
        """So many threads wait for the spool."""
        self._disk = disk
        self._retry_s = 0.0
        self._owed = 0
        """So many of the spool's lines were delivered while it was in other hands."""
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
        return self.spool is not None and self._disk.hangs()

    def keep(self, *, waits: bool = True) -> None:
        """Have the queue moved into the spool, as far as that has room; wait for that, unless it hangs."""
        if self.spool is not None:
            self._disk.ask(self._move)
            if waits:
                self._disk.wait()

    def sync(self) -> None:
        """Bring onto the disk what is in the spool; may take long."""
        with self._own_spool() as spool:
            if spool is not None:
                spool.sync()

    def first(self, count: int, delivered: Callable[[], set[Id]]) -> tuple[list[bytes], bool, int]:
        """The oldest lines, whether they are from the spool, and if not the value of ``settled`` at which they begin.

        ``delivered`` tells what the sink has already.  Raises OSError where the spool cannot be read now.
        """
        self._overtakes = False
        if self.spool is not None and not self.spool.is_empty:
            with self._own_spool() as spool:
                lines = self._first_spooled(spool, count, delivered) if spool is not None else []
                self._overtakes = spool is None
            if lines:
                return lines, True, 0
        with self.lock:
            may = self._overtakes or self.is_spool_empty
            return self.queue.first(count) if may else [], False, self.queue.settled

    def delivered(self, count: int, is_spooled: bool, begin: int) -> None:
        """So many of the lines that ``first`` had told were delivered."""
        with self._own_spool() as spool:
            if self._is_closed:
                return
            if is_spooled:
                self._pass_over(spool, count)
                return
            # They may have been moved to the spool meanwhile, where they are the first.  Where the spool is in other
            # hands they still may, so that what was moved and what is left are one view of the queue.
            with self.lock:
                if self._is_closed:
                    return
                spooled = min(count, self.queue.settled - begin)
                self.queue.settle(count - spooled)
            self._pass_over(spool, spooled)

    def _pass_over(self, spool: Spool | None, count: int) -> None:
        """So many of the spool's oldest lines were delivered, unless what is delivered overtakes them."""
        if self._overtakes or not count:
            return
        if spool is not None:
            spool.advance(count)
        else:
            with self.lock:
                self._owed += count

    def recent(self) -> set[Id]:
        """What the last lines in the spool tell of."""
        with self.spool_lock:
            return ids(self.spool.recent()) if self.spool is not None else set()

    def close(self) -> int:
        """Keep what can be kept; how many lines are left in memory, which are not settled."""
        self._retry_s = 0.0
        before = -1
        while before != (before := self.queue.lines):
            self.keep()
        with self.lock:
            self._is_closed = True
            left = self.queue.lines
        if self.spool is not None:
            self._disk.ask(self._close_spool)
            self._disk.wait()
        return left

    def _close_spool(self) -> None:
        if self.spool is not None and self.spool_lock.acquire(timeout=LOCK_S):
            self.spool.close()
            self.spool_lock.release()

    def _move(self) -> None:
        spool, now_s = self.spool, time.monotonic()
        if spool is None or now_s < self._retry_s or not self._give_way(now_s):
            return
        try:
            while self._move_first(spool):
                if time.monotonic() - now_s > MOVE_S:
                    self._disk.ask(self._move)
                    break
        finally:
            self.spool_lock.release()
            with self.news:  # there may be something to deliver that was not there before
                self.news.notify()

    def _give_way(self, now_s: float) -> bool:
        """Take the spool's lock behind those who wait for it: a lock goes to whoever asks when it is free."""
        while self._wanted and time.monotonic() - now_s < LOCK_S:
            time.sleep(0.001)
        return self.spool_lock.acquire(timeout=LOCK_S)

    def _move_first(self, spool: Spool) -> bool:
        """Move the oldest line; False: there is none, or no room for it."""
        with self.lock:
            lines = self.queue.first()
        if not lines or self._is_closed:
            return False
        was_empty = spool.is_empty
        if not spool.append(lines[0]):
            self._retry_s = time.monotonic() + SPOOL_RETRY_S
            return False
        with self.lock:
            if self._is_closed:
                return False
            if any(line is lines[0] for line in self.queue.first()):
                self.queue.settle()
            elif was_empty:  # it hung, and the line was delivered meanwhile
                self._owed += 1
        return True

    def _first_spooled(self, spool: Spool, count: int, delivered: Callable[[], set[Id]]) -> list[bytes]:
        lines = spool.peek(count)
        if self._is_inherited:
            known = delivered()
            while lines and not known.isdisjoint(ids(lines[:1])):
                spool.advance(1)
                lines = spool.peek(1)
            self._is_inherited = False
        if spool.skipped and not self._damage_told:
            self._damage_told = True
            tell(f"{spool.path} was damaged: what cannot be read is skipped and counted")
        return lines

    @contextmanager
    def _own_spool(self) -> Iterator[Spool | None]:
        """The spool, for this thread alone; None where there is none, or it hangs in other hands."""
        if self.spool is None or not self._take_spool():
            yield None
            return
        try:
            with self.lock:
                self._owed, owed = 0, self._owed
            self.spool.advance(owed)
            yield self.spool
        finally:
            self.spool_lock.release()

    def _take_spool(self) -> bool:
        with self.lock:
            self._wanted += 1
        taken = self.spool_lock.acquire(timeout=0.0 if self._disk.hangs() else HUNG_S)
        with self.lock:
            self._wanted -= 1
        return taken
