# SPDX-License-Identifier: Apache-2.0
"""Tells the service manager how it goes: the protocol of sd_notify(3), a datagram to the socket that it names."""

import contextlib
import os
import socket
import time


class Notifier:
    """Silent where no service manager waits for news."""

    def __init__(self) -> None:
        address = os.environ.pop("NOTIFY_SOCKET", "")  # not for the child that compiles
        usec, pid = os.environ.pop("WATCHDOG_USEC", ""), os.environ.pop("WATCHDOG_PID", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        # Twice in the time after which it is taken for hung, as sd_watchdog_enabled(3) advises.
        is_watched = bool(address) and usec.isdecimal() and pid in ("", str(os.getpid()))
        self._interval_ns = int(usec) * 1000 // 2 if is_watched else 0
        self._deadline_ns = time.monotonic_ns() + self._interval_ns

    def ready(self) -> None:
        self._send("READY=1")

    def reloading(self) -> None:
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def deadline_ns(self) -> int | None:
        """When the watchdog wants a sign of life, in CLOCK_MONOTONIC; None: never."""
        return self._deadline_ns if self._interval_ns else None

    def keep_alive(self, now_ns: int) -> None:
        """Give that sign when it is time."""
        if self._interval_ns and now_ns >= self._deadline_ns:
            self._deadline_ns = now_ns + self._interval_ns
            self._send("WATCHDOG=1")

    def _send(self, state: str) -> None:
        if not self._address:
            return
        # A manager that does not listen is no reason to stop tracing.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.settimeout(1.0)
            manager.sendto(state.encode(), self._address)
