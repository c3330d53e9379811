# SPDX-License-Identifier: Apache-2.0
"""Send lines to a topic of Kafka, or of a compatible broker, by librdkafka.

Each line is a message.  Its key is the host, so the records of a host stay in order in one partition; its headers are
``type`` and ``id``.  The producer is idempotent, and a batch is delivered when all in-sync replicas have it.
"""

import errno
import functools
import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tracer.base.errors import EXIT_USAGE, TracerError
from tracer.base.extras import install_hint
from tracer.base.log import warn
from tracer.delivery.sinks import RejectedError, RemoteSink, Sink
from tracer.delivery.sinks.destination import Destination, Option, UriForm
from tracer.delivery.sinks.line_metadata import line_metadata

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message, Producer

DEFAULT_PORT = 9092
BATCH_LINES = 500
SLICE_S = 0.1
"""Interval between checks whether all brokers are down."""

_OPTIONS: Mapping[str, Option] = {
    "timeout": Option("Timeout of the brokers' acknowledgement.", 10, "seconds", 1),
    "compression": Option("Compression of batches.", "none", ("none", "gzip", "snappy", "lz4", "zstd")),
    "user": Option("User name for SASL."),
    "password": Option("Password for SASL.", None, "secret"),
    "mechanism": Option(
        "SASL mechanism, if `user` is set.", "SCRAM-SHA-512", ("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN")
    ),
    "config-file": Option(
        "Additional properties of librdkafka, one `NAME=VALUE` per line; they take precedence.", None, "path"
    ),
}
_TLS_OPTIONS: Mapping[str, Option] = {
    "ca-file": Option("Trusted certificates; by default the system's.", None, "path"),
    "cert-file": Option("Client certificate, PEM.", None, "path"),
    "key-file": Option("Key of the client certificate, PEM.", None, "path"),
    "verify": Option("Whether to verify the brokers' certificates.", True, "flag"),
}
FORMS = {
    "kafka": UriForm("kafka://HOST[:PORT][,HOST[:PORT]...]/TOPIC", "Kafka (port 9092).", _OPTIONS, "kafka"),
    "kafka+tls": UriForm(
        "kafka+tls://HOST[:PORT][,HOST[:PORT]...]/TOPIC", "The same with TLS.", {**_OPTIONS, **_TLS_OPTIONS}, "kafka"
    ),
}

_FILES = {
    "ca-file": "ssl.ca.location",
    "cert-file": "ssl.certificate.location",
    "key-file": "ssl.key.location",
}
_FORBIDDEN = re.compile(r"address family not supported|network is unreachable", re.IGNORECASE)


def open_sink(destination: Destination) -> Sink:
    """Raises TracerError if librdkafka is missing, or rejects its configuration."""
    return KafkaSink(destination)


class KafkaSink(RemoteSink):
    batch_lines = BATCH_LINES

    def __init__(self, destination: Destination) -> None:
        """Raises TracerError."""
        try:
            import confluent_kafka
        except ImportError as error:
            raise TracerError(f"{destination.scheme} needs confluent-kafka", install_hint("kafka")) from error
        self._library = confluent_kafka
        self._destination = destination
        self._topic = destination.path.removeprefix("/")
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,249}", self._topic):
            raise TracerError(
                f"output {destination.uri}: missing or invalid topic", f"write {destination.form.uri}", EXIT_USAGE
            )
        self._brokers = ",".join(_brokers(destination))
        self.uri = destination.uri
        self._timeout_s = float(destination.options["timeout"] or 0)
        codes = confluent_kafka.KafkaError
        self._rejections = {codes.MSG_SIZE_TOO_LARGE, codes.RECORD_LIST_TOO_LARGE, codes.INVALID_RECORD}
        self._producer: Producer | None = None
        self._connection_error = ""
        """librdkafka's latest error about its connections."""
        self._all_brokers_down = False
        # Only a check: the producer for writing is made later, so its threads have no privileges of the daemon.
        self._make_producer(self._properties())

    def write(self, lines: Sequence[bytes]) -> int:
        if self._producer is not None:
            self._producer.poll(0)  # errors since the last batch
            if self._all_brokers_down:
                self.close()  # a new producer connects at once, and reports errors
        self._connection_error, self._all_brokers_down = "", False
        producer = self._producer = self._producer or self._connect()
        outcomes: dict[int, KafkaError | None] = {}
        for number, line in enumerate(lines):
            metadata = line_metadata(line)
            headers = [("type", metadata.type), ("id", metadata.id and metadata.id[1])]
            try:
                producer.produce(
                    self._topic,
                    line.rstrip(b"\n"),
                    metadata.host,
                    headers=[(name, value) for name, value in headers if value is not None],
                    on_delivery=functools.partial(_store_outcome, outcomes, number),
                )
            except self._library.KafkaException as error:  # too large for any broker
                outcomes[number] = error.args[0]
                break
        deadline_s = time.monotonic() + self._timeout_s
        while producer.flush(SLICE_S) and time.monotonic() < deadline_s and not self._all_brokers_down:
            pass
        return self._count_delivered(dict(outcomes), len(lines))

    def reopen(self) -> None:
        """Nothing to do: librdkafka manages its connections."""

    def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()
            producer.poll(0)

    def _count_delivered(self, outcomes: Mapping[int, "KafkaError | None"], lines: int) -> int:
        """Number of lines, from the first one, that the brokers have.

        Raises RejectedError, OSError.
        """
        count = next((number for number in range(lines) if outcomes.get(number, self) is not None), lines)
        if count < lines:
            self.close()  # discards the messages that it holds: their lines are written again
        if count:
            return count
        error = outcomes.get(0)
        if error is None:
            default = "all brokers are down" if self._all_brokers_down else f"no answer within {self._timeout_s:.0f} s"
            raise OSError(errno.ETIMEDOUT, _explain(self._connection_error or default))
        if error.code() in self._rejections:
            raise RejectedError(error.str())
        raise OSError(errno.EIO, _explain(error.str()))

    def _connect(self) -> "Producer":
        """Raises OSError if the producer can no longer be made."""
        try:
            return self._make_producer({"bootstrap.servers": self._brokers, **self._properties()})
        except TracerError as error:
            raise OSError(errno.EINVAL, str(error)) from error

    def _make_producer(self, properties: Mapping[str, object]) -> "Producer":
        """Raises TracerError if librdkafka rejects a property."""
        try:
            return self._library.Producer({**properties, "error_cb": self._handle_error, "log_level": 0})
        except (self._library.KafkaException, TypeError, ValueError) as error:
            reason = error.args[0].str() if isinstance(error, self._library.KafkaException) else str(error)
            hint = f"see {self._destination.options['config-file'] or 'the options in docs/destinations.md'}"
            raise TracerError(f"output {self.uri}: {reason}", hint) from error

    def _properties(self) -> dict[str, object]:
        """All properties of librdkafka except the brokers.

        Raises TracerError if a file cannot be used.
        """
        options = self._destination.options
        properties: dict[str, object] = {
            "acks": "all",
            "enable.idempotence": True,
            # A message must not expire while later ones are delivered: ``close`` discards all of them together.
            "message.timeout.ms": 0,
            "topic.metadata.propagation.max.ms": int(500 * self._timeout_s),
            "compression.type": str(options["compression"]),
        }
        is_tls = self._destination.scheme.endswith("+tls")
        if options["user"]:
            properties |= {
                "sasl.mechanisms": str(options["mechanism"]),
                "sasl.username": str(options["user"]),
                "sasl.password": self._destination.secret("password") or "",
            }
        properties["security.protocol"] = f"{'sasl_' if options['user'] else ''}{'ssl' if is_tls else 'plaintext'}"
        if is_tls:
            for option in (option for option in _FILES if options[option]):
                _read_file(str(options[option]), self._destination)
                properties[_FILES[option]] = str(options[option])
            if not options["verify"]:
                properties["enable.ssl.certificate.verification"] = False
        if options["config-file"]:
            properties |= _parse_properties(
                str(options["config-file"]), _read_file(str(options["config-file"]), self._destination)
            )
        return properties

    def _handle_error(self, error: "KafkaError") -> None:
        if error.code() == self._library.KafkaError._ALL_BROKERS_DOWN:
            self._all_brokers_down = True
        else:
            self._connection_error = error.str()


def _store_outcome(
    outcomes: dict[int, "KafkaError | None"], number: int, error: "KafkaError | None", _: "Message"
) -> None:
    outcomes[number] = error


def _brokers(destination: Destination) -> list[str]:
    """``HOST:PORT`` of each broker.

    Raises TracerError if one is invalid.
    """
    authority = destination.address.removeprefix("//").partition("/")[0] if destination.address.startswith("//") else ""
    hosts = [destination._replace(address=f"//{broker}").host_port(DEFAULT_PORT) for broker in authority.split(",")]
    return [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in hosts]


def _read_file(path: str, destination: Destination) -> bytes:
    """Raises TracerError."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise TracerError(f"cannot read {path} ({error.strerror})", f"{destination.scheme} needs it") from error


def _parse_properties(path: str, data: bytes) -> dict[str, object]:
    """Parse a file of properties, in the format of kcat and of Kafka's own tools: # begins a comment.

    Raises TracerError.
    """
    if os.stat(path).st_mode & 0o007 and re.search(rb"password|secret|\.key\.pem", data):
        warn(f"{path} contains a secret and is readable by all users; restrict its mode")
    properties: dict[str, object] = {}
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        name, equals, value = line.strip().partition("=")
        if not name or name.startswith("#"):
            continue
        if not equals:
            raise TracerError(f"{path}: line {number} is not a property", "write NAME=VALUE, a property of librdkafka")
        properties[name.strip()] = value.strip()
    return properties


def _explain(text: str) -> str:
    """librdkafka's message, with the likely cause of an error that the service's sandboxing causes."""
    text = re.sub(r" \(after \d+ms in state [^)]*\)$", "", text)
    is_forbidden = _FORBIDDEN.search(text) is not None
    return f"{text} (the service's unit forbids the network: see docs/destinations.md)" if is_forbidden else text
