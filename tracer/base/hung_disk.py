# SPDX-License-Identifier: Apache-2.0
"""A thread for file operations that may hang (an unreachable file server, a throttled device): only it blocks."""

import errno
import threading
import time
from collections.abc import Callable
from typing import TypeVar, cast

from tracer.base import threads
from tracer.base.log import warn

HUNG_AFTER_S = 1.0
"""A job that takes longer is considered hung; callers stop waiting for it."""
OPEN_TIMEOUT_S = 5.0
"""Timeout for files that are opened at the start."""

T = TypeVar("T")


def call_with_timeout(seconds: float, function: Callable[[], T]) -> T:
    """Call ``function`` in a thread, and return or raise what it does.  A thread that hangs is abandoned.

    Raises TimeoutError (an OSError) after ``seconds``, or if no thread can be started.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def call() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threads.start("disk", call)
    if thread is None:
        raise TimeoutError(errno.EAGAIN, "cannot start a thread")
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(errno.ETIMEDOUT, "no answer in time")
    return results[0]


class _AwaitedJob:
    """A job whose caller waits for the result."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function
        self.result: object = None
        self.error: BaseException | None = None
        self.is_done = False

    def __call__(self) -> None:
        try:
            self.result = self._function()
        except BaseException as error:
            self.error = error


class DiskWorker:
    """Runs jobs one after the other, in a thread that starts with the first job."""

    def __init__(self) -> None:
        self._jobs: dict[Callable[[], object], None] = {}
        self._submitted = self._done = 0
        self._changed = threading.Condition()
        self._busy_since_s: float | None = None
        self._thread: threading.Thread | None = None
        self._sync_worker: DiskWorker | None = None

    def submit(self, job: Callable[[], object]) -> None:
        """Queue a job; a job that is queued already is not queued twice.

        If no thread can be started, the job waits until a later ``submit`` can start one.
        """
        with self._changed:
            self._submitted += job not in self._jobs
            self._jobs[job] = None
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threads.start("disk", self._work)

    def run(self, function: Callable[[], T]) -> T:
        """Queue ``function``, wait, and return or raise what it does.

        Raises TimeoutError (an OSError) if this job or one before it hangs, or if there is no thread yet.
        """
        job = _AwaitedJob(function)
        self.submit(job)
        with self._changed:
            while not job.is_done:
                if self._thread is None or self.is_hung():
                    if job in self._jobs:
                        del self._jobs[job]
                        self._submitted -= 1
                    raise TimeoutError(errno.ETIMEDOUT, "no answer in time")
                self._changed.wait(HUNG_AFTER_S / 4)
        if job.error is not None:
            raise job.error
        return cast(T, job.result)

    def submit_sync(self, job: Callable[[], object]) -> None:
        """Queue a job for a second thread: fsync takes long on any busy disk."""
        with self._changed:
            if self._sync_worker is None:
                self._sync_worker = DiskWorker()
        self._sync_worker.submit(job)

    def is_hung(self) -> bool:
        """Whether the current job has run for more than HUNG_AFTER_S."""
        busy_since_s = self._busy_since_s
        return busy_since_s is not None and time.monotonic() - busy_since_s > HUNG_AFTER_S

    def wait_idle(self, timeout_s: float = HUNG_AFTER_S) -> bool:
        """Wait until all jobs submitted so far are done.  False: a job hangs, or there is no thread yet."""
        with self._changed:
            submitted = self._submitted
            return (
                self._thread is not None
                and not self.is_hung()
                and self._changed.wait_for(lambda: self._done >= submitted, timeout_s)
            )

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs)
                job = next(iter(self._jobs))
                del self._jobs[job]
                self._busy_since_s = time.monotonic()
            try:
                job()
            except Exception as error:  # the thread must survive for the next job
                warn(f"cannot write to the state directory: {error!r}")
            with self._changed:
                self._busy_since_s = None
                self._done += 1
                if isinstance(job, _AwaitedJob):
                    job.is_done = True
                self._changed.notify_all()
