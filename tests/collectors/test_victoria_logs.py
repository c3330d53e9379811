# SPDX-License-Identifier: Apache-2.0
"""VictoriaLogs takes the records as NDJSON, Elasticsearch's _bulk, Loki's streams and OTLP at once."""

import json
from pathlib import Path

import pytest

from tests.harness.daemon import Daemon
from tracer.records.record_id import extract_record_id

from .conftest import Kill, Start
from .delivery import once
from .stored_ways import BULK, LOKI, NDJSON, OTLP, check_all, wait_for_kills
from .victoria_logs import VictoriaLogs

OPTIONS = "_stream_fields%3Dhost.name%26extra_fields%3Dway%3D"
JSON_LINES = f"/insert/jsonline?query=_time_field%3Dtime%26_msg_field%3Dtype%26{OPTIONS}"
BULK_LINES = f"/insert/elasticsearch/_bulk?query=_time_field%3D@timestamp%26_msg_field%3Dmessage%26{OPTIONS}"
WAYS = {
    "ndjson": ("http", JSON_LINES + "ndjson", NDJSON),
    "vector": ("vector+http", JSON_LINES + "vector", NDJSON),
    "bulk": ("elasticsearch+http", BULK_LINES + "bulk", BULK),
    "opensearch": ("opensearch+http", BULK_LINES + "opensearch", BULK),
    "loki": ("loki+http", "/insert/loki/api/v1/push?labels=way=loki", LOKI),
    "otlp": ("otlp+http", "/insert/opentelemetry/v1/logs?headers=VL-Extra-Fields=way=otlp", OTLP),
}


@pytest.fixture
def store(tmp_path: Path, start_program: Start) -> VictoriaLogs:
    return VictoriaLogs(tmp_path, start_program)


def outputs(port: int) -> list[str]:
    uris = [f"{scheme}://127.0.0.1:{port}{rest}&name={name}" for name, (scheme, rest, _) in WAYS.items()]
    return [word for uri in uris for word in ("--output", uri)]


def test_all_ways(daemon: Daemon, store: VictoriaLogs, kill: Kill, tmp_path: Path) -> None:
    """Each way delivers all records with searchable fields, although store and daemon are restarted."""
    files = {style: tmp_path / f"{style}.jsonl" for style in ("ecs", "otel")}
    arguments = outputs(store.port)
    for style, path in files.items():
        arguments += ["--output", f"file:{path}?style={style}"]
    daemon.start(*arguments)
    kill(4)
    for name, (_, _, way) in WAYS.items():
        wait_for_kills(store, name, way, 4)
    store.program.stop()
    kill(3)
    daemon.wait_for_kills(7)
    daemon.kill()
    kill(2)
    for path in files.values():  # as if killed while writing a line
        with path.open("ab") as file:
            file.write(path.read_bytes()[:40])
    daemon.start(*arguments)
    store.program.start()
    kill(1)
    for name, (_, _, way) in WAYS.items():
        wait_for_kills(store, name, way, 10)
    daemon.stop()
    for name, (_, _, way) in WAYS.items():
        check_all(daemon, store, name, way)
    written = once(daemon.records())
    for path in files.values():
        found = [extract_record_id(json.loads(line)) for line in path.read_bytes().splitlines()]
        assert len(found) == len(written), "torn or duplicate lines"
        assert set(filter(None, found)) == {(record["type"], record["id"]) for record in written if "id" in record}
