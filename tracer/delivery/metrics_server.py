# SPDX-License-Identifier: Apache-2.0
"""HTTP for whoever scrapes metrics: one thread, a bounded number of connections, each with a bounded size and time.

Anybody who reaches the port may open connections and leave them idle.  They cost the daemon CONNECTIONS_MAX
descriptors, no thread, and at most a tenth of one CPU.
"""

import contextlib
import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

from tracer.base import threads
from tracer.base.log import warn

CONNECTIONS_MAX = 16
"""Beyond, the address with the most connections loses its oldest one."""
CONNECTION_S = 10.0
"""From accept to the end of the answer: Prometheus' own timeout of a scrape."""
REQUEST_MAX_BYTES = 8192
REST = 9
"""The thread rests so many times as long as it has worked."""
REST_MAX_S = 0.5
RETRY_S = 1.0
"""Without a free descriptor, no connection is accepted for so long."""
_RECEIVE_BYTES = 4096


class Request(NamedTuple):
    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    """Names in lower case."""


class Response(NamedTuple):
    status: str
    """``200 OK``"""
    headers: list[tuple[str, str]]
    body: bytes


class _Connection:
    def __init__(self, accepted: socket.socket, address: str) -> None:
        self.socket = accepted
        self.address = address
        self.ends_s = time.monotonic() + CONNECTION_S
        self.received = bytearray()
        self.awaits = selectors.EVENT_READ
        self.unsent: memoryview | None = None
        """None: the request is not complete."""


class MetricsServer:
    """Listens from the start on; ``answer`` and ``wrap`` are called in the server's thread.

    ``wrap`` makes a connection one of TLS, whose handshake comes with the first bytes.

    Raises OSError where the address cannot be had.
    """

    def __init__(
        self,
        host: str,
        port: int,
        answer: Callable[[Request], Response],
        wrap: Callable[[socket.socket], socket.socket] = lambda accepted: accepted,
    ) -> None:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        is_dual = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
        self._listener = socket.create_server(address[:2], family=family, dualstack_ipv6=is_dual)
        self._listener.setblocking(False)
        self._answer = answer
        self._wrap = wrap
        self._connections: list[_Connection] = []
        """The oldest first."""
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._accepts_again_s: float | None = None
        """When to listen again; None: it listens."""
        self._has_told = False

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def start(self) -> None:
        """Serve, in a thread of its own.

        Raises TracerError where none can be started.
        """
        threads.start_required("metrics", self._serve_forever)

    def _serve_forever(self) -> None:
        while True:
            ready = self._selector.select(self._timeout_s())
            began_s = time.thread_time()
            for key, _ in ready:
                if key.data is None:
                    self._accept()
                elif key.data in self._connections:  # none that a newer one has driven out
                    self._go_on(key.data)
            self._end_late()
            time.sleep(min(REST_MAX_S, REST * (time.thread_time() - began_s)))

    def _timeout_s(self) -> float | None:
        ends = [connection.ends_s for connection in self._connections[:1]]
        ends += [] if self._accepts_again_s is None else [self._accepts_again_s]
        return max(0.0, min(ends) - time.monotonic()) if ends else None

    def _accept(self) -> None:
        try:
            accepted, address = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as error:  # no descriptor, no memory: the listener stays readable
            self._selector.unregister(self._listener)
            self._accepts_again_s = time.monotonic() + RETRY_S
            if not self._has_told:
                warn(f"cannot accept a connection to the metrics port ({error.strerror}); retrying every second")
            self._has_told = True
            return
        self._has_told = False
        accepted.setblocking(False)
        try:
            accepted = self._wrap(accepted)
        except OSError:  # it is gone already
            accepted.close()
            return
        if len(self._connections) >= CONNECTIONS_MAX:
            counts = Counter(connection.address for connection in self._connections)
            crowded, _ = counts.most_common(1)[0]
            self._end(next(connection for connection in self._connections if connection.address == crowded))
        connection = _Connection(accepted, address[0])
        self._connections.append(connection)
        self._selector.register(accepted, selectors.EVENT_READ, connection)

    def _go_on(self, connection: _Connection) -> None:
        """Receive, or send, as much as goes without waiting."""
        try:
            if connection.unsent is None:
                reply = self._reply(connection.received) if self._receive(connection) else b""
                if reply is None:
                    return
                connection.unsent = memoryview(reply)
                self._await(connection, selectors.EVENT_WRITE)
            connection.unsent = connection.unsent[connection.socket.send(connection.unsent) :]
            if not connection.unsent:
                with contextlib.suppress(OSError):
                    _say_end(connection.socket)
                self._end(connection)
        except BlockingIOError:
            return
        except OSError as error:  # a reset is the other side's business
            wanted = _wanted(error)
            if wanted is None:
                self._end(connection)
            else:
                self._await(connection, wanted)

    def _receive(self, connection: _Connection) -> bool:
        """Receive what is there; False: the other side has ended."""
        received = connection.socket.recv(_RECEIVE_BYTES)
        connection.received += received
        # TLS decrypts by records: what is left of one does not make the descriptor readable.
        pending = getattr(connection.socket, "pending", lambda: 0)()
        if pending:
            connection.received += connection.socket.recv(pending)
        return bool(received)

    def _await(self, connection: _Connection, event: int) -> None:
        if connection.awaits != event:
            connection.awaits = event
            self._selector.modify(connection.socket, event, connection)

    def _reply(self, received: bytearray) -> bytes | None:
        """The whole answer to what was received; None: the request is not complete."""
        head, is_complete, _ = received.partition(b"\r\n\r\n")
        if len(head) > REQUEST_MAX_BYTES:
            return _encode(_refusal("431 Request Header Fields Too Large"))
        if not is_complete:
            return None
        request = _parse(head.decode("latin-1"))
        if request is None:
            return _encode(_refusal("400 Bad Request"))
        try:
            return _encode(self._answer(request))
        except Exception as error:  # whatever it is: the next scrape is answered
            warn(f"cannot answer a request for metrics: {error!r}")
            return _encode(_refusal("500 Internal Server Error"))

    def _end_late(self) -> None:
        now_s = time.monotonic()
        for connection in [each for each in self._connections if each.ends_s <= now_s]:
            self._end(connection)
        if self._accepts_again_s is not None and self._accepts_again_s <= now_s:
            self._accepts_again_s = None
            self._selector.register(self._listener, selectors.EVENT_READ)

    def _end(self, connection: _Connection) -> None:
        self._connections.remove(connection)
        self._selector.unregister(connection.socket)
        connection.socket.close()


def _wanted(error: OSError) -> int | None:
    """What TLS waits for: in a handshake it may read where we send, and the other way round; None: nothing, it is over.

    By names: who has no TLS does not load it.
    """
    return {"SSLWantReadError": selectors.EVENT_READ, "SSLWantWriteError": selectors.EVENT_WRITE}.get(
        type(error).__name__
    )


def _say_end(connection: socket.socket) -> None:
    unwrap = getattr(connection, "unwrap", None)
    if unwrap is not None:
        unwrap()  # tells the other side that nothing is cut off; its answer is not waited for
    connection.shutdown(socket.SHUT_WR)


def _parse(head: str) -> Request | None:
    first, *rest = head.split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/"):
        return None
    headers: dict[str, str] = {}
    for each in rest:
        name, colon, value = each.partition(":")
        if not colon:
            return None
        headers[name.strip().lower()] = value.strip()
    path, _, query = words[1].partition("?")
    return Request(words[0], path, query, headers)


def _refusal(status: str) -> Response:
    return Response(status, [("Content-Type", "text/plain; charset=utf-8")], f"{status}\n".encode())


def _encode(response: Response) -> bytes:
    headers = [*response.headers, ("Content-Length", str(len(response.body))), ("Connection", "close")]
    lines = [f"HTTP/1.1 {response.status}", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1") + response.body
