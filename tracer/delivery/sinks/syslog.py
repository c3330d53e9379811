# SPDX-License-Identifier: Apache-2.0
"""Send lines to a syslog server: RFC 5424 over UNIX sockets, UDP (RFC 5426), TCP (RFC 6587) and TLS (RFC 5425)."""

import errno
import socket
from collections.abc import Callable, Mapping, Sequence

from tracer.base.errors import EXIT_USAGE, TracerError
from tracer.delivery.sinks import RejectedError, RemoteSink, Sink, connect, tls
from tracer.delivery.sinks.connect import Peer
from tracer.delivery.sinks.destination import Destination, Option, UriForm
from tracer.delivery.sinks.syslog_message import OPTIONS, MessageFormatter

_DATAGRAMS: Mapping[str, Option] = {**OPTIONS, **connect.OPTIONS}
_STREAMS: Mapping[str, Option] = {
    **_DATAGRAMS,
    "framing": Option(
        "Framing: a byte count before each message, or a newline after it.",
        "octets",
        ("octets", "newline"),
    ),
}
FORMS = {
    "syslog+unix": UriForm(
        "syslog+unix:PATH", "A syslog server on this host, through its datagram socket.", _DATAGRAMS
    ),
    "syslog+udp": UriForm("syslog+udp://HOST[:514]", "A syslog server. Losses are not detected.", _DATAGRAMS),
    "syslog+tcp": UriForm("syslog+tcp://HOST[:601]", "A syslog server.", _STREAMS),
    "syslog+tls": UriForm("syslog+tls://HOST[:6514]", "A syslog server, with TLS.", {**_STREAMS, **tls.OPTIONS}),
}
_PORTS = {"syslog+udp": 514, "syslog+tcp": 601, "syslog+tls": 6514}
_BATCH_LINES = 64


def open_sink(destination: Destination) -> Sink:
    """Raises TracerError if options or address are invalid; the server need not run yet."""
    formatter, timeout_s = MessageFormatter(destination), float(destination.options["timeout"] or 0)
    if destination.scheme == "syslog+unix":
        if not destination.address.startswith("/"):
            hint = "write an absolute path: syslog+unix:/run/systemd/journal/syslog"
            raise TracerError(f"output {destination.uri}: not an absolute path", hint, EXIT_USAGE)
        dial = connect.dial_unix(destination.address, socket.SOCK_DGRAM, timeout_s)
        return SyslogSink(destination.uri, Peer(dial, timeout_s), formatter.format, _datagrams, _BATCH_LINES)
    host, port = destination.host_port(_PORTS[destination.scheme])
    if destination.scheme == "syslog+udp":
        return SyslogSink(
            destination.uri, Peer(connect.dial_udp(host, port), timeout_s), formatter.format, _datagrams, 1
        )
    context = tls.ClientContext(destination).current if destination.scheme == "syslog+tls" else None
    server_name = tls.server_name(destination, host) if context else None
    dial = connect.dial_tcp(host, port, timeout_s, context, server_name)
    frame = _octet_counted if destination.options["framing"] == "octets" else _newline_ended
    return SyslogSink(destination.uri, Peer(dial, timeout_s), formatter.format, frame, _BATCH_LINES)


class SyslogSink(RemoteSink):
    """Syslog has no answers: data that the server's kernel has acknowledged counts as delivered."""

    def __init__(
        self,
        uri: str,
        peer: Peer,
        format_line: Callable[[bytes], bytes],
        frame: Callable[[Sequence[bytes]], Sequence[bytes]],
        batch_lines: int,
    ) -> None:
        """``frame`` converts messages to the pieces that are sent."""
        self.uri = uri
        self.batch_lines = batch_lines
        self._peer, self._format_line, self._frame = peer, format_line, frame

    def write(self, lines: Sequence[bytes]) -> int:
        messages = self._format(lines)
        self._peer.open()
        for count, piece in enumerate(self._frame(messages)):
            try:
                self._peer.send(piece)
            except OSError as error:
                if error.errno != errno.EMSGSIZE:
                    raise
                if count == 0:
                    raise RejectedError(f"{len(piece)} bytes exceed the size of a datagram") from error
                return count
        self._peer.wait_acknowledged()
        return len(messages)

    def close(self) -> None:
        self._peer.close()

    def _format(self, lines: Sequence[bytes]) -> list[bytes]:
        """Messages, up to the first line that cannot be formatted.

        Raises RejectedError if that is the first one.
        """
        messages: list[bytes] = []
        for line in lines:
            try:
                messages.append(self._format_line(line))
            except RejectedError:
                if not messages:
                    raise
                break
        return messages


def _datagrams(messages: Sequence[bytes]) -> Sequence[bytes]:
    """Each message is a datagram."""
    return messages


def _octet_counted(messages: Sequence[bytes]) -> Sequence[bytes]:
    return [b"".join(b"%d %s" % (len(message), message) for message in messages)]


def _newline_ended(messages: Sequence[bytes]) -> Sequence[bytes]:
    return [b"".join(message + b"\n" for message in messages)]
