# SPDX-License-Identifier: Apache-2.0
"""Requests over one connection that is kept, with TLS or without.  None takes longer than the timeout."""

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
TOLD_CHARACTERS = 200
BLANK = "***"
READ_FOR_WORDS_BYTES = 16 << 10
IDLE_S = 30.0
"""A connection that was not used for so long is made anew: what is between may have forgotten it."""
REJECTED = frozenset({400, 413, 422})


class RetryableError(OSError):
    """They were not taken now."""

    def __init__(self, reason: str, retry_after_s: float = 0.0) -> None:
        super().__init__(errno.EPROTO, reason)
        self.retry_after_s = retry_after_s


class HttpResponse(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes
    secrets: tuple[str, ...] = ()
    """What was sent, and is not to be told: some servers repeat it."""

    @property
    def words(self) -> str:
        """Its beginning, fit for everybody's eyes."""
        return self.told(self.body[:READ_FOR_WORDS_BYTES].decode("utf-8", "replace"))

    def told(self, text: str) -> str:
        """The beginning of what the other side says, without secrets, fit for a terminal."""
        return _told(text, self.secrets)

    def check(self) -> None:
        """Raises OSError where what was sent was not taken now, RejectedError where perhaps it never will be.

        Proxies answer with these statuses, too, and servers whose configuration is wrong.
        """
        if self.status in range(200, 300):
            return
        place = self.told(redact_uri(self.headers.get("location", "").partition("?")[0]))
        said = f"it answers {self.status} {f'to {place} ' if place else ''}{self.words}".rstrip()
        if self.status in REJECTED:
            raise RejectedError(said, is_certain=False)
        raise RetryableError(said, _seconds(self.headers.get("retry-after", "")))


class HttpClient:
    """POSTs to one place.  Connected when that is first needed, and anew after every error.  From one thread."""

    def __init__(self, destination: Destination, auth_scheme: str, default_port: int | None = None) -> None:
        """Raises TracerError where options do not go together, or a file of theirs cannot be used."""
        is_tls = destination.scheme.endswith("s")
        self._host, self._port = destination.host_port(default_port or (443 if is_tls else 80))
        self._destination, self._auth_scheme = destination, auth_scheme
        self._timeout_s = float(destination.options["timeout"] or 0)
        self._is_gzip = destination.options["compress"] == "gzip"
        if not is_tls and any(destination.options[name] != option.default for name, option in tls.OPTIONS.items()):
            raise self._wrong("has options of TLS", f"write {destination.scheme}s://, or leave them out")
        context = tls.ClientContext(destination, ["http/1.1"]).current if is_tls else None
        dial = connect.dial_tcp(
            self._host, self._port, self._timeout_s, context, tls.server_name(destination, self._host)
        )
        self._connection = _Connection(self._host, self._port, dial, is_tls)
        self._headers, self._secrets = self._read_headers()
        self._used_s = 0.0
        self.uri = self._told_uri()

    def _told_uri(self) -> str:
        """For everybody's eyes: some have secrets in the path, which tells outputs to one host apart as a number."""
        place = f"[{self._host}]" if ":" in self._host else self._host
        path, name = self._destination.path, self._destination.options["name"]
        mark = name or (f"{fnv1a(path.encode('utf-8', 'surrogateescape')):016x}"[-4:] if path.strip("/") else "")
        return f"{self._destination.scheme}://{place}:{self._port}" + (f"#{mark}" if mark else "")

    def post(self, path: str, body: bytes, content_type: str, headers: Mapping[str, str]) -> HttpResponse:
        """The answer, whatever it says.

        Raises OSError where there is none.
        """
        whole = {"Content-Type": content_type, **headers}
        if self._is_gzip:
            body = gzip.compress(body, 6, mtime=0)
            whole["Content-Encoding"] = "gzip"
        is_reused = self._is_usable()
        try:
            try:
                answer = self._exchange(path, body, whole)
            except (ConnectionError, HTTPException, SSLError):
                if not is_reused:
                    raise
                self.close()  # it was closed while this was under way
                answer = self._exchange(path, body, whole)
        except HTTPException as error:
            self.close()
            raise OSError(errno.EPROTO, _told(f"what it answers is no HTTP: {error!r}", self._secrets)) from error
        except OSError as error:
            self.close()
            raise _reason(error) from error
        except BaseException:
            self.close()
            raise
        if answer.status in (401, 403):
            self._refresh()
        return answer

    def close(self) -> None:
        self._connection.close()

    def _exchange(self, path: str, body: bytes, headers: Mapping[str, str]) -> HttpResponse:
        self._connection.until_s = time.monotonic() + self._timeout_s
        if self._connection.sock is not None:
            self._connection.sock.settimeout(self._timeout_s)
        else:
            self._refresh()
        self._connection.request("POST", path, body, {**headers, **self._headers})
        with self._connection.getresponse() as response:
            data = response.read(ANSWER_MAX_BYTES)
            found = {name.lower(): value for name, value in response.getheaders()}
            answer = HttpResponse(response.status, found, data, self._secrets)
            if not response.isclosed():
                self._connection.close()  # there is more, which nobody wants
        self._used_s = time.monotonic()
        return answer

    def _is_usable(self) -> bool:
        """Whether the connection that is open, if one is, can be used again; otherwise it is closed."""
        connected = self._connection.sock
        if connected is None:
            return False
        poll = select.poll()
        poll.register(connected, select.POLLIN | select.POLLRDHUP)
        if time.monotonic() - self._used_s < IDLE_S and not poll.poll(0):
            return True
        self.close()
        return False

    def _refresh(self) -> None:
        """The token may have been replaced by a new one; where that cannot be read the old one stays."""
        with contextlib.suppress(TracerError):
            self._headers, self._secrets = self._read_headers()

    def _read_headers(self) -> tuple[dict[str, str], tuple[str, ...]]:
        """And what in them is secret, the longest first."""
        destination, found = self._destination, {"User-Agent": "oomtrace"}
        pairs = [pair.partition("=") for pair in str(destination.options["headers"] or "").split(",") if pair]
        own = [line.partition(":") for line in (destination.secret("header") or "").splitlines() if line.strip()]
        secrets = {value.strip() for _, _, value in own}
        secrets |= {value.partition(" ")[2] for value in secrets}  # a token without its scheme
        for name, mark, value in [*pairs, *own]:
            if not mark:
                raise self._wrong(f"header {name[:20]!r} has no value", "write NAME=VALUE, in a file NAME: VALUE")
            found[name.strip()] = value.strip()
        token, user = destination.secret("token"), destination.options["user"]
        if token is not None and user is not None:
            raise self._wrong("has a user and a token", "give one of them")
        if token is not None:
            found["Authorization"] = f"{self._auth_scheme} {token}"
            secrets.add(token)
        elif user is not None:
            password = destination.secret("password") or ""
            pair = base64.b64encode(f"{user}:{password}".encode()).decode()
            found["Authorization"] = f"Basic {pair}"
            secrets |= {password, pair}
        for name, value in found.items():
            if not (name.isascii() and name.replace("-", "").replace("_", "").isalnum()):
                raise self._wrong(f"{name[:20]!r} is no name of a header", "letters, digits and - are")
            if not (value.isascii() and value.isprintable()):
                raise self._wrong(f"the value of header {name} is no printable ASCII", "a token is one line")
        return found, tuple(sorted(secrets - {""}, key=len, reverse=True))

    def _wrong(self, what: str, hint: str) -> TracerError:
        return TracerError(f"output {self._destination.scheme}://{self._host}: {what}", hint)


class _Connection(HTTPConnection):
    until_s = 0.0
    """When the answer must be there."""

    def __init__(self, host: str, port: int, dial: connect.Dial, is_tls: bool) -> None:
        super().__init__(host, port)
        self.default_port = 443 if is_tls else 80
        self._dial = dial
        self.response_class = _response_class(self)

    def connect(self) -> None:
        self.sock = self._dial()


def _response_class(connection: _Connection) -> Any:
    def make(sock: socket.socket, *arguments: Any, **named: Any) -> HTTPResponse:
        response = HTTPResponse(sock, *arguments, **named)
        response.fp = io.BufferedReader(_Timed(sock, response.fp, connection.until_s))
        return response

    return make


class _Timed(io.RawIOBase):
    """What a socket receives until then: a peer that sends a byte now and then does not hold it for ever."""

    def __init__(self, sock: socket.socket, file: io.BufferedReader, until_s: float) -> None:
        """``file`` is the socket's own, which keeps it open."""
        self._socket, self._file, self._until_s = sock, file, until_s

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()

    def readinto(self, buffer: Any) -> int | None:
        left_s = self._until_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError(errno.ETIMEDOUT, "it does not answer in time")
        self._socket.settimeout(left_s)
        return self._file.raw.readinto(buffer)


def _told(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, BLANK).replace(secret.replace("/", "\\/"), BLANK)  # so JSON may have it
    return printable(" ".join(text.split()))[:TOLD_CHARACTERS]


def _reason(error: OSError) -> OSError:
    if isinstance(error, TimeoutError):
        return TimeoutError(errno.ETIMEDOUT, "it does not answer in time")
    if error.strerror is None:
        return OSError(errno.ECONNRESET, str(error))
    return connect.explain_error(error)


def _seconds(text: str) -> float:
    """Of a Retry-After; its other form, a date, is by another clock, and counts as none."""
    return float(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0.0
