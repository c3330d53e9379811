# SPDX-License-Identifier: Apache-2.0
"""HTTP requests over one persistent connection, with or without TLS.  No request takes longer than the timeout."""

import base64
import contextlib
import errno
import gzip
import io
import select
import socket
import time
from collections.abc import Iterable, Mapping
from http.client import HTTPConnection, HTTPException, HTTPResponse
from ssl import SSLError
from typing import Any, NamedTuple

from tracer.base.errors import TracerError
from tracer.base.printable import printable
from tracer.delivery.sinks import RejectedError, connect, tls
from tracer.delivery.sinks.destination import Destination, Option
from tracer.delivery.spool_dir import fnv1a, redact_uri

OPTIONS: Mapping[str, Option] = {
    "batch": Option("Maximum number of lines per request.", 100, "count"),
    "timeout": Option("Timeout of a request.", 10, "seconds", 1),
    "compress": Option("Compression of the request.", "gzip", ("gzip", "none")),
    "headers": Option("Additional headers: `NAME=VALUE,NAME=VALUE`.", None, "list"),
    "header": Option("Additional secret headers: `NAME: VALUE`, one per line.", None, "secret"),
    "token": Option("Token (`Authorization`).", None, "secret"),
    "user": Option("User name for basic authentication, instead of a token."),
    "password": Option("Password for basic authentication.", None, "secret"),
    **tls.OPTIONS,
}

ANSWER_MAX_BYTES = 4 << 20
EXCERPT_CHARACTERS = 200
EXCERPT_SOURCE_BYTES = 16 << 10
REDACTED = "***"
IDLE_S = 30.0
"""A connection that was idle for longer is replaced: a firewall on the way may have dropped it."""
REJECTED = frozenset({400, 413, 422})


class RetryableError(OSError):
    """The server did not accept the lines, and may accept them later."""

    def __init__(self, reason: str, retry_after_s: float = 0.0) -> None:
        super().__init__(errno.EPROTO, reason)
        self.retry_after_s = retry_after_s


class HttpResponse(NamedTuple):
    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    secrets: tuple[str, ...] = ()
    """Secrets of the request, which messages must not show: some servers echo them."""

    @property
    def body_excerpt(self) -> str:
        """The beginning of the body, for messages."""
        return self.excerpt(self.body[:EXCERPT_SOURCE_BYTES].decode("utf-8", "replace"))

    def excerpt(self, text: str) -> str:
        """The beginning of a text of the server: printable, without secrets, on one line."""
        return _excerpt(text, self.secrets)

    def raise_for_status(self) -> None:
        """Raises RetryableError or RejectedError for a status that is not a success.

        A rejection is not certain: proxies, and servers with a wrong configuration, use the same statuses.
        """
        if self.status in range(200, 300):
            return
        location = self.excerpt(redact_uri(self.headers.get("location", "").partition("?")[0]))
        reason = (
            f"the server answered {self.status} {f'to {location} ' if location else ''}{self.body_excerpt}".rstrip()
        )
        if self.status in REJECTED:
            raise RejectedError(reason, is_certain=False)
        raise RetryableError(reason, _parse_retry_after(self.headers.get("retry-after", "")))


class HttpClient:
    """POST requests to one server.  Connects at the first request, and again after every error.  Not thread-safe."""

    def __init__(self, destination: Destination, auth_scheme: str, default_port: int | None = None) -> None:
        """Raises TracerError if options contradict each other, or a file that they name cannot be used."""
        is_tls = destination.scheme.endswith("s")
        self._host, self._port = destination.host_port(default_port or (443 if is_tls else 80))
        self._destination, self._auth_scheme = destination, auth_scheme
        self._timeout_s = float(destination.options["timeout"] or 0)
        self._is_gzip = destination.options["compress"] == "gzip"
        if not is_tls and any(destination.options[name] != option.default for name, option in tls.OPTIONS.items()):
            raise self._error("TLS options require TLS", f"write {destination.scheme}s://, or remove them")
        context = tls.ClientContext(destination, ["http/1.1"]).current if is_tls else None
        server_name = tls.server_name(destination, self._host)
        dial = connect.dial_tcp(self._host, self._port, self._timeout_s, context, server_name)
        self._connection = _TimedConnection(self._host, self._port, dial, is_tls)
        self._headers, self._secrets = self._make_headers()
        self._last_used_s = 0.0
        self.uri = self._display_uri()

    def _display_uri(self) -> str:
        """The URI without its path, which may be a secret; a hash of the path distinguishes outputs to one host."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        path, name = self._destination.path, self._destination.options["name"]
        suffix = name or (f"{fnv1a(path.encode('utf-8', 'surrogateescape')):016x}"[-4:] if path.strip("/") else "")
        return f"{self._destination.scheme}://{host}:{self._port}" + (f"#{suffix}" if suffix else "")

    def post(self, path: str, body: bytes, content_type: str, headers: Mapping[str, str]) -> HttpResponse:
        """Send a request and return the response, whatever its status.

        Raises OSError if there is none.
        """
        all_headers = {"Content-Type": content_type, **headers}
        if self._is_gzip:
            body = gzip.compress(body, 6, mtime=0)
            all_headers["Content-Encoding"] = "gzip"
        is_reused = self._is_reusable()
        try:
            try:
                response = self._exchange(path, body, all_headers)
            except (ConnectionError, HTTPException, SSLError):
                if not is_reused:
                    raise
                self.close()  # the server closed the idle connection meanwhile
                response = self._exchange(path, body, all_headers)
        except HTTPException as error:
            self.close()
            raise OSError(
                errno.EPROTO, _excerpt(f"the server answered invalid HTTP: {error!r}", self._secrets)
            ) from error
        except OSError as error:
            self.close()
            raise _explain(error) from error
        except BaseException:
            self.close()
            raise
        if response.status in (401, 403):
            self._reload_headers()
        return response

    def close(self) -> None:
        self._connection.close()

    def _exchange(self, path: str, body: bytes, headers: Mapping[str, str]) -> HttpResponse:
        self._connection.deadline_s = time.monotonic() + self._timeout_s
        if self._connection.sock is not None:
            self._connection.sock.settimeout(self._timeout_s)
        else:
            self._reload_headers()
        self._connection.request("POST", path, body, {**headers, **self._headers})
        with self._connection.getresponse() as received:
            data = received.read(ANSWER_MAX_BYTES)
            received_headers = {name.lower(): value for name, value in received.getheaders()}
            response = HttpResponse(received.status, received_headers, data, self._secrets)
            if not received.isclosed():
                self._connection.close()  # the rest of the body is not read
        self._last_used_s = time.monotonic()
        return response

    def _is_reusable(self) -> bool:
        """Whether there is an open connection that can be used again; closes one that cannot."""
        connected = self._connection.sock
        if connected is None:
            return False
        poll = select.poll()
        poll.register(connected, select.POLLIN | select.POLLRDHUP)
        if time.monotonic() - self._last_used_s < IDLE_S and not poll.poll(0):
            return True
        self.close()
        return False

    def _reload_headers(self) -> None:
        """Read secrets again, because tokens are renewed; if that fails, keep the old ones."""
        with contextlib.suppress(TracerError):
            self._headers, self._secrets = self._make_headers()

    def _make_headers(self) -> tuple[dict[str, str], tuple[str, ...]]:
        """Headers of every request, and the secrets in them, the longest first.

        Raises TracerError.
        """
        headers, secrets = {"User-Agent": "oomtrace"}, set[str]()
        for name, value in self._configured_headers():
            headers[name] = value
        for name, value in self._secret_headers():
            headers[name] = value
            secrets |= {value, value.partition(" ")[2]}  # with and without an authorization scheme
        authorization, credentials = self._authorization()
        if authorization is not None:
            headers["Authorization"] = authorization
        for name, value in headers.items():
            if not (name.isascii() and name.replace("-", "").replace("_", "").isalnum()):
                raise self._error(f"invalid header name {name[:20]!r}", "use letters, digits and -")
            if not (value.isascii() and value.isprintable()):
                raise self._error(f"the value of header {name} is not printable ASCII", "use one line of ASCII")
        return headers, tuple(sorted((secrets | credentials) - {""}, key=len, reverse=True))

    def _configured_headers(self) -> list[tuple[str, str]]:
        """Option ``headers``: ``NAME=VALUE,...``."""
        pairs = str(self._destination.options["headers"] or "").split(",")
        return [self._split_header(pair, "=") for pair in pairs if pair]

    def _secret_headers(self) -> list[tuple[str, str]]:
        """Option ``header``: lines of ``NAME: VALUE``."""
        lines = (self._destination.secret("header") or "").splitlines()
        return [self._split_header(line, ":") for line in lines if line.strip()]

    def _split_header(self, text: str, separator: str) -> tuple[str, str]:
        name, found, value = text.partition(separator)
        if not found:
            raise self._error(f"header {name[:20]!r} has no value", "write NAME=VALUE, in a file NAME: VALUE")
        return name.strip(), value.strip()

    def _authorization(self) -> tuple[str | None, set[str]]:
        """The value of ``Authorization``, if there is one, and the secrets in it."""
        token, user = self._destination.secret("token"), self._destination.options["user"]
        if token is not None and user is not None:
            raise self._error("user and token exclude each other", "remove one of them")
        if token is not None:
            return f"{self._auth_scheme} {token}", {token}
        if user is None:
            return None, set()
        password = self._destination.secret("password") or ""
        pair = base64.b64encode(f"{user}:{password}".encode()).decode()
        return f"Basic {pair}", {password, pair}

    def _error(self, what: str, hint: str) -> TracerError:
        return TracerError(f"output {self._destination.scheme}://{self._host}: {what}", hint)


class _TimedConnection(HTTPConnection):
    deadline_s = 0.0
    """CLOCK_MONOTONIC time at which the response must be complete."""

    def __init__(self, host: str, port: int, dial: connect.Dial, is_tls: bool) -> None:
        super().__init__(host, port)
        self.default_port = 443 if is_tls else 80
        self._dial = dial
        self.response_class = _response_class(self)

    def connect(self) -> None:
        self.sock = self._dial()


def _response_class(connection: _TimedConnection) -> Any:
    def make(sock: socket.socket, *arguments: Any, **named: Any) -> HTTPResponse:
        response = HTTPResponse(sock, *arguments, **named)
        response.fp = io.BufferedReader(_DeadlineReader(sock, response.fp, connection.deadline_s))
        return response

    return make


class _DeadlineReader(io.RawIOBase):
    """Reads from a socket until a deadline, so a server that sends single bytes cannot exceed the timeout."""

    def __init__(self, sock: socket.socket, file: io.BufferedReader, deadline_s: float) -> None:
        """``file`` is the socket's own, which keeps it open."""
        self._socket, self._file, self._deadline_s = sock, file, deadline_s

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()

    def readinto(self, buffer: Any) -> int | None:
        left_s = self._deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError(errno.ETIMEDOUT, "no answer within the timeout")
        self._socket.settimeout(left_s)
        return self._file.raw.readinto(buffer)


def _excerpt(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, REDACTED).replace(secret.replace("/", "\\/"), REDACTED)  # / may be escaped in JSON
    return printable(" ".join(text.split()))[:EXCERPT_CHARACTERS]


def _explain(error: OSError) -> OSError:
    if isinstance(error, TimeoutError):
        return TimeoutError(errno.ETIMEDOUT, "no answer within the timeout")
    if error.strerror is None:
        return OSError(errno.ECONNRESET, str(error))
    return connect.explain_error(error)


def _parse_retry_after(text: str) -> float:
    """Seconds of a Retry-After header; 0 for a date, which depends on the server's clock."""
    return float(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0.0
