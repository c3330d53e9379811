# SPDX-License-Identifier: Apache-2.0
"""Connections: UNIX sockets, UDP, TCP and TLS.  No step takes longer than the timeout."""

import contextlib
import errno
import fcntl
import os
import select
import socket
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tracer.delivery.sinks.destination import Option

if TYPE_CHECKING:
    import ssl  # 5 MB of memory, only where TLS is used

OPTIONS: Mapping[str, Option] = {
    "timeout": Option("Timeout of each step.", 10, "seconds", 1),
}
Dial = Callable[[], socket.socket]
"""Connects.  Raises OSError."""

_FORBIDDEN = frozenset({errno.EAFNOSUPPORT, errno.ENETUNREACH, errno.EPERM, socket.EAI_AGAIN})
_POLL_FIRST_S, _POLL_MAX_S = 0.0002, 0.02
_KEEPALIVE_S = 60
_CONFIRM_MS = 1000
_SSL_WANT_READ = 2
"""``ssl.SSL_ERROR_WANT_READ``."""


class Peer:
    """Connects when necessary, and again after every error.  Not thread-safe."""

    def __init__(self, dial: Dial, timeout_s: float) -> None:
        self._dial = dial
        self._timeout_s = timeout_s
        self._socket: socket.socket | None = None
        self._is_unconfirmed = False
        """In TLS 1.3, the server may reject the client's certificate after the client's first data."""

    def open(self) -> bool:
        """Connect if there is no usable connection; return whether the connection is new.

        Discards unsolicited data.  Raises OSError.
        """
        if self._socket is not None and (_is_unix_datagram(self._socket) or self._find_disconnect(self._socket)):
            self.close()
        if self._socket is not None:
            return False
        try:
            opened = self._dial()
        except OSError as error:
            raise explain_error(error) from error
        opened.settimeout(self._timeout_s)
        self._socket = opened
        self._is_unconfirmed = hasattr(opened, "cipher")
        return True

    def send(self, data: bytes) -> None:
        """Hand all data to this host's kernel.  Raises OSError."""
        with self._or_close() as connected:
            connected.sendall(data)

    def send_descriptor(self, descriptor: int) -> None:
        """Pass an open file through a UNIX socket.  Raises OSError."""
        with self._or_close() as connected:
            socket.send_fds(connected, [], [descriptor])

    def receive(self, max_bytes: int) -> bytes:
        """The next bytes, at least one.  Raises OSError."""
        with self._or_close() as connected:
            data = connected.recv(max_bytes)
            if not data:
                raise _closed_by_peer()
            return data

    def wait_acknowledged(self) -> None:
        """Wait until the peer's kernel has acknowledged all bytes, or the reader of a UNIX socket has read them.

        This is the best confirmation for a protocol without answers.  Raises OSError after the timeout, or if the
        connection was closed meanwhile.
        """
        with self._or_close() as connected:
            deadline_s, pause_s = time.monotonic() + self._timeout_s, _POLL_FIRST_S
            while unsent_bytes(connected):
                if time.monotonic() > deadline_s:
                    raise TimeoutError(errno.ETIMEDOUT, "data was not acknowledged within the timeout")
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, _POLL_MAX_S)
            if self._is_unconfirmed:
                poll = select.poll()
                poll.register(connected, select.POLLIN)
                poll.poll(_CONFIRM_MS)  # a server sends a session ticket, or rejects the client
            if error := self._find_disconnect(connected):
                raise error
            self._is_unconfirmed = False

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    @contextlib.contextmanager
    def _or_close(self) -> Iterator[socket.socket]:
        if self._socket is None:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        try:
            yield self._socket
        except OSError as error:
            self.close()  # it is unknown how much the peer received
            raise explain_error(error) from error

    def _find_disconnect(self, connected: socket.socket) -> OSError | None:
        """The error that ended the connection; None if it is open, as far as this host knows."""
        if _is_unix_datagram(connected):
            try:
                self._dial().close()
            except OSError as error:
                return error
            return None
        poll = select.poll()
        poll.register(connected, select.POLLIN | select.POLLRDHUP)
        events = dict(poll.poll(0)).get(connected.fileno(), 0)
        if events & select.POLLERR:
            number = connected.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            return OSError(number, os.strerror(number))
        if events & (select.POLLHUP | select.POLLRDHUP):
            return _closed_by_peer()
        if not events:
            return None
        connected.settimeout(0)
        try:
            while connected.recv(4096):
                pass
        except OSError as error:
            is_drained = isinstance(error, BlockingIOError) or error.errno == _SSL_WANT_READ
            return None if is_drained else error
        finally:
            connected.settimeout(self._timeout_s)
        return _closed_by_peer()


def dial_unix(path: str, kind: socket.SocketKind, timeout_s: float) -> Dial:
    """A UNIX socket of type SOCK_DGRAM or SOCK_STREAM."""

    def dial() -> socket.socket:
        made = socket.socket(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC)
        try:
            made.settimeout(timeout_s)
            made.connect(path)
        except OSError as error:
            made.close()
            if error.errno == errno.EPROTOTYPE:
                raise OSError(error.errno, "the socket has another type (datagram or stream)") from error
            raise
        return made

    return dial


def dial_udp(host: str, port: int) -> Dial:
    """A UDP socket, connected so that ICMP errors are reported."""

    def dial() -> socket.socket:
        failed: OSError | None = None
        for family, kind, protocol, _, address in _addresses(host, port, socket.SOCK_DGRAM):
            made = socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
            try:
                made.connect(address)
            except OSError as error:
                made.close()
                failed = error
            else:
                return made
        raise failed or OSError(errno.EADDRNOTAVAIL, f"{host} has no address")

    return dial


def dial_tcp(
    host: str,
    port: int,
    timeout_s: float,
    context: "Callable[[], ssl.SSLContext] | None" = None,
    server_name: str | None = None,
) -> Dial:
    """A TCP connection; ``context`` returns the TLS context of each connection, None: without TLS."""

    def dial() -> socket.socket:
        try:
            made = socket.create_connection((host, port), timeout_s)
        except UnicodeError as error:
            raise OSError(errno.EINVAL, f"invalid host name {host!r}") from error
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_S)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return context().wrap_socket(made, server_hostname=server_name or host) if context else made
        except BaseException:
            made.close()
            raise

    return dial


def unsent_bytes(connected: socket.socket) -> int:
    """Bytes that the peer's kernel has not acknowledged, or that the reader of a UNIX socket has not read."""
    count: bytes = fcntl.ioctl(connected.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
    return int.from_bytes(count, sys.byteorder)


def _addresses(host: str, port: int, kind: socket.SocketKind) -> "list[tuple[Any, ...]]":
    try:
        return list(socket.getaddrinfo(host, port, type=kind))
    except UnicodeError as error:
        raise OSError(errno.EINVAL, f"invalid host name {host!r}") from error


def _is_unix_datagram(connected: socket.socket) -> bool:
    """A UNIX datagram socket does not report that its reader has closed it, and unread datagrams are lost then."""
    return (connected.family, connected.type) == (socket.AF_UNIX, socket.SOCK_DGRAM)


def explain_error(error: OSError) -> OSError:
    """Name the likely cause of an error that the service's sandboxing causes."""
    if error.errno not in _FORBIDDEN:
        return error
    why = "the service's unit forbids the network: see docs/destinations.md"
    return OSError(error.errno, f"{error.strerror} ({why})")


def _closed_by_peer() -> OSError:
    return ConnectionResetError(errno.ECONNRESET, "the peer closed the connection")
