# SPDX-License-Identifier: Apache-2.0
"""Connections to whoever takes the lines: UNIX sockets, UDP, TCP and TLS.  No step takes longer than the timeout."""

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
    import ssl  # takes 5 MB, of those who want TLS

OPTIONS: Mapping[str, Option] = {
    "timeout": Option("Timeout of each step.", 10, "seconds", 1),
}
Dial = Callable[[], socket.socket]
"""Connects.  Raises OSError."""

_FORBIDDEN = frozenset({errno.EAFNOSUPPORT, errno.ENETUNREACH, errno.EPERM, socket.EAI_AGAIN})
_TAKEN_FIRST_S, _TAKEN_MAX_S = 0.0002, 0.02
_KEEPALIVE_S = 60
_PROOF_MS = 1000
_SSL_WANT_READ = 2
"""``ssl.SSL_ERROR_WANT_READ``."""


class Peer:
    """Connected when that is first needed, and anew after every error.  From one thread."""

    def __init__(self, dial: Dial, timeout_s: float) -> None:
        self._dial = dial
        self._timeout_s = timeout_s
        self._socket: socket.socket | None = None
        self._is_unproven = False
        """In TLS 1.3 a client whose certificate is refused is told so after it could send."""

    def open(self) -> bool:
        """Connect, unless it is connected to somebody who is still there; True: this connection is new.

        What he has said unasked is thrown away.  Raises OSError.
        """
        if self._socket is not None and (_is_mailbox(self._socket) or self._end(self._socket)):
            self.close()
        if self._socket is not None:
            return False
        try:
            opened = self._dial()
        except OSError as error:
            raise explain_error(error) from error
        opened.settimeout(self._timeout_s)
        self._socket = opened
        self._is_unproven = hasattr(opened, "cipher")
        return True

    def send(self, data: bytes) -> None:
        """All of it, as far as this host's kernel.  Raises OSError."""
        with self._or_close() as connected:
            connected.sendall(data)

    def pass_on(self, descriptor: int) -> None:
        """An open file, to who is at a UNIX socket.  Raises OSError."""
        with self._or_close() as connected:
            socket.send_fds(connected, [], [descriptor])

    def receive(self, max_bytes: int) -> bytes:
        """What comes next, at least one byte.  Raises OSError."""
        with self._or_close() as connected:
            data = connected.recv(max_bytes)
            if not data:
                raise _closed()
            return data

    def wait_until_taken(self) -> None:
        """Until the other host's kernel has acknowledged all bytes, or who is at a UNIX socket has read them.

        It can do no more where the protocol has no answers.  Raises OSError where that takes too long, or the
        connection ended meanwhile.
        """
        with self._or_close() as connected:
            until_s, pause_s = time.monotonic() + self._timeout_s, _TAKEN_FIRST_S
            while unsent_bytes(connected):
                if time.monotonic() > until_s:
                    raise TimeoutError(errno.ETIMEDOUT, "it has not taken all")
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, _TAKEN_MAX_S)
            if self._is_unproven:
                poll = select.poll()
                poll.register(connected, select.POLLIN)
                poll.poll(_PROOF_MS)  # servers send a ticket, or refuse
            if end := self._end(connected):
                raise end
            self._is_unproven = False

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
            self.close()  # what it has got of this is unknown
            raise explain_error(error) from error

    def _end(self, connected: socket.socket) -> OSError | None:
        """What ended the connection, as far as that is known here; None: the other side is still there."""
        if _is_mailbox(connected):
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
            return _closed()
        if not events:
            return None
        connected.settimeout(0)
        try:
            while connected.recv(4096):
                pass
        except OSError as error:
            is_all = isinstance(error, BlockingIOError) or error.errno == _SSL_WANT_READ
            return None if is_all else error
        finally:
            connected.settimeout(self._timeout_s)
        return _closed()


def dial_unix(path: str, kind: socket.SocketKind, timeout_s: float) -> Dial:
    """A socket in the file system, for datagrams or a stream."""

    def dial() -> socket.socket:
        made = socket.socket(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC)
        try:
            made.settimeout(timeout_s)
            made.connect(path)
        except OSError as error:
            made.close()
            if error.errno == errno.EPROTOTYPE:
                raise OSError(error.errno, "it is a socket of another kind (datagrams or stream)") from error
            raise
        return made

    return dial


def dial_udp(host: str, port: int) -> Dial:
    """Datagrams to one host, which tells if nobody is there."""

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
    """A stream, with TLS if there is what gives contexts."""

    def dial() -> socket.socket:
        try:
            made = socket.create_connection((host, port), timeout_s)
        except UnicodeError as error:
            raise OSError(errno.EINVAL, f"{host!r} is no name of a host") from error
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
    """What the peer's kernel has not acknowledged; of a UNIX socket what its reader has not read."""
    count: bytes = fcntl.ioctl(connected.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
    return int.from_bytes(count, sys.byteorder)


def _addresses(host: str, port: int, kind: socket.SocketKind) -> "list[tuple[Any, ...]]":
    try:
        return list(socket.getaddrinfo(host, port, type=kind))
    except UnicodeError as error:
        raise OSError(errno.EINVAL, f"{host!r} is no name of a host") from error


def _is_mailbox(connected: socket.socket) -> bool:
    """Who reads a UNIX socket for datagrams tells nobody of his end, and takes with him what he has not read."""
    return (connected.family, connected.type) == (socket.AF_UNIX, socket.SOCK_DGRAM)


def explain_error(error: OSError) -> OSError:
    if error.errno not in _FORBIDDEN:
        return error
    why = "the service's unit forbids the network: see docs/destinations.md"
    return OSError(error.errno, f"{error.strerror} ({why})")


def _closed() -> OSError:
    return ConnectionResetError(errno.ECONNRESET, "it has closed the connection")
