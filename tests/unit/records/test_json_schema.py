# SPDX-License-Identifier: Apache-2.0
"""json_schema.py: the JSON Schema is complete and valid, and describes every field."""

from collections.abc import Iterator
from typing import Any, get_args, get_type_hints, is_typeddict

import jsonschema
import pytest

from tests.harness import events
from tests.harness.records import complete
from tests.harness.schema import validate
from tracer.records import model
from tracer.records.json_schema import json_schema

SCHEMA = json_schema()
DEFINITIONS = SCHEMA["$defs"]
RECORDS = {
    name: kind
    for name, kind in vars(model).items()
    if is_typeddict(kind) and "type" in get_type_hints(kind)
}  # fmt: skip


def test_schema_is_valid() -> None:
    """The schema is valid in draft 2020-12."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert jsonschema.validators.validator_for(SCHEMA) is jsonschema.Draft202012Validator


def test_every_record_is_in_it() -> None:
    """Every record type of model.py is in the schema."""
    assert {f"#/$defs/{name}" for name in RECORDS} == {reference["$ref"] for reference in SCHEMA["oneOf"]}
    assert set(RECORDS.values()) == set(get_args(model.Record))


def test_types_are_told_apart() -> None:
    """No two records have the same `type`."""
    types = [kind for name in RECORDS for kind in DEFINITIONS[name]["properties"]["type"]["enum"]]
    assert len(RECORDS) == len(set(types)) == len(types)


def test_every_object_is_defined() -> None:
    """Every reference has a definition, and every definition is used."""
    used = {node["$ref"].removeprefix("#/$defs/") for node in walk(SCHEMA) if "$ref" in node}
    assert used == DEFINITIONS.keys()


def walk(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
    for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from walk(inner)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_objects_are_closed(name: str) -> None:
    """Every field of an object is required, and no other is allowed."""
    definition = DEFINITIONS[name]
    assert sorted(definition["properties"]) == sorted(definition["required"])
    assert definition["additionalProperties"] is False


@pytest.mark.parametrize("name", DEFINITIONS)
def test_everything_is_described(name: str) -> None:
    """Every object and every field has a description, its own or that of its object."""
    assert DEFINITIONS[name]["description"] not in ("", name)
    for field, content in DEFINITIONS[name]["properties"].items():
        options = [content, *content.get("anyOf", [])]
        described = any("description" in option or "$ref" in option for option in options)
        assert described or field == "type", field


def test_a_field_too_many() -> None:
    """A record with an unknown or missing field is invalid."""
    record: dict[str, Any] = {**complete(events.kill())}
    validate(record)
    with pytest.raises(jsonschema.ValidationError):
        validate({**record, "more": 1})
    del record["victim"]
    with pytest.raises(jsonschema.ValidationError):
        validate(record)
