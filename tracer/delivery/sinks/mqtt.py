# SPDX-License-Identifier: Apache-2.0
"""Lines to a topic of an MQTT 5 broker, QoS 1: delivered is what the broker has acknowledged.

MQTT 5, because a broker of MQTT 3 acknowledges what it then drops for want of rights.
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
_TAKEN, _NOBODY = 0x00, 0x10
"""Success; and the same with no matching subscriber."""
_REJECTIONS = frozenset({0x95, 0x99})
"""Packet too large, payload format invalid."""
_OVERHEAD_BYTES = 1024
"""A packet is so much larger than topic and line, at most."""


def open_sink(destination: Destination) -> Sink:
    """Raises TracerError where options are wrong; nobody need be there yet."""
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
                f"output {destination.uri}: needs a topic", f"write {destination.form.uri}, no + or #", EXIT_USAGE
            )
        self._timeout_s = float(destination.options["timeout"] or 0)
        self._contexts = tls.ClientContext(destination) if destination.scheme == "mqtts" else None
        destination.secret("password")
        self._good = {_TAKEN} if destination.options["wait"] else {_TAKEN, _NOBODY}
        self._client: Client | None = None
        self._largest_bytes = 0
        """Of a packet, as the broker says; 0: it does not."""
        self._welcome: int | None = None
        """The broker's answer to CONNECT."""
        self._answers: dict[int, int] = {}
        """Its answers to PUBLISH, by message id."""

    def write(self, lines: Sequence[bytes]) -> int:
        try:
            client = self._connected()
            self._answers.clear()
            sent: list[int] = []
            for line in lines:
                if self._largest_bytes and len(line) + len(self._topic) + _OVERHEAD_BYTES > self._largest_bytes:
                    break
                sent.append(
                    client.publish(self._topic, line.rstrip(b"\n"), 1, properties=self._line_properties(line)).mid
                )
            if not sent:
                raise RejectedError(f"the broker takes {self._largest_bytes} bytes at most")
            self._loop(client, lambda: len(self._answers) >= len(sent))
            return self._count(sent)
        except BaseException:
            self.close()  # what it holds comes again, and not twice at once
            raise

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.disconnect()
            client.loop(0)
            if (left := client.socket()) is not None:
                left.close()

    def _count(self, sent: Sequence[int]) -> int:
        """How many the broker has taken, from the first on.  Raises RejectedError, OSError."""
        answers = [self._answers.get(message) for message in sent]
        count = next((number for number, answer in enumerate(answers) if answer not in self._good), len(sent))
        if count:
            if count < len(sent):
                self.close()
            return count
        answer = answers[0]
        if answer is None:
            raise TimeoutError(errno.ETIMEDOUT, f"no answer within {self._timeout_s:.0f} s")
        name = str(self._reason(self._packets.PUBACK, identifier=answer))
        if answer == _NOBODY:
            raise OSError(errno.EPIPE, f"nobody has subscribed to {self._topic}")
        if answer in _REJECTIONS:
            raise RejectedError(name)
        raise OSError(errno.EPROTO, f"the broker refuses it: {name}")

    def _connected(self) -> "Client":
        """Connected to a broker that is still there, as far as that is known here.  Raises OSError."""
        if self._client is not None and self._client.loop(0) != self._paho.MQTT_ERR_SUCCESS:
            self.close()
        if self._client is None:
            self._connect()
        assert self._client is not None
        return self._client

    def _connect(self) -> None:
        """Raises OSError."""
        paho, options = self._paho, self._destination.options
        name = f"-{options['name']}" if options["name"] else ""
        client = self._client = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            str(options["client-id"] or f"oomtrace-{os.uname().nodename}{name}"),
            protocol=paho.MQTTv5,
        )
        client.connect_timeout = self._timeout_s
        client.max_inflight_messages = BATCH_LINES
        client.on_connect = self._note_welcome
        client.on_publish = self._note_answer
        if options["user"]:
            try:
                client.username_pw_set(str(options["user"]), self._destination.secret("password"))
            except TracerError as error:
                raise OSError(errno.EACCES, str(error)) from error
        if self._contexts is not None:
            client.tls_set_context(self._contexts.current())
        self._welcome = None
        try:
            # Nothing is said while nobody dies: no keepalive.  A session that ends with its connection needs no room.
            client.connect(self._host, self._port, keepalive=0, clean_start=False)
        except OSError as error:
            raise connect.explain_error(error) from error
        except ValueError as error:
            raise OSError(errno.EINVAL, str(error)) from error
        self._loop(client, lambda: self._welcome is not None)
        if self._welcome != 0:
            code = self._reason(self._packets.CONNACK, identifier=self._welcome) if self._welcome else "nothing"
            raise OSError(errno.EACCES, f"the broker answers: {code}")

    def _loop(self, client: "Client", is_done: Any) -> None:
        """Until that is so, for so long as the timeout says.  Raises OSError where the connection ends before."""
        until_s = time.monotonic() + self._timeout_s
        while not is_done():
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                return
            status = client.loop(left_s)
            if status != self._paho.MQTT_ERR_SUCCESS and not is_done():
                raise OSError(errno.ECONNRESET, f"the broker hangs up: {self._paho.error_string(status)}")

    def _line_properties(self, line: bytes) -> "Properties":
        made: Properties = self._properties(self._packets.PUBLISH)  # type: ignore[no-untyped-call]
        metadata = line_metadata(line)
        record_id = metadata.id and metadata.id[1]
        pairs = (("type", metadata.type), ("id", record_id), ("host", metadata.host))
        made.ContentType = "application/json"
        made.UserProperty = [(name, value) for name, value in pairs if value is not None]
        return made

    def _note_welcome(self, _client: object, _data: object, _flags: object, code: Any, properties: Any) -> None:
        self._welcome = code.value
        self._largest_bytes = getattr(properties, "MaximumPacketSize", 0)

    def _note_answer(self, _client: object, _data: object, message: int, code: Any, _properties: object) -> None:
        self._answers[message] = code.value
