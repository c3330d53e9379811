# SPDX-License-Identifier: Apache-2.0
"""What the daemon waits for: events in ring buffers, and signals."""

import os
import select
import signal
from collections.abc import Iterable

STOPS = frozenset({signal.SIGTERM, signal.SIGINT})
RELOAD = signal.SIGHUP


class EventPoll:
    """Waits on epoll.  Replaces the default actions of the signals STOPS and RELOAD by a wake-up.

    ``retained``: descriptors of ring buffers whose events stay after they are read.  These stay readable, so only new
    events wake (edge-triggered).  ``emptied``: descriptors of ring buffers that are released at once.
    """

    def __init__(self, retained: Iterable[int], emptied: Iterable[int]) -> None:
        self._signals, signalled = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(signalled, warn_on_full_buffer=False)
        for number in (*STOPS, RELOAD):
            signal.signal(number, lambda *_: None)
        self._poll = select.epoll()
        for descriptor in retained:
            self._poll.register(descriptor, select.EPOLLIN | select.EPOLLET)
        for descriptor in (*emptied, self._signals):
            self._poll.register(descriptor, select.EPOLLIN)

    def wait(self, timeout_s: float | None) -> bytes:
        """Wait for an event or a signal; the numbers of the signals that were caught.  None: without a timeout."""
        ready = {descriptor for descriptor, _ in self._poll.poll(timeout_s)}
        return os.read(self._signals, 64) if self._signals in ready else b""
