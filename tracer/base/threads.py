# SPDX-License-Identifier: Apache-2.0
"""Starts threads.  That may fail: TasksMax of the service's unit, pids.max of a pod, RLIMIT_NPROC, no memory.

Callers try again later; the thread's work is delayed until then.
"""

import signal
import threading
from collections.abc import Callable

from tracer.base.errors import TracerError
from tracer.base.log import warn

start_failures = 0
"""Number of threads that could not be started."""
_has_warned = False


def start(name: str, target: Callable[..., object], *args: object) -> threading.Thread | None:
    """Start a daemon thread; None: it cannot be started now, which is logged once.

    The thread blocks all signals; the main thread handles them.
    """
    global start_failures, _has_warned

    def run() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        target(*args)

    thread = threading.Thread(target=run, name=name[:15], daemon=True)
    try:
        thread.start()
    except (RuntimeError, MemoryError) as error:
        start_failures += 1
        if not _has_warned:
            warn(
                f"cannot start a thread for {name} ({error}): a limit on tasks is reached (TasksMax, pids.max, "
                "ulimit -u) or memory is short; oomtrace tries again"
            )
        _has_warned = True
        return None
    if _has_warned:
        warn("threads can be started again")
    _has_warned = False
    return thread


def start_required(name: str, target: Callable[..., object], *args: object) -> threading.Thread:
    """Start a daemon thread that the program needs at its start.

    Raises TracerError if it cannot be started.
    """
    thread = start(name, target, *args)
    if thread is None:
        raise TracerError(f"cannot start a thread for {name}", "raise the limit on tasks (TasksMax, pids.max)")
    return thread
