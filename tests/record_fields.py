# SPDX-License-Identifier: Apache-2.0
"""The fields of each type of record, from the JSON Schema, for the documentation."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from tracer.records.json_schema import json_schema


class Field(NamedTuple):
    name: str
    """``victim.cmdline``; of an object in a list ``candidates[].pid``."""
    type: str
    """Values stand in backquotes."""
    meaning: str


class Type(NamedTuple):
    name: str
    """``oom_kill``."""
    meaning: str
    fields: tuple[Field, ...]


def types() -> Iterator[Type]:
    schema = json_schema()
    definitions = schema["$defs"]
    for reference in schema["oneOf"]:
        definition = definitions[_name(reference)]
        name = definition["properties"]["type"]["enum"][0]
        yield Type(name, definition["description"], tuple(_fields(definition, definitions, "")))


def _fields(definition: dict[str, Any], definitions: dict[str, Any], prefix: str) -> Iterator[Field]:
    for name, field in definition["properties"].items():
        spelled, inner, many = _type(field, definitions)
        meaning = field.get("description") or (definitions[inner]["description"] if inner else "")
        yield Field(f"{prefix}{name}", spelled, meaning)
        if inner is not None:
            yield from _fields(definitions[inner], definitions, f"{prefix}{name}{'[]' if many else ''}.")


def _type(field: dict[str, Any], definitions: dict[str, Any]) -> tuple[str, str | None, bool]:
    """A field's type as text, the object in it, and whether it is a list of them."""
    if "$ref" in field:
        return "object", _name(field), False
    if "anyOf" in field:
        spelled = [_type(option, definitions) for option in field["anyOf"]]
        inner = next((option for option in spelled if option[1] is not None), ("", None, False))
        return " or ".join(dict.fromkeys(option[0] for option in spelled)), inner[1], inner[2]
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"]), None, False
    if field["type"] == "array":
        spelled_item, inner_item, _ = _type(field["items"], definitions)
        return f"list of {spelled_item}s", inner_item, True
    return field["type"], None, False


def _name(reference: dict[str, Any]) -> str:
    return str(reference["$ref"]).rpartition("/")[2]
