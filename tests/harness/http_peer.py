# SPDX-License-Identifier: Apache-2.0
"""A server of HTTP that answers as a test says, and keeps what it was asked."""

import contextlib
import gzip
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

DIE = b"die"
"""As an answer: the connection is closed without one."""


class Reply(NamedTuple):
    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = {}
    raw: bytes = b""
    """Sent in place of all that; DIE: nothing is."""
    closes: bool = False
    """Close the connection afterwards, without having said so."""


class Asked(NamedTuple):
    path: str
    headers: Mapping[str, str]
    body: bytes
    """Unpacked."""
    client: int
    """The connection's other port."""
    status: int = 0
    """What was answered."""


class Peer:
    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.replies: list[Reply] = []
        """For the next requests; then all is well."""
        self.answer: Callable[[bytes], bytes] = lambda _body: b""
        """Or what is answered to a body then."""
        self.status: Callable[[bytes], int] = lambda _body: 200
        """And with which status."""
        self.echoes = ""
        """A header whose value each reply begins with."""
        self.port = 0

    @property
    def bodies(self) -> list[bytes]:
        return [asked.body for asked in self.asked]


@contextlib.contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[Peer]:
    peer = Peer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers["Content-Encoding"] == "gzip":
                body = gzip.decompress(body)
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = peer.replies.pop(0) if peer.replies else Reply(peer.status(body), peer.answer(body))
            peer.asked.append(Asked(self.path, headers, body, self.client_address[1], reply.status))
            if peer.echoes:
                reply = reply._replace(body=headers.get(peer.echoes, "").encode() + reply.body)
            self.close_connection = reply.closes or bool(reply.raw)
            if reply.raw:
                with contextlib.suppress(OSError):
                    self.wfile.write(reply.raw.removeprefix(DIE))
                return
            self.send_response(reply.status)
            for name, value in {**reply.headers, "Content-Length": str(len(reply.body))}.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(reply.body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    peer.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield peer
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
