# SPDX-License-Identifier: Apache-2.0
"""A thread for what may hang on a disk, so that nobody else does: a file server that is away, a throttled device."""

import errno
import threading
import time
from collections.abc import Callable
from typing import TypeVar, cast

from tracer.base import threads
from tracer.base.log import warn

HUNG_AFTER_S = 1.0
"""What takes longer hangs: nobody waits for it any more."""
OPEN_TIMEOUT_S = 5.0
"""How long to wait for what is opened at the start."""

T = TypeVar("T")


def call_with_timeout(seconds: float, function: Callable[[], T]) -> T:
    """What it returns or raises; a thread that hangs in it is left behind.

    Raises TimeoutError, an OSError.
    """
    found: list[T] = []
    errors: list[BaseException] = []

    def call() -> None:
        try:
            found.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threads.start("disk", call)
    if thread is None:
        raise TimeoutError(errno.EAGAIN, "no thread can be started for it")
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not found:
        raise TimeoutError(errno.ETIMEDOUT, "it does not answer")
    return found[0]


class _AwaitedJob:
    """A job whose result somebody waits for."""

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
    """Jobs, done one after the other by a thread that begins with the first one."""

    def __init__(self) -> None:
        self._jobs: dict[Callable[[], object], None] = {}
        self._submitted = self._done = 0
        self._changed = threading.Condition()
        self._busy_since_s: float | None = None
        self._thread: threading.Thread | None = None
        self._sync_worker: DiskWorker | None = None

    def submit(self, job: Callable[[], object]) -> None:
        """Have it done soon; one that waits already is not done twice.

        Where no thread can be started, it waits until one can, when something is asked for again.
        """
        with self._changed:
            self._submitted += job not in self._jobs
            self._jobs[job] = None
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threads.start("disk", self._work)

    def run(self, function: Callable[[], T]) -> T:
        """What it returns or raises, once its turn has come.

        Raises TimeoutError, an OSError, where the disk hangs, in that or in a job before it, or there is no thread yet.
        """
        job = _AwaitedJob(function)
        self.submit(job)
        with self._changed:
            while not job.is_done:
                if self._thread is None or self.is_hung():
                    if job in self._jobs:
                        del self._jobs[job]
                        self._submitted -= 1
                    raise TimeoutError(errno.ETIMEDOUT, "it does not answer")
                self._changed.wait(HUNG_AFTER_S / 4)
        if job.error is not None:
            raise job.error
        return cast(T, job.result)

    def submit_sync(self, job: Callable[[], object]) -> None:
        """Have it done soon by another thread: a job that takes long on any disk that is busy."""
        with self._changed:
            if self._sync_worker is None:
                self._sync_worker = DiskWorker()
        self._sync_worker.submit(job)

    def is_hung(self) -> bool:
        """Whether a job takes too long at this moment."""
        busy_since_s = self._busy_since_s
        return busy_since_s is not None and time.monotonic() - busy_since_s > HUNG_AFTER_S

    def wait_idle(self, timeout_s: float = HUNG_AFTER_S) -> bool:
        """Until all jobs asked for by now are done; False: one hangs, or there is no thread for them, yet."""
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
            except Exception as error:  # whatever it is: the next ones are to be done
                warn(f"cannot write what is kept on disk: {error!r}")
            with self._changed:
                self._busy_since_s = None
                self._done += 1
                if isinstance(job, _AwaitedJob):
                    job.is_done = True
                self._changed.notify_all()
