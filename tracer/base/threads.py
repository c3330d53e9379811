# SPDX-License-Identifier: Apache-2.0
"""Starts threads where that may fail: TasksMax of the service's unit, pids.max of a pod, RLIMIT_NPROC, no memory.

Who needs a thread tries again later; what it is for stays undone until then.
"""

import signal
import threading
from collections.abc import Callable

from tracer.base.errors import TracerError
from tracer.base.log import warn

start_failures = 0
"""So many could not be started."""
_has_told = False


def start(name: str, target: Callable[..., object], *args: object) -> threading.Thread | None:
    """A thread that does not keep the process from its end; None: none can be started now, which is told once.

    It is sent no signals: they are the main thread's.
    """
    global start_failures, _has_told

    def run() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        target(*args)

    thread = threading.Thread(target=run, name=name[:15], daemon=True)
    try:
        thread.start()
    except (RuntimeError, MemoryError) as error:
        start_failures += 1
        if not _has_told:
            warn(
                f"cannot start a thread for {name} ({error}): a limit on tasks is reached (TasksMax, pids.max, "
                "ulimit -u) or memory is short; it is tried again"
            )
        _has_told = True
        return None
    if _has_told:
        warn("threads can be started again")
    _has_told = False
    return thread


def start_required(name: str, target: Callable[..., object], *args: object) -> threading.Thread:
    """A thread without which its part of the program cannot begin.

    Raises TracerError where none can be started.
    """
    thread = start(name, target, *args)
    if thread is None:
        raise TracerError(f"cannot start a thread for {name}", "raise the limit on tasks (TasksMax, pids.max)")
    return thread
