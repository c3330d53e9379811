# SPDX-License-Identifier: Apache-2.0
"""Send lines by the Fluent Forward protocol, version 1, with acknowledgements, as to Fluent Bit and fluentd.

    [TAG, entries, {"chunk": ID, "size": COUNT}]    entries: packed [time, record] pairs, concatenated
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
    "user": Option("User name, if the server requires one in addition to the key."),
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
"""Fields of the time in the different styles."""
_EVENT_TIME = 0
"""Number of EventTime among msgpack's extension types."""


def open_sink(destination: Destination) -> Sink:
    """Raises TracerError if options are invalid; the server need not run yet."""
    timeout_s = float(destination.options["timeout"] or 0)
    if destination.scheme == "forward+unix":
        if not destination.address.startswith("/"):
            hint = "write an absolute path: forward+unix:/run/fluent.sock"
            raise TracerError(f"output {destination.uri}: not an absolute path", hint, EXIT_USAGE)
        tag = str(destination.options["tag"])
        return ForwardSink(
            destination, tag, Peer(connect.dial_unix(destination.address, socket.SOCK_STREAM, timeout_s), timeout_s)
        )
    host, port = destination.host_port(DEFAULT_PORT)
    tag = destination.path.removeprefix("/")
    if not tag:
        raise TracerError(f"output {destination.uri}: missing tag", f"write {destination.form.uri}", EXIT_USAGE)
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
        is_kept_alive = True
        try:
            if self._peer.open():
                is_kept_alive = self._handshake()
            packed = self._msgpack.packb(b"".join(entries), use_bin_type=True)
            options = self._msgpack.packb({"chunk": chunk, "size": len(entries)})
            self._peer.send(b"\x93" + self._msgpack.packb(self._tag) + packed + options)
            answer = self._read_message()
            if not isinstance(answer, dict) or answer.get("ack") != chunk:
                raise OSError(errno.EPROTO, "the answer is not an acknowledgement")
        except OSError:
            self._peer.close()
            raise
        if not is_kept_alive:
            self._peer.close()
        return len(entries)

    def close(self) -> None:
        self._peer.close()

    def _entries(self, lines: Sequence[bytes]) -> list[bytes]:
        """Packed entries, up to the first line that cannot be packed.

        Raises RejectedError if that is the first one.
        """
        entries: list[bytes] = []
        for line in lines:
            try:
                record = orjson.loads(line)
                if not isinstance(record, dict):
                    raise ValueError("not a record")
                when = self._msgpack.ExtType(_EVENT_TIME, _event_time(record))
                entries.append(self._msgpack.packb([when, record]))
            except (ValueError, OverflowError, TypeError, RecursionError) as error:
                if not entries:
                    raise RejectedError(str(error)) from error
                break
        return entries

    def _handshake(self) -> bool:
        """Authenticate, if there is a key; return whether the server keeps the connection open.

        Raises OSError if one side does not know the other's key.
        """
        try:
            credentials = Credentials.of(self._destination)
        except TracerError as error:
            raise OSError(errno.EACCES, str(error)) from error
        if credentials is None:
            return True
        hello = self._read_message()
        if not isinstance(hello, list) or len(hello) != 2 or hello[0] != "HELO" or not isinstance(hello[1], dict):
            raise OSError(errno.EPROTO, "the server did not request a shared key")
        ping, challenge = credentials.make_ping(hello[1])
        self._peer.send(self._msgpack.packb(ping))
        credentials.check_pong(self._read_message(), challenge)
        return hello[1].get("keepalive", True) is not False

    def _read_message(self) -> object:
        """Raises OSError."""
        unpacker = self._msgpack.Unpacker(
            raw=False, unicode_errors="surrogateescape", strict_map_key=False, max_buffer_size=ANSWER_BYTES
        )
        deadline_s = time.monotonic() + self._timeout_s
        while time.monotonic() < deadline_s:
            try:
                unpacker.feed(self._peer.receive(ANSWER_BYTES))
                answer: object = unpacker.unpack()
            except self._msgpack.OutOfData:
                continue
            except (ValueError, self._msgpack.UnpackException) as error:
                raise OSError(errno.EPROTO, "the answer is not msgpack") from error
            return answer
        raise TimeoutError(errno.ETIMEDOUT, "no answer within the timeout")


def _event_time(record: Mapping[str, Any]) -> bytes:
    """The record's time, or the current time if it has none: seconds and nanoseconds, 4 bytes each, big-endian."""
    try:
        when = next(record[name] for name in _TIMES if name in record)
        whole, _, fraction = str(when).removesuffix("Z").partition(".")
        seconds = int(datetime.fromisoformat(f"{whole}+00:00").timestamp())
        nanoseconds = int(f"{fraction:0<9}"[:9])
        return seconds.to_bytes(4, "big") + nanoseconds.to_bytes(4, "big")
    except (StopIteration, ValueError, OverflowError):
        now_ns = time.time_ns()
        return (now_ns // 10**9).to_bytes(4, "big") + (now_ns % 10**9).to_bytes(4, "big")
