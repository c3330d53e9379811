# SPDX-License-Identifier: Apache-2.0
"""Send lines to a topic of an MQTT 5 broker with QoS 1: a line is delivered when the broker has acknowledged it.

MQTT 5 is required, because a broker of MQTT 3 also acknowledges messages that it drops for lack of rights.
"""

import errno
import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tracer.base.errors import EXIT_USAGE, TracerError
from tracer.base.extras import install_hint
from tracer.delivery.sinks import RejectedError, RemoteSink, Sink, connect, tls
from tracer.delivery.sinks.destination import Destination, Option, UriForm
from tracer.delivery.sinks.line_metadata import line_metadata

if TYPE_CHECKING:
    from paho.mqtt.client import Client
    from paho.mqtt.properties import Properties

_OPTIONS: Mapping[str, Option] = {
    **connect.OPTIONS,
    "user": Option("User name."),
    "password": Option("Password.", None, "secret"),
    "wait": Option("Whether records wait for a subscriber, if the broker reports that there is none.", True, "flag"),
    "client-id": Option("Name of the session; by default `oomtrace-HOST`, with `-NAME` if the output has a name."),
}
_TLS_OPTIONS = {name: option for name, option in tls.OPTIONS.items() if name != "server-name"}
FORMS = {
    "mqtt": UriForm("mqtt://HOST[:1883]/TOPIC", "An MQTT 5 broker.", _OPTIONS, "mqtt"),
    "mqtts": UriForm("mqtts://HOST[:8883]/TOPIC", "The same with TLS.", {**_OPTIONS, **_TLS_OPTIONS}, "mqtt"),
}
BATCH_LINES = 100
_PORTS = {"mqtt": 1883, "mqtts": 8883}
_SUCCESS, _NO_SUBSCRIBERS = 0x00, 0x10
"""Reason codes of PUBACK: success; no matching subscribers."""
_REJECTIONS = frozenset({0x95, 0x99})
"""Packet too large, payload format invalid."""
_OVERHEAD_BYTES = 1024
"""Upper bound of the bytes of a packet besides topic and line."""


def open_sink(destination: Destination) -> Sink:
    """Raises TracerError if options are invalid; the broker need not run yet."""
    return MqttSink(destination)


class MqttSink(RemoteSink):
    batch_lines = BATCH_LINES

    def __init__(self, destination: Destination) -> None:
        """Raises TracerError."""
        try:
            from paho.mqtt import client, packettypes, properties, reasoncodes
        except ImportError as error:
            raise TracerError(f"{destination.scheme} needs paho-mqtt 2", install_hint("mqtt")) from error
        self._paho, self._packets, self._properties = client, packettypes.PacketTypes, properties.Properties
        self._reason = reasoncodes.ReasonCode
        self.uri = destination.uri
        self._destination = destination
        self._host, self._port = destination.host_port(_PORTS[destination.scheme])
        self._topic = destination.path.removeprefix("/")
        if not self._topic or set(self._topic) & {"+", "#", "\0"}:
            raise TracerError(
                f"output {destination.uri}: missing or invalid topic",
                f"write {destination.form.uri}, no + or #",
                EXIT_USAGE,
            )
        self._timeout_s = float(destination.options["timeout"] or 0)
        self._tls_context = tls.ClientContext(destination) if destination.scheme == "mqtts" else None
        destination.secret("password")
        self._accepted_codes = {_SUCCESS} if destination.options["wait"] else {_SUCCESS, _NO_SUBSCRIBERS}
        self._client: Client | None = None
        self._max_packet_bytes = 0
        """The broker's limit; 0: none."""
        self._connect_code: int | None = None
        """Reason code of CONNACK."""
        self._publish_codes: dict[int, int] = {}
        """Reason codes of PUBACK by message id."""

    def write(self, lines: Sequence[bytes]) -> int:
        try:
            client = self._connected()
            self._publish_codes.clear()
            sent: list[int] = []
            for line in lines:
                if self._max_packet_bytes and len(line) + len(self._topic) + _OVERHEAD_BYTES > self._max_packet_bytes:
                    break
                sent.append(
                    client.publish(self._topic, line.rstrip(b"\n"), 1, properties=self._line_properties(line)).mid
                )
            if not sent:
                raise RejectedError(f"the broker accepts {self._max_packet_bytes} bytes at most")
            self._loop(client, lambda: len(self._publish_codes) >= len(sent))
            return self._count_delivered(sent)
        except BaseException:
            self.close()  # discards the messages that it holds: their lines are written again
            raise

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.disconnect()
            client.loop(0)
            if (open_socket := client.socket()) is not None:
                open_socket.close()

    def _count_delivered(self, sent: Sequence[int]) -> int:
        """Number of messages, from the first one, that the broker has.  Raises RejectedError, OSError."""
        codes = [self._publish_codes.get(message) for message in sent]
        count = next((number for number, code in enumerate(codes) if code not in self._accepted_codes), len(sent))
        if count:
            if count < len(sent):
                self.close()
            return count
        code = codes[0]
        if code is None:
            raise TimeoutError(errno.ETIMEDOUT, f"no answer within {self._timeout_s:.0f} s")
        name = str(self._reason(self._packets.PUBACK, identifier=code))
        if code == _NO_SUBSCRIBERS:
            raise OSError(errno.EPIPE, f"topic {self._topic} has no subscribers")
        if code in _REJECTIONS:
            raise RejectedError(name)
        raise OSError(errno.EPROTO, f"the broker answered: {name}")

    def _connected(self) -> "Client":
        """A client with an open connection, as far as this host knows.  Raises OSError."""
        if self._client is not None and self._client.loop(0) != self._paho.MQTT_ERR_SUCCESS:
            self.close()
        if self._client is None:
            self._connect()
        assert self._client is not None
        return self._client

    def _connect(self) -> None:
        """Raises OSError."""
        client = self._client = self._make_client()
        self._connect_code = None
        try:
            # No keepalive: nothing is sent between kills.  A session that ends with its connection needs no memory.
            client.connect(self._host, self._port, keepalive=0, clean_start=False)
        except OSError as error:
            raise connect.explain_error(error) from error
        except ValueError as error:
            raise OSError(errno.EINVAL, str(error)) from error
        self._loop(client, lambda: self._connect_code is not None)
        if self._connect_code != 0:
            code = (
                self._reason(self._packets.CONNACK, identifier=self._connect_code) if self._connect_code else "nothing"
            )
            raise OSError(errno.EACCES, f"the broker answered: {code}")

    def _make_client(self) -> "Client":
        """Raises OSError if a secret or a certificate cannot be read."""
        paho, options = self._paho, self._destination.options
        name = f"-{options['name']}" if options["name"] else ""
        client: Client = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            str(options["client-id"] or f"oomtrace-{os.uname().nodename}{name}"),
            protocol=paho.MQTTv5,
        )
        client.connect_timeout = self._timeout_s
        client.max_inflight_messages = BATCH_LINES
        client.on_connect = self._handle_connack
        client.on_publish = self._handle_puback
        if options["user"]:
            try:
                client.username_pw_set(str(options["user"]), self._destination.secret("password"))
            except TracerError as error:
                raise OSError(errno.EACCES, str(error)) from error
        if self._tls_context is not None:
            client.tls_set_context(self._tls_context.current())
        return client

    def _loop(self, client: "Client", is_done: Any) -> None:
        """Process packets until ``is_done``, or the timeout.  Raises OSError if the connection is closed."""
        deadline_s = time.monotonic() + self._timeout_s
        while not is_done():
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                return
            status = client.loop(left_s)
            if status != self._paho.MQTT_ERR_SUCCESS and not is_done():
                raise OSError(errno.ECONNRESET, f"the broker closed the connection: {self._paho.error_string(status)}")

    def _line_properties(self, line: bytes) -> "Properties":
        properties: Properties = self._properties(self._packets.PUBLISH)  # type: ignore[no-untyped-call]
        metadata = line_metadata(line)
        record_id = metadata.id and metadata.id[1]
        pairs = (("type", metadata.type), ("id", record_id), ("host", metadata.host))
        properties.ContentType = "application/json"
        properties.UserProperty = [(name, value) for name, value in pairs if value is not None]
        return properties

    def _handle_connack(self, _client: object, _data: object, _flags: object, code: Any, properties: Any) -> None:
        self._connect_code = code.value
        self._max_packet_bytes = getattr(properties, "MaximumPacketSize", 0)

    def _handle_puback(self, _client: object, _data: object, message: int, code: Any, _properties: object) -> None:
        self._publish_codes[message] = code.value
