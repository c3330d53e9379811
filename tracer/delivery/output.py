# SPDX-License-Identifier: Apache-2.0
"""One output: a queue in memory, a spool on disk, and a thread that delivers to a sink, in order, at least once.

While the sink takes lines they go through the queue alone.  Once that has not been empty for BEHIND_S, or the sink
fails, what is in it is moved to the spool, and all lines go through the spool until that is empty again.
"""

import time
from collections.abc import Collection

from tracer.base import threads
from tracer.base.backoff import BackOff
from tracer.base.errors import TracerError
from tracer.base.hung_disk import DiskWorker, call_with_timeout
from tracer.base.log import warn
from tracer.delivery.rejections import Rejections
from tracer.delivery.sinks import RejectedError, Sink
from tracer.delivery.spool import Spool
from tracer.delivery.undelivered import UndeliveredLines
from tracer.records.record_id import RecordId

BEHIND_S = 1.0
HUNG_S = 5.0
"""A request over a network may take longer than BEHIND_S; what takes longer than this is said to fail."""
JOIN_S = 0.25
"""How much longer its thread may take to end."""
RECENT_S = 2.0
"""How long to wait for what a file and its spool have already."""


class Output:
    """Takes lines, and is not held up by its sink.

    ``spool`` and ``sink`` are closed with the output.

    Raises TracerError where no thread can be started.
    """

    def __init__(
        self,
        sink: Sink,
        spool: Spool | None,
        style: str = "nested",
        types: Collection[str] | None = None,
        disk: DiskWorker | None = None,
    ) -> None:
        self.uri = sink.uri
        self.style, self.types = style, types
        """What it wants: lines of this style, of records of these types (None: of all)."""
        self.dead = False
        """It can never come back: it takes no more lines, and what is not acknowledged stays so."""
        self._sink = sink
        self._lines = UndeliveredLines(spool, disk or DiskWorker())
        self._queue, self._spool = self._lines.queue, spool
        self._recent: set[RecordId] | None = None
        self._busy_since_s = 0.0
        """Since when there has always been something in the queue."""
        self._writing_since_s: float | None = None
        """Since when the sink has been at it; None: it is not."""
        self._lock = self._lines.lock
        self._news = self._lines.news
        self._refusals = Rejections(self.uri, spool.path if spool is not None else "", self._lines.set_aside)
        self.failing = False
        self._caught_up = 0  # lines delivered since it began to fail
        self._retry = BackOff()
        self._wants_reopen = False
        self._ends_s: float | None = None
        """When to stop delivering."""
        self._closed = False
        self._thread = threads.start_required(f"output {self.uri}", self._deliver_forever)

    @property
    def acknowledged(self) -> int:
        """How many of the lines put, the first and all up to here, are delivered, spooled, or dropped and counted."""
        return self._queue.acknowledged

    @property
    def dropped(self) -> int:
        return self._queue.dropped

    @property
    def dropped_since_ns(self) -> int | None:
        """Wall-clock time of the first of those that were dropped last, one after the other."""
        return self._queue.dropped_since_ns

    @property
    def rejected(self) -> int:
        """Lines that the other side will never take."""
        return self._refusals.rejected

    @property
    def damaged(self) -> int:
        """Damaged lines in the spool."""
        return self._spool.skipped if self._spool is not None else 0

    @property
    def waiting(self) -> tuple[int, int]:
        """Lines in memory, and bytes on disk."""
        with self._lock:
            return self._queue.lines, self._spool.size_bytes if self._spool is not None else 0

    @property
    def is_full(self) -> bool:
        """Whether a line that is put now may be dropped."""
        return self._queue.is_full

    def put(self, line: bytes, spare: bool = False) -> None:
        """Take a line, with its newline; drop it when all is full, and ``spare`` room, too.  Never waits nor raises."""
        now_s = time.monotonic()
        with self._news:
            if self.dead or self._closed:
                return
            if not self._queue.first():
                self._busy_since_s = now_s
            waited_s = 0.0 if self._writing_since_s is None else now_s - self._writing_since_s
            has_room = self._queue.has_room(line, spare)
            if has_room:
                self._queue.put(line, spare)
                self._news.notify()
        if has_room and waited_s <= BEHIND_S:
            return
        # Its thread would have seen to that, but it hangs in a system call.
        if waited_s > HUNG_S:
            self._begin_failing(f"it has taken nothing for {waited_s:.0f} s")
        self._lines.keep(waits=not has_room)
        if not has_room:
            with self._news:
                self._queue.put(line, spare)
                self._news.notify()

    def start_at(self, acknowledged: int) -> None:
        """Join those that have had so many lines already."""
        with self._lock:
            self._queue.acknowledged += acknowledged

    def skip(self) -> None:
        """Count a line that it has already: it is acknowledged with those before it."""
        with self._lock:
            self._queue.skip()

    def has_record(self, kind: str, record_id: str) -> bool:
        """Whether a record of this type and id was among the last in spool and file when this was first called."""
        if self._recent is None:
            try:
                self._recent = call_with_timeout(RECENT_S, self._read_recent)
            except TimeoutError:
                self._recent = set()  # rather twice than never
        return (kind, record_id) in self._recent

    def _read_recent(self) -> set[RecordId]:
        kept = self._lines.recent()
        return kept | self._sink.recent()  # in this order: what is delivered meanwhile is in either

    def reopen(self) -> None:
        """Go on in what has the name now, soon; an output that fails is tried again at once."""
        with self._news:
            self._wants_reopen = True
            self._retry.until_s = 0.0
            self._news.notify()

    def end(self, timeout_s: float) -> None:
        """Deliver for so long at most; ``close`` waits for that."""
        with self._news:
            if self._ends_s is None:
                self._ends_s = time.monotonic() + timeout_s
                self._retry.end()
                self._news.notify()

    def close(self, timeout_s: float) -> None:
        """Deliver for so long at most, and spool the rest; what has no room there is not acknowledged."""
        if self._closed:
            return
        self.end(timeout_s)
        assert self._ends_s is not None
        self._thread.join(max(0.0, self._ends_s - time.monotonic()) + JOIN_S)
        with self._lock:
            self._closed = True
        left = self._lines.close()
        if left and not self.dead:  # which has said that it is
            warn(f"{self.uri}: {left} records were neither delivered nor kept on disk")

    def _deliver_forever(self) -> None:
        while not self.dead and self._wait():
            if self._wants_reopen:
                self._wants_reopen = False
                try:
                    self._sink.reopen()
                except TracerError as error:
                    warn(f"{error}; it goes on in the one that it has open")
            try:
                wanted = self._refusals.wanted(self._sink.batch_lines)
                lines, is_spooled, begin = self._lines.first(wanted, self._sink.recent)
            except OSError as error:
                self._begin_failing(f"the spool cannot be read ({error.strerror})")
                self._retry.failed()
                continue
            if not lines:
                if self._lines.hangs:
                    self._retry.failed()
                continue
            self._writing_since_s = time.monotonic()
            try:
                count = self._sink.write(self._refusals.to_send(lines))
            except RejectedError as error:
                self._writing_since_s = None
                if count := self._refusals.refused(lines, error):
                    self._delivered(count, is_spooled, begin)
            except Exception as error:  # mostly OSError; whatever it is, nobody else delivers
                self._refused(error)
            else:
                self._delivered(self._refusals.taken(lines) + count, is_spooled, begin)
        self._sink.close()

    def _wait(self) -> bool:
        """Until there is something to do, and it is time to; False: it is time to end."""
        while True:
            if self._spool is not None and self._is_behind():
                self._lines.keep()
            if self.failing and self._lines.is_empty:
                self.failing = False
                warn(f"{self.uri} works again: {self._caught_up} records caught up")
            with self._news:
                now_s = time.monotonic()
                is_idle = self._lines.is_empty
                until_s = None if is_idle else self._retry.until_s
                if self._ends_s is not None:
                    is_kept = self._retry.until_s > now_s and not self._queue.first()  # on disk, and it fails
                    if is_idle or is_kept or now_s >= self._ends_s:
                        return False
                    until_s = min(self._retry.until_s, self._ends_s)
                if self._wants_reopen or (until_s is not None and now_s >= until_s):
                    return True
                self._news.wait(None if until_s is None else until_s - now_s)

    def _is_behind(self) -> bool:
        is_late = self._queue.first() and time.monotonic() - self._busy_since_s > BEHIND_S
        return self.failing or bool(is_late) or not self._lines.is_spool_empty

    def _delivered(self, count: int, is_spooled: bool, begin: int) -> None:
        self._writing_since_s = None
        self._retry.end()
        self._lines.delivered(count, is_spooled, begin)
        self._caught_up += count
        self._refusals.acknowledged(count)

    def _refused(self, error: Exception) -> None:
        self._writing_since_s = None
        self._refusals.forget()
        reason = str(getattr(error, "strerror", None) or error)
        if self._sink.dead:
            self.dead = True
            self._lines.keep()
            warn(f"{self.uri} is gone for good: {reason}")
            return
        self._begin_failing(reason)
        self._retry.failed(getattr(error, "retry_after_s", 0.0))

    def _begin_failing(self, reason: str) -> None:
        with self._lock:
            if self.failing:
                return
            self.failing, self._caught_up = True, 0
        kept = f"on disk, in {self._spool.path}" if self._spool is not None else "in memory, 4 MB at most,"
        warn(f"cannot write to {self.uri}: {reason}; records are kept {kept} and it is tried again")
