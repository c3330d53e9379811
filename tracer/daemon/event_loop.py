# SPDX-License-Identifier: Apache-2.0
"""What the daemon waits for: events in the ring buffers, and signals."""

import os
import select
import signal
from collections.abc import Iterable

STOPS = frozenset({signal.SIGTERM, signal.SIGINT})
RELOAD = signal.SIGHUP


class EventPoll:
    """From here on these signals are noted instead of what they do by default.

    ``kept``: descriptors of ring buffers in which events stay when they are read, and which so stay readable: what is
    new wakes.  ``emptied``: of those that are let go of at once.
    """

    def __init__(self, kept: Iterable[int], emptied: Iterable[int]) -> None:
        self._signals, signalled = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(signalled, warn_on_full_buffer=False)
        for number in (*STOPS, RELOAD):
            signal.signal(number, lambda *_: None)
        self._poll = select.epoll()
        for descriptor in kept:
            self._poll.register(descriptor, select.EPOLLIN | select.EPOLLET)
        for descriptor in (*emptied, self._signals):
            self._poll.register(descriptor, select.EPOLLIN)

    def wait(self, timeout_s: float | None) -> bytes:
        """The numbers of the signals that have come, once there is anything to do; None: however long it takes."""
        ready = {descriptor for descriptor, _ in self._poll.poll(timeout_s)}
        return os.read(self._signals, 64) if self._signals in ready else b""
