# SPDX-License-Identifier: Apache-2.0
"""Lines to Fluent Bit, fluentd, and who else takes the Fluent Forward protocol, version 1, with acknowledgements.

    [TAG, entries, {"chunk": ID, "size": COUNT}]    entries: [[time, record], ...], packed one after the other
    {"ack": ID}                                     the answer

The specification: https://github.com/fluent/fluentd/wiki/Forward-Protocol-Specification-v1
"""

import base64
import errno
import os
import socket
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from tracer.base.errors import EXIT_USAGE, TracerError
from tracer.base.extras import install_hint
from tracer.delivery.sinks import RejectedError, RemoteSink, Sink, connect, tls
from tracer.delivery.sinks.connect import Peer
from tracer.delivery.sinks.destination import Destination, Option, UriForm
from tracer.delivery.sinks.forward_auth import Credentials

_OPTIONS: Mapping[str, Option] = {
    **connect.OPTIONS,
    "shared-key": Option("Shared key.", None, "secret"),
    "user": Option("User name, if the other side requires one in addition to the key."),
    "password": Option("Password.", None, "secret"),
}
FORMS = {
    "forward": UriForm("forward://HOST[:24224]/TAG", "Fluent Bit, fluentd.", _OPTIONS, "forward"),
    "forward+tls": UriForm(
        "forward+tls://HOST[:24224]/TAG", "The same with TLS.", {**_OPTIONS, **tls.OPTIONS}, "forward"
    ),
    "forward+unix": UriForm(
        "forward+unix:PATH",
        "The same over a UNIX socket.",
        {**_OPTIONS, "tag": Option("Tag of the records.", "oomtrace")},
        "forward",
    ),
}
DEFAULT_PORT = 24224
BATCH_LINES = 200
ANSWER_BYTES = 4096
"""Longest answer that is read."""
_TIMES = ("time", "@timestamp", "Timestamp")
"""Where the styles have it."""
_EVENT_TIME = 0
"""Number of msgpack's extension type."""


def open_sink(destination: Destination) -> Sink:
    """Raises TracerError where options are wrong; nobody need be there yet."""
    timeout_s = float(destination.options["timeout"] or 0)
    if destination.scheme == "forward+unix":
        if not destination.address.startswith("/"):
            hint = "write an absolute path: forward+unix:/run/fluent.sock"
            raise TracerError(f"output {destination.uri}: no path", hint, EXIT_USAGE)
        tag = str(destination.options["tag"])
        return ForwardSink(
            destination, tag, Peer(connect.dial_unix(destination.address, socket.SOCK_STREAM, timeout_s), timeout_s)
        )
    host, port = destination.host_port(DEFAULT_PORT)
    tag = destination.path.removeprefix("/")
    if not tag:
        raise TracerError(f"output {destination.uri}: needs a tag", f"write {destination.form.uri}", EXIT_USAGE)
    context = tls.ClientContext(destination).current if destination.scheme == "forward+tls" else None
    server_name = tls.server_name(destination, host) if context else None
    return ForwardSink(destination, tag, Peer(connect.dial_tcp(host, port, timeout_s, context, server_name), timeout_s))


class ForwardSink(RemoteSink):
    batch_lines = BATCH_LINES

    def __init__(self, destination: Destination, tag: str, peer: Peer) -> None:
        """Raises TracerError."""
        try:
            import msgpack
        except ImportError as error:
            raise TracerError(f"{destination.scheme} needs msgpack", install_hint("forward")) from error
        self.uri = destination.uri
        self._msgpack = msgpack
        self._destination, self._tag, self._peer = destination, tag, peer
        self._timeout_s = float(destination.options["timeout"] or 0)
        Credentials.of(destination)

    def write(self, lines: Sequence[bytes]) -> int:
        entries = self._entries(lines)
        chunk = base64.b64encode(os.urandom(16)).decode()
        is_kept = True
        try:
            if self._peer.open():
                is_kept = self._introduce()
            packed = self._msgpack.packb(b"".join(entries), use_bin_type=True)
            options = self._msgpack.packb({"chunk": chunk, "size": len(entries)})
            self._peer.send(b"\x93" + self._msgpack.packb(self._tag) + packed + options)
            answer = self._answer()
            if not isinstance(answer, dict) or answer.get("ack") != chunk:
                raise OSError(errno.EPROTO, "its answer is no acknowledgement")
        except OSError:
            self._peer.close()
            raise
        if not is_kept:
            self._peer.close()
        return len(entries)

    def close(self) -> None:
        self._peer.close()

    def _entries(self, lines: Sequence[bytes]) -> list[bytes]:
        """Packed, up to a line that cannot be.  Raises RejectedError where that is the first."""
        entries: list[bytes] = []
        for line in lines:
            try:
                record = orjson.loads(line)
                if not isinstance(record, dict):
                    raise ValueError("it is no record")
                when = self._msgpack.ExtType(_EVENT_TIME, _event_time(record))
                entries.append(self._msgpack.packb([when, record]))
            except (ValueError, OverflowError, TypeError, RecursionError) as error:
                if not entries:
                    raise RejectedError(str(error)) from error
                break
        return entries

    def _introduce(self) -> bool:
        """The handshake, where there is a key; whether the other side wants to keep the connection.

        Raises OSError where one does not know the other's key.
        """
        try:
            secrets = Credentials.of(self._destination)
        except TracerError as error:
            raise OSError(errno.EACCES, str(error)) from error
        if secrets is None:
            return True
        hello = self._answer()
        if not isinstance(hello, list) or len(hello) != 2 or hello[0] != "HELO" or not isinstance(hello[1], dict):
            raise OSError(errno.EPROTO, "it does not ask for a shared key as it should")
        ping, wanted = secrets.greet(hello[1])
        self._peer.send(self._msgpack.packb(ping))
        secrets.check(self._answer(), wanted)
        return hello[1].get("keepalive", True) is not False

    def _answer(self) -> object:
        """One message.  Raises OSError."""
        unpacker = self._msgpack.Unpacker(
            raw=False, unicode_errors="surrogateescape", strict_map_key=False, max_buffer_size=ANSWER_BYTES
        )
        until_s = time.monotonic() + self._timeout_s
        while time.monotonic() < until_s:
            try:
                unpacker.feed(self._peer.receive(ANSWER_BYTES))
                answer: object = unpacker.unpack()
            except self._msgpack.OutOfData:
                continue
            except (ValueError, self._msgpack.UnpackException) as error:
                raise OSError(errno.EPROTO, "its answer is not msgpack") from error
            return answer
        raise TimeoutError(errno.ETIMEDOUT, "it does not acknowledge")


def _event_time(record: Mapping[str, Any]) -> bytes:
    """The record's time, or where it has none the time now: seconds and nanoseconds, big-endian."""
    try:
        when = next(record[name] for name in _TIMES if name in record)
        whole, _, fraction = str(when).removesuffix("Z").partition(".")
        seconds = int(datetime.fromisoformat(f"{whole}+00:00").timestamp())
        nanoseconds = int(f"{fraction:0<9}"[:9])
        return seconds.to_bytes(4, "big") + nanoseconds.to_bytes(4, "big")
    except (StopIteration, ValueError, OverflowError):
        now_ns = time.time_ns()
        return (now_ns // 10**9).to_bytes(4, "big") + (now_ns % 10**9).to_bytes(4, "big")
