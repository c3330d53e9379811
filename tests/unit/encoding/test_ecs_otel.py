# SPDX-License-Identifier: Apache-2.0
"""otel.py, ecs.py: names of the standards, and no lost field."""

import csv
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.harness import DATA
from tests.harness.full_records import FULL, IMAGE
from tracer.delivery.sinks.line_metadata import line_metadata
from tracer.delivery.sinks.open import open_uri
from tracer.encoding.ecs import ecs
from tracer.encoding.encoder import encode
from tracer.encoding.flatten import leaves
from tracer.encoding.otel import otel, parts
from tracer.encoding.styles import STYLES
from tracer.records import image_ref
from tracer.records.line_prefix import LINE_PREFIXES
from tracer.records.record_id import extract_record_ids

ECS_FIELDS = {row["Field"]: row["Type"] for row in csv.DictReader((DATA / "ecs_fields.csv").read_text().splitlines())}
"""Of version 8.17.0, without the sets that have nothing to do with processes (generated/csv/fields.csv)."""
KINDS = sorted(FULL)


def values(fields: Any) -> Iterator[Any]:
    """All leaf values."""
    if isinstance(fields, dict):
        for value in fields.values():
            yield from values(value)
    elif isinstance(fields, list):
        for value in fields:
            yield from values(value)
    else:
        yield fields


def test_full_records_are_full() -> None:
    """The records below have a distinct value in every field, so that a lost one is noticed."""
    for record in FULL.values():
        every = list(values(record))
        found = [value for value in every if not isinstance(value, bool) and any(map(str.isdigit, str(value)))]
        assert len(set(found)) == len(found) - max(0, found.count(IMAGE) - 1)
        assert len(found) > len(every) / 2, "the others are one of a few words"
        assert None not in every


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("style", ["ecs", "otel"])
def test_no_field_is_lost(style: str, kind: str) -> None:
    """Each value of the record is there, unchanged, as text, or as a part of a text."""
    record = FULL[kind]
    found = list(values(STYLES[style](record)))
    texts = {str(value) for value in found}
    for path, value in leaves(record):
        for single in values(value):
            if isinstance(single, bool):
                continue
            whole = single in found or str(single) in texts
            pieces = path == "container.image" and {"shop/cart", "2.4"} <= texts
            assert whole or pieces, (path, single)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("style", ["ecs", "otel"])
def test_flags_are_not_lost(style: str, kind: str) -> None:
    """As many values as the record has."""
    flags = [value for value in values(FULL[kind]) if isinstance(value, bool)]
    assert [value for value in values(STYLES[style](FULL[kind])) if isinstance(value, bool)] == flags


def test_names_of_opentelemetry() -> None:
    """Names without oomtrace's prefix are in the semantic conventions; attributes are plain values or lists."""
    names = set()
    for module in ("container", "host", "k8s", "log", "os", "process", "service"):
        found = vars(import_module(f"opentelemetry.semconv._incubating.attributes.{module}_attributes"))
        names |= {value for name, value in found.items() if name.isupper() and isinstance(value, str)}
    for record in FULL.values():
        for attributes in parts(record):
            for name, value in attributes.items():
                assert name in names or name.startswith(("oomtrace.", "container.label.")), name
                assert not isinstance(value, dict)
                assert not (isinstance(value, list) and any(isinstance(item, dict) for item in value))


def test_names_of_ecs() -> None:
    """Names outside oomtrace's prefix are in the schema, or below an object of it; keywords are text."""
    for record in FULL.values():
        for path, value in leaves(ecs(record)):
            if path.startswith("oomtrace."):
                continue
            assert path in ECS_FIELDS, path
            assert isinstance(value, {"long": int, "object": dict}.get(ECS_FIELDS[path], (str, list))), path


def test_otel_by_example() -> None:
    """The names that users search for."""
    written = otel(FULL["oom_kill"])
    record = FULL["oom_kill"]
    assert written["EventName"] == "oomtrace.oom_kill"
    assert (written["SeverityNumber"], written["SeverityText"]) == (17, "ERROR")
    assert written["Body"].startswith("The kernel killed ")
    assert written["Resource"]["k8s.pod.name"] == record["owner"]["kubernetes"]["pod_name"]
    assert written["Resource"]["container.id"] == record["owner"]["container"]["id"]
    assert written["Attributes"]["oomtrace.inner.container.id"] == record["container"]["id"]
    assert written["Attributes"]["container.image.tags"] == ["2.4"]
    assert written["Attributes"]["process.command_args"] == record["victim"]["cmdline"]
    assert written["Attributes"]["oomtrace.candidates.points"] == [each["points"] for each in record["candidates"]]
    assert written["Attributes"]["log.record.uid"] == f"oom_kill:{record['id']}"


def test_ecs_by_example() -> None:
    """The same for ECS."""
    written, record = ecs(FULL["oom_kill"]), FULL["oom_kill"]
    assert written["@timestamp"] == record["time"]
    assert written["event"]["action"] == "oom_kill"
    assert written["process"]["parent"] == {"pid": record["victim"]["ppid"]}
    assert written["orchestrator"]["resource"]["name"] == record["owner"]["kubernetes"]["pod_name"]
    assert written["container"]["id"] == record["owner"]["container"]["id"]
    assert written["oomtrace"]["inner"]["container"]["id"] == record["container"]["id"]
    assert written["oomtrace"]["candidates"] == record["candidates"]


def test_labels_with_dots() -> None:
    """Labels contain no dots, which are levels to Elasticsearch; two labels with the same new name stay two."""
    record = {**FULL["start"], "host": {**FULL["start"]["host"], "labels": {"a.b": "1", "a_b": "2", "a": "3"}}}
    assert ecs(record)["labels"] == {"a_b": "1", "a_b_": "2", "a": "3"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("style", STYLES)
def test_lines_are_known_again(style: str, kind: str, tmp_path: Path) -> None:
    """Records are identified by type and id in any style; half a line at the end of a file is removed."""
    line = encode(FULL[kind], style=STYLES[style])
    expected = {(kind, FULL[kind]["id"])} if "id" in FULL[kind] else set()
    assert extract_record_ids([line]) == expected
    assert line.startswith(LINE_PREFIXES)
    metadata = line_metadata(line)
    assert (metadata.type, metadata.host) == (kind, FULL[kind]["host"]["name"])
    (tmp_path / "x").write_bytes(line + line[: len(line) // 2])
    sink = open_uri(f"file:{tmp_path}/x?style={style}")
    assert sink.recent() == expected
    sink.write([line])
    sink.close()
    assert (tmp_path / "x").read_bytes() == line + line


@pytest.mark.parametrize(
    "torn", [b'{"@timestamp":"2026-', b'{"event":{"module":"nginx",', b'{"EventName":"x', b'{"Timestamp":"']
)
def test_lines_of_others_stay(torn: bytes, tmp_path: Path) -> None:
    """Lines of other programs in ECS and OpenTelemetry are not records."""
    (tmp_path / "x").write_bytes(torn)
    sink = open_uri(f"file:{tmp_path}/x?style=ecs")
    sink.write([b"x\n"])
    sink.close()
    assert (tmp_path / "x").read_bytes() == torn + b"\nx\n"


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"type": "oom_kill"},
        {"type": 7, "id": 8, "host": None, "victim": [], "kubernetes": "x", "time": 5},
        {"type": "of a later version", "id": "x", "victim": {"cmdline": {"a": None}}, "list": [{"a": 1}, {"b": [{}]}]},
        {"type": "oom_kill", "victim": {"comm": "\x1b[31m\n"}, "limit": None, "incident": {}},
    ],
)
def test_records_of_other_versions(record: Any) -> None:
    """A spool may contain records of another version: they are sent, or raise RejectedError."""
    assert "\x1b" not in otel(record)["Body"]
    assert orjson.loads(orjson.dumps(ecs(record)))["event"]["module"] == "oomtrace"


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("shop/cart:2.4", ("shop/cart", "2.4", None)),
        ("cart", ("cart", None, None)),
        ("localhost:5000/cart", ("localhost:5000/cart", None, None)),
        ("localhost:5000/cart:1", ("localhost:5000/cart", "1", None)),
        ("cart@sha256:ab", ("cart", None, "cart@sha256:ab")),
        ("r/cart:1@sha256:ab", ("r/cart", "1", "r/cart@sha256:ab")),
        ("sha256:ab", None),
    ],
)
def test_image(text: str, parsed: tuple[str, str | None, str | None] | None) -> None:
    """References as specified by OCI."""
    assert image_ref.parse_image_ref(text) == parsed
