# SPDX-License-Identifier: Apache-2.0
"""sinks/otlp.py: requests as OpenTelemetry's own library reads them."""

import sys
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from tracer.clock import unix_ns
from tracer.errors import TracerError
from tracer.sinks import RejectedError
from tracer.sinks.http_client import BusyError
from tracer.sinks.open import open_sink
from tracer.sinks.otlp import OtlpSink
from tracer.style_otel import otel

from .full_records import FULL
from .http_peer import Peer, Reply, serving


@pytest.fixture
def peer() -> Iterator[Peer]:
    with serving() as serves:
        yield serves


@pytest.fixture
def sink(peer: Peer) -> Iterator[OtlpSink]:
    opened = open_sink(f"otlp+http://127.0.0.1:{peer.port}")
    assert isinstance(opened, OtlpSink)
    yield opened
    opened.close()


def line(record: Any) -> bytes:
    return orjson.dumps(record) + b"\n"


def plain(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return {pair.key: plain(pair.value) for pair in value.kvlist_value.values}
    return getattr(value, kind) if kind else None


def received(peer: Peer) -> list[dict[str, Any]]:
    """What has come, in the names of the style ``otel``."""
    found = []
    for asked in peer.asked:
        for of_resource in ExportLogsServiceRequest.FromString(asked.body).resource_logs:
            for of_scope in of_resource.scope_logs:
                found += [
                    {
                        "EventName": log.event_name,
                        "Timestamp": log.time_unix_nano,
                        "SeverityNumber": log.severity_number,
                        "SeverityText": log.severity_text,
                        "Body": plain(log.body),
                        "Resource": {pair.key: plain(pair.value) for pair in of_resource.resource.attributes},
                        "Attributes": {pair.key: plain(pair.value) for pair in log.attributes},
                    }
                    for log in of_scope.log_records
                ]
    return found


def test_records(peer: Peer, sink: OtlpSink) -> None:
    """Of every type, in order, all as the style ``otel`` has it."""
    lines = [line(record) for record in FULL.values()] * 3
    assert sink.write(lines) == len(lines)
    expected = [{**otel(record), "Timestamp": unix_ns(record["time"])} for record in FULL.values()] * 3
    assert received(peer) == expected
    assert (peer.asked[0].path, peer.asked[0].headers["content-type"]) == ("/v1/logs", "application/x-protobuf")
    assert peer.asked[0].headers["content-encoding"] == "gzip"


def test_unknown_time(peer: Peer, sink: OtlpSink) -> None:
    """Is 0, which is OpenTelemetry's unknown; lists keep what is null in them; numbers may be too large for it."""
    record = {
        "type": "lost",
        "time": None,
        "list": [1, None],
        "count": 1 << 63,
        "share": 0.5,
        "no": False,
        "none": None,
    }
    sink.write([line(record)])
    (log,) = received(peer)
    assert log["Timestamp"] == 0
    assert log["Attributes"] == {
        "oomtrace.type": "lost",
        "oomtrace.list": [1, None],
        "oomtrace.count": "9223372036854775808",
        "oomtrace.share": 0.5,
        "oomtrace.no": False,
    }


@pytest.mark.parametrize("bad", [b"no json\n", b"[]\n", b"7\n"])
def test_no_record(bad: bytes, sink: OtlpSink) -> None:
    """What cannot be sent is set aside."""
    with pytest.raises(RejectedError, match="no record"):
        sink.write([bad])


def test_partial_success(peer: Peer, sink: OtlpSink) -> None:
    """What was rejected is told; a warning is no rejection; and so is an answer of another kind."""
    partial = ExportLogsPartialSuccess(rejected_log_records=1, error_message="too \x1bold")
    warning = ExportLogsPartialSuccess(error_message="beware")
    bodies = [ExportLogsServiceResponse(partial_success=part).SerializeToString() for part in (partial, warning)]
    peer.replies = [Reply(body=body) for body in [*bodies, b"{}", b""]]
    with pytest.raises(RejectedError, match=r"too \\x1bold"):
        sink.write([line(FULL["start"])])
    for _ in range(3):
        assert sink.write([line(FULL["start"])]) == 1


@pytest.mark.parametrize(("status", "error"), [(400, RejectedError), (429, BusyError), (503, BusyError)])
def test_statuses(status: int, error: type[Exception], peer: Peer, sink: OtlpSink) -> None:
    """As with all that goes by HTTP."""
    peer.replies = [Reply(status, headers={"Retry-After": "3"})]
    with pytest.raises(error, match=str(status)):
        sink.write([line(FULL["start"])])


def test_extra_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install is said at once."""
    monkeypatch.setitem(sys.modules, "opentelemetry.proto.collector.logs.v1", None)
    with pytest.raises(TracerError, match=r"pip install 'oomtrace\[otlp\]'"):
        open_sink("otlp+http://127.0.0.1")
