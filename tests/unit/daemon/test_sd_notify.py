# SPDX-License-Identifier: Apache-2.0
"""sd_notify.py: the service manager's notifications, received on a real socket."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tracer.daemon.sd_notify import Notifier

Hear = Callable[[], list[str]]


@pytest.fixture(params=["path", "abstract"])
def hear(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hear]:
    """The datagrams received."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@oomtrace-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address.replace("@", "\0", 1))
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", address)

        def read() -> list[str]:
            heard = []
            while True:
                try:
                    heard.append(manager.recv(4096).decode())
                except BlockingIOError:
                    return heard

        yield read


def test_states(hear: Hear) -> None:
    """Each state is one datagram as in sd_notify(3); children do not inherit the socket's address."""
    notifier = Notifier()
    assert "NOTIFY_SOCKET" not in os.environ
    notifier.ready()
    before_us = time.monotonic_ns() // 1000
    notifier.reloading()
    notifier.stopping()
    ready, reloading, stopping = hear()
    assert (ready, stopping) == ("READY=1", "STOPPING=1")
    state, _, since = reloading.partition("\nMONOTONIC_USEC=")
    assert state == "RELOADING=1"
    assert before_us <= int(since) <= time.monotonic_ns() // 1000


def test_watchdog(hear: Hear, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watchdog notification is sent after half of the timeout, not before."""
    monkeypatch.setenv("WATCHDOG_USEC", "4000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    began_ns = time.monotonic_ns()
    notifier = Notifier()
    due_ns = notifier.deadline_ns()
    assert due_ns is not None
    assert 2.0 <= (due_ns - began_ns) / 1e9 < 3.0
    notifier.keep_alive(due_ns - 1)
    assert hear() == []
    notifier.keep_alive(due_ns)
    assert hear() == ["WATCHDOG=1"]
    assert notifier.deadline_ns() == due_ns + 2_000_000_000


@pytest.mark.parametrize(
    "environment", [{}, {"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}]
)
def test_not_watched(hear: Hear, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a watchdog, or with one for another process, there is no deadline."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    notifier = Notifier()
    assert notifier.deadline_ns() is None
    notifier.keep_alive(time.monotonic_ns() + 10**12)
    assert hear() == []


@pytest.mark.parametrize("address", ["", "/nonexistent/notify"])
def test_nobody_listens(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a service manager, or after its end, nothing is sent and nothing fails."""
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    Notifier().ready()
