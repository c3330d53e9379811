# SPDX-License-Identifier: Apache-2.0
"""Send records by OTLP/HTTP with protobuf: one log record each, with the names of tracer/encoding/otel.py."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson

import tracer
from tracer.base.clock import parse_rfc3339
from tracer.base.errors import TracerError
from tracer.base.extras import install_hint
from tracer.delivery.sinks import RejectedError, RemoteSink, Sink
from tracer.delivery.sinks.destination import Destination, UriForm
from tracer.delivery.sinks.http_client import OPTIONS, HttpClient, HttpResponse
from tracer.encoding.otel import INFO, SERVICE_NAME, SEVERITIES, event_name, parts
from tracer.records.summary import summarize

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

_FORM = UriForm(
    "otlp+http://HOST[:4318][/PATH]",
    "OpenTelemetry's OTLP/HTTP, log records in protobuf.",
    OPTIONS,
    extra="otlp",
    styled=False,
)
FORMS = {
    "otlp+http": _FORM,
    "otlp+https": _FORM._replace(uri="otlp+https://HOST[:4318][/PATH]", meaning="The same with TLS."),
}
PORT, PATH = 4318, "/v1/logs"
_INT64 = range(-(1 << 63), 1 << 63)


def open_sink(destination: Destination) -> Sink:
    """Raises TracerError if opentelemetry-proto is missing, or an option is invalid."""
    try:
        from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
    except ImportError as error:
        raise TracerError(f"{destination.scheme} needs opentelemetry-proto ({error})", install_hint("otlp")) from error
    return OtlpSink(destination, logs_service_pb2)


class OtlpSink(RemoteSink):
    def __init__(self, destination: Destination, messages: Any) -> None:
        """``messages`` is the module logs_service_pb2."""
        self._client = HttpClient(destination, "Bearer", PORT)
        self.uri = self._client.uri
        self.batch_lines = max(1, int(destination.options["batch"] or 1))
        self._path = destination.path if destination.path not in ("", "/") else PATH
        self._messages = messages

    def write(self, lines: Sequence[bytes]) -> int:
        lines = lines[: self.batch_lines]
        body = self.request(lines)
        self._check_response(self._client.post(self._path, body, "application/x-protobuf", {}), len(lines))
        return len(lines)

    def request(self, lines: Sequence[bytes]) -> bytes:
        """An encoded ExportLogsServiceRequest; the lines stay in order.

        Raises RejectedError if a line is not a record.
        """
        request = self._messages.ExportLogsServiceRequest()
        last: dict[str, Any] | None = None
        for line in lines:
            try:
                record = orjson.loads(line)
                resource, attributes = parts(record)
            except (orjson.JSONDecodeError, AttributeError, TypeError) as error:
                raise RejectedError(f"not a record: {error}") from error
            if resource != last:
                resource_logs, last = request.resource_logs.add(), resource
                resource_logs.resource.attributes.extend(_pairs(resource))
                scope = resource_logs.scope_logs.add()
                scope.scope.name, scope.scope.version = SERVICE_NAME, tracer.__version__
            _fill(scope.log_records.add(), record, attributes)
        data: bytes = request.SerializeToString()
        return data

    def _check_response(self, response: HttpResponse, lines: int) -> None:
        """Raises OSError, RejectedError."""
        response.raise_for_status()
        answer = self._messages.ExportLogsServiceResponse()
        try:
            answer.ParseFromString(response.body)
        except Exception:  # DecodeError: the status says that the records were accepted
            return
        partial = answer.partial_success
        rejected = min(partial.rejected_log_records, lines)
        if rejected > 0:  # the protocol does not say which ones, and forbids a retry
            raise RejectedError(response.excerpt(partial.error_message) or "no reason given", rejected, lines)

    def close(self) -> None:
        self._client.close()


def _fill(log: "LogRecord", record: Mapping[str, Any], attributes: Mapping[str, Any]) -> None:
    log.time_unix_nano = max(0, parse_rfc3339(record.get("time")) or 0)  # 0 means unknown
    log.observed_time_unix_nano = time.time_ns()
    number, log.severity_text = SEVERITIES.get(str(record.get("type")), INFO)
    log.severity_number = number  # type: ignore[assignment]
    log.event_name = event_name(record)
    log.body.string_value = summarize(record)
    log.attributes.extend(_pairs(attributes))


def _pairs(attributes: Mapping[str, Any]) -> "list[KeyValue]":
    from opentelemetry.proto.common.v1.common_pb2 import KeyValue

    pairs = []
    for name, value in attributes.items():
        pair = KeyValue(key=name)
        _set(pair.value, value)
        pairs.append(pair)
    return pairs


def _set(into: "AnyValue", value: Any) -> None:
    if isinstance(value, bool):
        into.bool_value = value
    elif isinstance(value, int) and value in _INT64:
        into.int_value = value
    elif isinstance(value, float):
        into.double_value = value
    elif isinstance(value, list):
        into.array_value.SetInParent()
        for item in value:
            _set(into.array_value.values.add(), item)
    elif isinstance(value, dict):
        into.kvlist_value.values.extend(_pairs(value))
    elif value is not None:
        into.string_value = str(value)
