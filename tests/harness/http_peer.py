# SPDX-License-Identifier: Apache-2.0
"""An HTTP server with the replies of a test, which stores the requests."""

import contextlib
import gzip
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

DIE = b"die"
"""As ``Reply.raw``: close the connection without a reply."""


class Reply(NamedTuple):
    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = {}
    raw: bytes = b""
    """Sent instead of all that; DIE sends nothing."""
    closes: bool = False
    """Close the connection afterwards, without announcing it."""


class Asked(NamedTuple):
    path: str
    headers: Mapping[str, str]
    body: bytes
    """Decompressed."""
    client: int
    """Port of the client."""
    status: int = 0
    """Status of the reply."""


class Peer:
    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.replies: list[Reply] = []
        """For the next requests, one each."""
        self.answer: Callable[[bytes], bytes] = lambda _body: b""
        """Body of further replies, from that of the request."""
        self.status: Callable[[bytes], int] = lambda _body: 200
        """Status of further replies, from the body of the request."""
        self.echoes = ""
        """Name of a request header whose value starts each reply."""
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
