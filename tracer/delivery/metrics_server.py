# SPDX-License-Identifier: Apache-2.0
"""HTTP server for scrapes of metrics: one thread, and connections that are bounded in number, size and time.

Any client that reaches the port may open connections and leave them idle.  They cost the daemon CONNECTIONS_MAX
descriptors, no additional thread, and at most a tenth of one CPU.
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
"""One more connection closes the oldest one of the address that has the most."""
CONNECTION_S = 10.0
"""From accept to the end of the response: the default timeout of a Prometheus scrape."""
REQUEST_MAX_BYTES = 8192
REST_FACTOR = 9
"""The thread sleeps so many times as long as it worked."""
REST_MAX_S = 0.5
ACCEPT_RETRY_S = 1.0
"""Interval between attempts to accept while no descriptor is free."""
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


class _ScrapeConnection:
    def __init__(self, accepted: socket.socket, address: str) -> None:
        self.socket = accepted
        self.address = address
        self.deadline_s = time.monotonic() + CONNECTION_S
        self.received = bytearray()
        self.awaited_event = selectors.EVENT_READ
        self.unsent: memoryview | None = None
        """Rest of the response; None until the request is complete."""


class MetricsServer:
    """Listens at once; ``start`` begins to serve.

    ``respond`` and ``wrap`` are called in the server's thread.  ``wrap`` adds TLS to a connection, without a handshake.

    Raises OSError if the address cannot be used.
    """

    def __init__(
        self,
        host: str,
        port: int,
        respond: Callable[[Request], Response],
        wrap: Callable[[socket.socket], socket.socket] = lambda accepted: accepted,
    ) -> None:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        is_dual = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
        self._listener = socket.create_server(address[:2], family=family, dualstack_ipv6=is_dual)
        self._listener.setblocking(False)
        self._respond = respond
        self._wrap = wrap
        self._connections: list[_ScrapeConnection] = []
        """Oldest first."""
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._accept_retry_s: float | None = None
        """When to accept again; None: the listener is registered."""
        self._has_warned = False

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def start(self) -> None:
        """Serve in a thread.

        Raises TracerError if it cannot be started.
        """
        threads.start_required("metrics", self._serve_forever)

    def _serve_forever(self) -> None:
        while True:
            ready = self._selector.select(self._timeout_s())
            began_s = time.thread_time()
            for key, _ in ready:
                if key.data is None:
                    self._accept()
                elif key.data in self._connections:  # a newer connection may have replaced it
                    self._continue(key.data)
            self._close_expired()
            time.sleep(min(REST_MAX_S, REST_FACTOR * (time.thread_time() - began_s)))

    def _timeout_s(self) -> float | None:
        deadlines = [connection.deadline_s for connection in self._connections[:1]]
        deadlines += [] if self._accept_retry_s is None else [self._accept_retry_s]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _accept(self) -> None:
        try:
            accepted, address = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as error:  # no descriptor, no memory: the listener stays readable
            self._selector.unregister(self._listener)
            self._accept_retry_s = time.monotonic() + ACCEPT_RETRY_S
            if not self._has_warned:
                warn(f"cannot accept a connection to the metrics port ({error.strerror}); retrying every second")
            self._has_warned = True
            return
        self._has_warned = False
        accepted.setblocking(False)
        try:
            accepted = self._wrap(accepted)
        except OSError:  # the client has disconnected already
            accepted.close()
            return
        if len(self._connections) >= CONNECTIONS_MAX:
            counts = Counter(connection.address for connection in self._connections)
            busiest, _ = counts.most_common(1)[0]
            self._close(next(connection for connection in self._connections if connection.address == busiest))
        connection = _ScrapeConnection(accepted, address[0])
        self._connections.append(connection)
        self._selector.register(accepted, selectors.EVENT_READ, connection)

    def _continue(self, connection: _ScrapeConnection) -> None:
        """Receive or send what is possible without blocking."""
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
                    _shut_down(connection.socket)
                self._close(connection)
        except BlockingIOError:
            return
        except OSError as error:
            event = _event_tls_waits_for(error)
            if event is None:
                self._close(connection)
            else:
                self._await(connection, event)

    def _receive(self, connection: _ScrapeConnection) -> bool:
        """Receive available bytes; return False at the end of the stream."""
        received = connection.socket.recv(_RECEIVE_BYTES)
        connection.received += received
        # TLS decrypts whole records: the rest of one does not make the descriptor readable.
        pending = getattr(connection.socket, "pending", lambda: 0)()
        if pending:
            connection.received += connection.socket.recv(pending)
        return bool(received)

    def _await(self, connection: _ScrapeConnection, event: int) -> None:
        if connection.awaited_event != event:
            connection.awaited_event = event
            self._selector.modify(connection.socket, event, connection)

    def _reply(self, received: bytearray) -> bytes | None:
        """The encoded response; None if the request is not complete."""
        head, is_complete, _ = received.partition(b"\r\n\r\n")
        if len(head) > REQUEST_MAX_BYTES:
            return _encode(_error_response("431 Request Header Fields Too Large"))
        if not is_complete:
            return None
        request = _parse_request(head.decode("latin-1"))
        if request is None:
            return _encode(_error_response("400 Bad Request"))
        try:
            return _encode(self._respond(request))
        except Exception as error:  # the server must survive any error
            warn(f"cannot answer a request for metrics: {error!r}")
            return _encode(_error_response("500 Internal Server Error"))

    def _close_expired(self) -> None:
        now_s = time.monotonic()
        for connection in [each for each in self._connections if each.deadline_s <= now_s]:
            self._close(connection)
        if self._accept_retry_s is not None and self._accept_retry_s <= now_s:
            self._accept_retry_s = None
            self._selector.register(self._listener, selectors.EVENT_READ)

    def _close(self, connection: _ScrapeConnection) -> None:
        self._connections.remove(connection)
        self._selector.unregister(connection.socket)
        connection.socket.close()


def _event_tls_waits_for(error: OSError) -> int | None:
    """The event that TLS needs to continue: a handshake may read during a send, and vice versa; None for other errors.

    Compares names of classes, so that ``ssl`` is not loaded without TLS.
    """
    return {"SSLWantReadError": selectors.EVENT_READ, "SSLWantWriteError": selectors.EVENT_WRITE}.get(
        type(error).__name__
    )


def _shut_down(connection: socket.socket) -> None:
    unwrap = getattr(connection, "unwrap", None)
    if unwrap is not None:
        unwrap()  # sends close_notify, so the client knows that the response is complete; its own is not awaited
    connection.shutdown(socket.SHUT_WR)


def _parse_request(head: str) -> Request | None:
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


def _error_response(status: str) -> Response:
    return Response(status, [("Content-Type", "text/plain; charset=utf-8")], f"{status}\n".encode())


def _encode(response: Response) -> bytes:
    headers = [*response.headers, ("Content-Length", str(len(response.body))), ("Connection", "close")]
    lines = [f"HTTP/1.1 {response.status}", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1") + response.body
