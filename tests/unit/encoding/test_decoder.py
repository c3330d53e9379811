# SPDX-License-Identifier: Apache-2.0
"""decoder.py: which values are records, of this version and of others."""

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema.validators import validator_for

from tests.report.samples import of_kernel_logs
from tracer.encoding.decoder import InvalidRecordError, RecordReader
from tracer.records.json_schema import json_schema

BASES = of_kernel_logs()
RECORDS = RecordReader()
OTHER: tuple[Any, ...] = (None, True, 7, -1, 1 << 70, 1.5, "x", "memcg", [], {}, [None], {"a": "b"})


def line_of(record: Any) -> bytes:
    return json.dumps(record).encode()


def lenient() -> Any:
    """Validates by the schema, except for fields that other versions lack or add."""
    schema = json_schema()
    for definition in schema["$defs"].values():
        definition["additionalProperties"] = True
        nullable = [
            name for name, field in definition["properties"].items() if {"type": "null"} in field.get("anyOf", ())
        ]
        definition["required"] = [name for name in definition["required"] if name not in nullable]
    return validator_for(schema)(schema)


def leaves(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every value of a record: its container and key."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from leaves(inner)


def is_taken(record: Any) -> bool:
    try:
        return RECORDS.conform(record) is not None
    except InvalidRecordError:
        return False


def test_records_are_taken() -> None:
    """Records of real kills are decoded unchanged."""
    for record in BASES:
        assert RECORDS.read(line_of(record)) == record


def test_as_the_schema() -> None:
    """A record with one changed value is accepted exactly if jsonschema accepts it."""
    chance, validator = random.Random(7), lenient()
    taken = 0
    for _ in range(400):
        record = copy.deepcopy(chance.choice(BASES))
        owner, key = chance.choice(list(leaves(record)))
        owner[key] = copy.deepcopy(chance.choice(OTHER))
        valid = validator.is_valid(record) and owner[key] != 1 << 70
        assert is_taken(record) == valid, (key, owner[key])
        taken += valid
    assert 40 < taken < 360


def test_older_records() -> None:
    """A missing newer field becomes null, an unknown field is kept, a missing required field is refused."""
    record = copy.deepcopy(BASES[0])
    del record["victim"]["shared_mm"], record["network"]
    record["later"] = {"x": 1}
    taken: Any = RECORDS.conform(copy.deepcopy(record))
    assert (taken["victim"]["shared_mm"], taken["network"], taken["later"]) == (None, None, {"x": 1})
    del record["id"]
    assert not is_taken(record)


def test_later_kinds() -> None:
    """An unknown type of record is not an error."""
    assert RECORDS.read(b'{"type": "what comes later"}') is None


def test_journal() -> None:
    """A journal entry has a record as its message, or in a field of its own."""
    line = line_of(BASES[0]).decode()
    assert RECORDS.read(line_of({"__CURSOR": "s=1", "MESSAGE": line})) == BASES[0]
    assert RECORDS.read(line_of({"MESSAGE": "A sentence.", "OOMTRACE_RECORD": line})) == BASES[0]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"{}",
        b"[]",
        b"7",
        b"null",
        b"\xff",
        b"[" * 9999,
        b'{"type":1}',
        b'{"type":["oom_kill"]}',
        b'{"type":"oom_kill"}',
        b'{"MESSAGE":null}',
        b'{"MESSAGE":7}',
        b'{"MESSAGE":[123,125]}',
        b'{"MESSAGE":"Started oomtrace.service."}',
        b'{"MESSAGE":"{}"}',
        line_of({**BASES[0], "victim": []}),
        line_of({**BASES[0], "schema": True}),
        line_of({**BASES[0], "time": 5}),
        line_of({**BASES[0], "source": "?"}),
    ],
)
def test_no_record(line: bytes) -> None:
    """Anything else raises InvalidRecordError."""
    with pytest.raises(InvalidRecordError):
        RECORDS.read(line)
