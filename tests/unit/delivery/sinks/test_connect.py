# SPDX-License-Identifier: Apache-2.0
"""sinks/connect.py: disconnects are noticed, and no wait exceeds the timeout."""

import errno
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.lines import TIMEOUT_S
from tracer.delivery.sinks import connect
from tracer.delivery.sinks.connect import Peer

SHORT_TIMEOUT_S = 0.5


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def peer_of(server: socket.socket) -> Peer:
    return Peer(connect.dial_tcp("127.0.0.1", server.getsockname()[1], SHORT_TIMEOUT_S), SHORT_TIMEOUT_S)


def test_taken(server: socket.socket) -> None:
    """Bytes that the peer's kernel has acknowledged are delivered, although the peer has not read them."""
    peer = peer_of(server)
    assert peer.open()
    peer.send(b"x" * 1000)
    peer.wait_acknowledged()
    assert not peer.open()
    connected, _ = server.accept()
    assert connected.recv(2000) == b"x" * 1000
    connected.close()
    peer.close()


def test_who_reads_nothing(server: socket.socket) -> None:
    """A wait for data that exceeds the peer's buffers ends with the timeout."""
    peer = peer_of(server)
    peer.open()
    began_s = time.monotonic()
    with pytest.raises(TimeoutError):  # the loopback's buffers hold less
        peer.send(bytes(32 << 20))
    assert time.monotonic() - began_s < 3 * SHORT_TIMEOUT_S
    assert peer.open(), "what he got of it is unknown, so it begins anew"
    peer.close()


@pytest.mark.parametrize("is_rude", [False, True])
def test_who_closes(server: socket.socket, is_rude: bool) -> None:
    """After a disconnect between two batches, with unread bytes (a reset) or without, there is a new connection."""
    peer = peer_of(server)
    peer.open()
    peer.send(b"one")
    peer.wait_acknowledged()
    connected, _ = server.accept()
    if not is_rude:
        connected.recv(10)
    connected.close()
    until_s = time.monotonic() + 10
    while not peer.open():
        assert time.monotonic() < until_s
    peer.close()


def test_closed_after_the_bytes(server: socket.socket) -> None:
    """A peer that closes before everything is acknowledged may not have read it."""
    peer = peer_of(server)
    peer.open()
    connected, _ = server.accept()
    connected.close()
    time.sleep(0.05)
    peer.send(b"x")
    time.sleep(0.05)
    with pytest.raises(OSError):  # noqa: PT011  reset or closed, as the kernel has it
        peer.wait_acknowledged()


def test_what_is_said_unasked(server: socket.socket) -> None:
    """Unsolicited data is discarded and ends nothing; an answer is received."""
    peer = peer_of(server)
    peer.open()
    connected, _ = server.accept()
    connected.sendall(b"hello")
    time.sleep(0.05)
    assert not peer.open()
    connected.sendall(b"answer")
    assert peer.receive(100) == b"answer"
    connected.close()
    with pytest.raises(ConnectionResetError):
        peer.receive(100)


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = peer_of(server)
    with pytest.raises(ConnectionRefusedError):
        peer.open()


@pytest.mark.parametrize("host", ["a" * 70 + ".example", "..", "\udcff"])
@pytest.mark.parametrize(
    "dial", [lambda host: connect.dial_tcp(host, 1, SHORT_TIMEOUT_S), lambda host: connect.dial_udp(host, 1)]
)
def test_no_host(host: str, dial: object) -> None:
    """An invalid host name is an OSError like any other."""
    with pytest.raises(OSError):  # noqa: PT011  the resolver's words
        Peer(dial(host), SHORT_TIMEOUT_S).open()  # type: ignore[operator]


def test_network_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the sandboxing of systemd's unit."""

    def forbidden(*_: object) -> None:
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))

    monkeypatch.setattr(socket, "create_connection", forbidden)
    with pytest.raises(OSError, match="the service's unit forbids the network"):
        Peer(connect.dial_tcp("127.0.0.1", 1, SHORT_TIMEOUT_S), SHORT_TIMEOUT_S).open()


def test_datagrams(tmp_path: Path) -> None:
    """Read data is delivered, unread data is not; it is lost when the reader closes."""
    path = str(tmp_path / "s")
    reader = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    reader.bind(path)
    hasty = Peer(connect.dial_unix(path, socket.SOCK_DGRAM, SHORT_TIMEOUT_S), SHORT_TIMEOUT_S)
    hasty.open()
    hasty.send(b"one")
    with pytest.raises(TimeoutError):
        hasty.wait_acknowledged()
    peer = Peer(connect.dial_unix(path, socket.SOCK_DGRAM, TIMEOUT_S), TIMEOUT_S)
    peer.open()
    peer.send(b"two")
    threading.Timer(0.1, lambda: [reader.recv(10), reader.recv(10)]).start()
    peer.wait_acknowledged()
    peer.open()
    peer.send(b"three")
    threading.Timer(0.1, reader.close).start()
    with pytest.raises(ConnectionRefusedError):
        peer.wait_acknowledged()
    os.unlink(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(path)
        peer.open()
        peer.send(b"four")
        assert other.recv(10) == b"four"
    peer.close()


def test_another_name_of_the_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader may have bound the socket by another path, as in a container."""
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reader:
        reader.bind("s")
        monkeypatch.chdir("/")
        peer = Peer(connect.dial_unix(f"{tmp_path}/s", socket.SOCK_DGRAM, SHORT_TIMEOUT_S), SHORT_TIMEOUT_S)
        peer.open()
        peer.send(b"one")
        assert reader.recv(10) == b"one"
        peer.wait_acknowledged()
        peer.close()


def test_socket_of_another_kind(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        with pytest.raises(OSError, match="another type"):
            Peer(connect.dial_unix(f"{tmp_path}/s", socket.SOCK_DGRAM, SHORT_TIMEOUT_S), SHORT_TIMEOUT_S).open()


def test_udp_without_a_reader() -> None:
    """On this host, the kernel reports an unused port at once."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as reader:
        reader.bind(("127.0.0.1", 0))
        port = reader.getsockname()[1]
    peer = Peer(connect.dial_udp("127.0.0.1", port), SHORT_TIMEOUT_S)
    peer.open()
    peer.send(b"x")
    with pytest.raises(ConnectionRefusedError):
        peer.wait_acknowledged()
