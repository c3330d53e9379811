# SPDX-License-Identifier: Apache-2.0
"""sinks/otlp.py: requests as OpenTelemetry's own library parses them."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from tests.harness.full_records import FULL
from tests.harness.http_peer import Peer, Reply, serving
from tests.harness.lines import settle
from tracer.base.clock import parse_rfc3339
from tracer.base.errors import TracerError
from tracer.delivery.output import Output
from tracer.delivery.sinks import RejectedError
from tracer.delivery.sinks.http_client import RetryableError
from tracer.delivery.sinks.open import open_uri
from tracer.delivery.sinks.otlp import OtlpSink
from tracer.delivery.spool import Spool
from tracer.encoding.otel import otel


@pytest.fixture
def peer() -> Iterator[Peer]:
    with serving() as serves:
        yield serves


@pytest.fixture
def sink(peer: Peer) -> Iterator[OtlpSink]:
    opened = open_uri(f"otlp+http://127.0.0.1:{peer.port}")
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
    """Received records, with the names of the style ``otel``."""
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
    """Records of every type, in order, equal to the style ``otel``."""
    lines = [line(record) for record in FULL.values()] * 3
    assert sink.write(lines) == len(lines)
    expected = [{**otel(record), "Timestamp": parse_rfc3339(record["time"])} for record in FULL.values()] * 3
    assert received(peer) == expected
    assert (peer.asked[0].path, peer.asked[0].headers["content-type"]) == ("/v1/logs", "application/x-protobuf")
    assert peer.asked[0].headers["content-encoding"] == "gzip"


def test_unknown_time(peer: Peer, sink: OtlpSink) -> None:
    """An unknown time is 0, OpenTelemetry's unknown; lists keep null; integers may exceed 64 bits."""
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
    """A line that cannot be sent is rejected."""
    with pytest.raises(RejectedError, match="not a record"):
        sink.write([bad])


class Other:
    """A server that reports how many records it rejects."""

    def __init__(self, refused: set[int]) -> None:
        self.refused, self.stored = refused, list[int]()

    def answer(self, body: bytes) -> bytes:
        response, refused = ExportLogsServiceResponse(), 0
        for of_resource in ExportLogsServiceRequest.FromString(body).resource_logs:
            for log in of_resource.scope_logs[0].log_records:
                (seq,) = (pair.value.int_value for pair in log.attributes if pair.key == "oomtrace.seq")
                refused += seq in self.refused
                self.stored += [seq] if seq not in self.refused else []
        response.partial_success.rejected_log_records = refused
        response.partial_success.error_message = "too old" if refused else ""
        return response.SerializeToString()


@pytest.mark.parametrize("has_spool", [True, False])
def test_partial_success_is_not_sent_again(
    peer: Peer, sink: OtlpSink, tmp_path: Path, capfd: pytest.CaptureFixture[str], has_spool: bool
) -> None:
    """Accepted records are stored once; rejected ones are counted, and are among the lines set aside."""
    other = Other({3, 7, 21})
    peer.answer = other.answer
    spool = Spool(str(tmp_path), "otlp", 1 << 20) if has_spool else None
    sink.batch_lines = 10
    output = Output(sink, spool)
    lines = [line({"schema": 1, "type": "stop", "time": None, "seq": number}) for number in range(30)]
    for each in lines:
        output.put(each)
    settle(output, 30)
    assert sorted(other.stored) == sorted(set(range(30)) - other.refused)
    assert output.rejected == 3
    kept = "too old; rejected records are kept in" if has_spool else "too old; rejected records are lost"
    assert capfd.readouterr().err.count(kept) == 1
    output.close(5)
    if spool is not None:
        aside = [orjson.loads(each)["seq"] for each in Path(spool.path, "rejected.ndjson").read_bytes().splitlines()]
        assert other.refused <= set(aside)
        assert len(aside) == len(set(aside))


def test_partial_success(peer: Peer, sink: OtlpSink) -> None:
    """Rejections are reported; a warning is not a rejection, nor is an unexpected answer."""
    partial = ExportLogsPartialSuccess(rejected_log_records=1, error_message="too \x1bold")
    warning = ExportLogsPartialSuccess(error_message="beware")
    bodies = [ExportLogsServiceResponse(partial_success=part).SerializeToString() for part in (partial, warning)]
    peer.replies = [Reply(body=body) for body in [*bodies, b"{}", b""]]
    with pytest.raises(RejectedError, match=r"too \\x1bold") as caught:
        sink.write([line(FULL["start"])] * 3)
    assert (caught.value.count, caught.value.among) == (1, 3)
    for _ in range(3):
        assert sink.write([line(FULL["start"])]) == 1


@pytest.mark.parametrize(("status", "error"), [(400, RejectedError), (429, RetryableError), (503, RetryableError)])
def test_statuses(status: int, error: type[Exception], peer: Peer, sink: OtlpSink) -> None:
    """The same errors as for other HTTP outputs."""
    peer.replies = [Reply(status, headers={"Retry-After": "3"})]
    with pytest.raises(error, match=str(status)):
        sink.write([line(FULL["start"])])


def test_extra_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra to install."""
    monkeypatch.setitem(sys.modules, "opentelemetry.proto.collector.logs.v1", None)
    with pytest.raises(TracerError, match="pipx inject oomtrace opentelemetry-proto"):
        open_uri("otlp+http://127.0.0.1")
