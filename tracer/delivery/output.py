# SPDX-License-Identifier: Apache-2.0
"""One output: a queue in memory, a spool on disk, and a thread that delivers to a sink, in order, at least once.

While the sink accepts lines, they pass through the queue only.  Once the queue has not been empty for BEHIND_S, or the
sink fails, the queue is moved to the spool, and all lines pass through the spool until that is empty again.
"""

import enum
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
from tracer.delivery.undelivered import Batch, UndeliveredLines
from tracer.records.record_id import RecordId

BEHIND_S = 1.0
HUNG_S = 5.0
"""A write that takes longer is reported as a failure.  A request over a network may take longer than BEHIND_S."""
JOIN_S = 0.25
"""Additional time for the thread to end."""
RECENT_S = 2.0
"""Timeout for reading the latest ids from a file and its spool."""


class OutputState(enum.Enum):
    OPEN = enum.auto()
    """Takes lines and delivers them."""
    DRAINING = enum.auto()
    """Takes lines, and delivers until a deadline."""
    CLOSED = enum.auto()
    """Takes no lines; the undelivered ones are in the spool, or unacknowledged."""
    DEAD = enum.auto()
    """The sink can never deliver again.  Takes no lines; those that are not in the spool stay unacknowledged."""


_NEXT_STATES = {
    OutputState.OPEN: {OutputState.DRAINING, OutputState.DEAD},
    OutputState.DRAINING: {OutputState.CLOSED, OutputState.DEAD},
    OutputState.CLOSED: set[OutputState](),
    OutputState.DEAD: set[OutputState](),
}


class Output:
    """Takes lines without ever waiting for its sink.

    ``spool`` and ``sink`` are closed with the output.

    Raises TracerError if no thread can be started.
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
        """Style of the lines, and types of records to send (None: all)."""
        self._sink = sink
        self._lines = UndeliveredLines(spool, disk or DiskWorker())
        self._queue, self._changed = self._lines.queue, self._lines.changed
        self._rejections = Rejections(self.uri, spool.path if spool is not None else "", self._lines.set_aside)
        self._state = OutputState.OPEN
        self._drain_deadline_s = 0.0
        """While draining: CLOCK_MONOTONIC time at which to stop delivering."""
        self._delivered_since_failure: int | None = None
        """Lines delivered since the output began to fail; None: it does not fail."""
        self._retry = BackOff()
        self._reopen_requested = False
        self._not_empty_since_s = 0.0
        """When the queue was last empty."""
        self._writing_since_s: float | None = None
        """When the current write to the sink began; None: there is none."""
        self._recent_ids: set[RecordId] | None = None
        self._thread = threads.start_required(f"output {self.uri}", self._deliver_until_end)

    @property
    def dead(self) -> bool:
        return self._state is OutputState.DEAD

    @property
    def failing(self) -> bool:
        """Whether the latest write or read of the spool failed, or lines are still delayed by a failure."""
        return self._delivered_since_failure is not None

    @property
    def acknowledged(self) -> int:
        """Number of lines, from the first one put, that are delivered, spooled, or dropped and counted."""
        return self._queue.acknowledged

    @property
    def dropped(self) -> int:
        return self._queue.dropped

    @property
    def dropped_since_ns(self) -> int | None:
        """Wall-clock time at which the latest run of consecutive drops began."""
        return self._queue.dropped_since_ns

    @property
    def rejected(self) -> int:
        """Number of lines that the server will never accept."""
        return self._rejections.rejected

    @property
    def damaged(self) -> int:
        """Number of lines lost in a damaged spool."""
        spool = self._lines.spool
        return spool.damaged if spool is not None else 0

    @property
    def waiting(self) -> tuple[int, int]:
        """Lines in memory, and bytes on disk."""
        spool = self._lines.spool
        with self._changed:
            return self._queue.lines, spool.size_bytes if spool is not None else 0

    @property
    def is_full(self) -> bool:
        """Whether the next line may be dropped."""
        return self._queue.is_full

    def put(self, line: bytes, spare: bool = False) -> None:
        """Take a line, with its newline, or drop it if there is no room.  Never blocks, never raises.

        ``spare``: use the queue's reserved room as well.
        """
        now_s = time.monotonic()
        with self._changed:
            if self._state in (OutputState.CLOSED, OutputState.DEAD):
                return
            if not self._queue.first():
                self._not_empty_since_s = now_s
            writing_s = 0.0 if self._writing_since_s is None else now_s - self._writing_since_s
            has_room = self._queue.has_room(line, spare)
            if has_room:
                self._queue.put(line, spare)
                self._changed.notify()
        if has_room and writing_s <= BEHIND_S:
            return
        # The thread cannot spool the queue itself: it hangs in a system call.
        if writing_s > HUNG_S:
            self._begin_failing(f"no data accepted for {writing_s:.0f} s")
        self._lines.spool_queue(wait=not has_room)
        if not has_room:
            with self._changed:
                self._queue.put(line, spare)
                self._changed.notify()

    def start_at(self, acknowledged: int) -> None:
        """Join outputs that have acknowledged so many lines."""
        with self._changed:
            self._queue.acknowledged += acknowledged

    def skip(self) -> None:
        """Count a line that the sink has already: it is acknowledged together with the lines before it."""
        with self._changed:
            self._queue.skip()

    def has_record(self, kind: str, record_id: str) -> bool:
        """Whether a record was among the latest in spool and file at the first call of this method."""
        if self._recent_ids is None:
            try:
                self._recent_ids = call_with_timeout(RECENT_S, self._read_recent_ids)
            except TimeoutError:
                self._recent_ids = set()  # a duplicate is better than a loss
        return (kind, record_id) in self._recent_ids

    def _read_recent_ids(self) -> set[RecordId]:
        spooled = self._lines.read_recent_ids()
        return spooled | self._sink.recent()  # in this order: a line that is delivered meanwhile is in one of them

    def reopen(self) -> None:
        """Have the thread reopen the sink soon; a failing output is retried at once."""
        with self._changed:
            self._reopen_requested = True
            self._retry.retry_at_s = 0.0
            self._changed.notify()

    def end(self, timeout_s: float) -> None:
        """Begin to drain: deliver until the timeout, for which ``close`` waits."""
        with self._changed:
            if self._enter(OutputState.DRAINING):
                self._drain_deadline_s = time.monotonic() + timeout_s
                self._retry.reset()
                self._changed.notify()

    def close(self, timeout_s: float) -> None:
        """Drain, then spool the rest; lines that the spool has no room for stay unacknowledged."""
        if self._state is OutputState.CLOSED:
            return
        self.end(timeout_s)
        deadline_s = self._drain_deadline_s or time.monotonic() + timeout_s
        self._thread.join(max(0.0, deadline_s - time.monotonic()) + JOIN_S)
        with self._changed:
            self._enter(OutputState.CLOSED)
        left = self._lines.close()
        if left and not self.dead:  # a dead output has reported that already
            warn(f"{self.uri}: {left} records were neither delivered nor kept on disk")

    def _enter(self, state: OutputState) -> bool:
        """Enter a state, if the current one allows it; return whether it does.  The lock is held."""
        if state not in _NEXT_STATES[self._state]:
            return False
        self._state = state
        return True

    # The methods below run in the output's thread, except _begin_failing.

    def _deliver_until_end(self) -> None:
        while self._wait_for_work():
            if self._reopen_requested:
                self._reopen_sink()
            try:
                size = self._rejections.batch_size(self._sink.batch_lines)
                batch = self._lines.first_batch(size, self._sink.recent)
            except OSError as error:
                self._begin_failing(f"cannot read the spool ({error.strerror})")
                self._retry.failed()
                continue
            if batch.lines:
                self._deliver(batch)
            elif self._lines.is_disk_hung:
                self._retry.failed()
        self._sink.close()

    def _wait_for_work(self) -> bool:
        """Wait until there is something to do and no retry is pending; return False when the thread is to end."""
        while not self.dead:
            if self._lines.spool is not None and self._is_behind():
                self._lines.spool_queue()
            if self._delivered_since_failure is not None and self._lines.is_empty:
                count, self._delivered_since_failure = self._delivered_since_failure, None
                warn(f"{self.uri} works again: {count} delayed records delivered")
            with self._changed:
                now_s = time.monotonic()
                is_idle = self._lines.is_empty
                until_s = None if is_idle else self._retry.retry_at_s
                if self._state is not OutputState.OPEN:
                    is_failing_spooled = self._retry.retry_at_s > now_s and not self._queue.first()
                    if is_idle or is_failing_spooled or now_s >= self._drain_deadline_s:
                        return False
                    until_s = min(self._retry.retry_at_s, self._drain_deadline_s)
                if self._reopen_requested or (until_s is not None and now_s >= until_s):
                    return True
                self._changed.wait(None if until_s is None else until_s - now_s)
        return False

    def _is_behind(self) -> bool:
        is_late = self._queue.first() and time.monotonic() - self._not_empty_since_s > BEHIND_S
        return self.failing or bool(is_late) or not self._lines.is_spool_empty

    def _reopen_sink(self) -> None:
        self._reopen_requested = False
        try:
            self._sink.reopen()
        except TracerError as error:
            warn(f"{error}; the open file remains in use")

    def _deliver(self, batch: Batch) -> None:
        self._writing_since_s = time.monotonic()
        try:
            count = self._sink.write(self._rejections.without_suspects(batch.lines))
        except RejectedError as error:
            self._writing_since_s = None
            if count := self._rejections.on_rejected(batch.lines, error):
                self._acknowledge(batch, count)
        except Exception as error:  # usually OSError; the thread must survive any other, too
            self._handle_failure(error)
        else:
            self._acknowledge(batch, self._rejections.on_accepted(batch.lines) + count)

    def _acknowledge(self, batch: Batch, count: int) -> None:
        self._writing_since_s = None
        self._retry.reset()
        self._lines.acknowledge(batch, count)
        if self._delivered_since_failure is not None:
            self._delivered_since_failure += count
        self._rejections.on_acknowledged(count)

    def _handle_failure(self, error: Exception) -> None:
        self._writing_since_s = None
        self._rejections.clear_suspects()
        reason = str(getattr(error, "strerror", None) or error)
        if self._sink.dead:
            with self._changed:
                self._enter(OutputState.DEAD)
            self._lines.spool_queue()
            warn(f"{self.uri} is closed permanently: {reason}")
            return
        self._begin_failing(reason)
        self._retry.failed(getattr(error, "retry_after_s", 0.0))

    def _begin_failing(self, reason: str) -> None:
        with self._changed:
            if self.failing:
                return
            self._delivered_since_failure = 0
        spool = self._lines.spool
        kept = f"on disk, in {spool.path}" if spool is not None else "in memory, 4 MB at most"
        warn(f"cannot write to {self.uri}: {reason}; records are kept {kept}; retrying")
