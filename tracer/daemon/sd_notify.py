# SPDX-License-Identifier: Apache-2.0
"""Notifications for the service manager: the protocol of sd_notify(3), a datagram to the socket in $NOTIFY_SOCKET."""

import contextlib
import os
import socket
import time


class Notifier:
    """Sends nothing if no service manager asked for notifications."""

    def __init__(self) -> None:
        address = os.environ.pop("NOTIFY_SOCKET", "")  # removed, so that the bcc child does not inherit it
        usec, pid = os.environ.pop("WATCHDOG_USEC", ""), os.environ.pop("WATCHDOG_PID", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        # Half of the watchdog timeout, as sd_watchdog_enabled(3) advises.
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
        """When the next watchdog notification is due, in CLOCK_MONOTONIC; None: there is no watchdog."""
        return self._deadline_ns if self._interval_ns else None

    def keep_alive(self, now_ns: int) -> None:
        """Send the watchdog notification if it is due."""
        if self._interval_ns and now_ns >= self._deadline_ns:
            self._deadline_ns = now_ns + self._interval_ns
            self._send("WATCHDOG=1")

    def _send(self, state: str) -> None:
        if not self._address:
            return
        # A service manager that does not listen must not stop the capture.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.settimeout(1.0)
            manager.sendto(state.encode(), self._address)
