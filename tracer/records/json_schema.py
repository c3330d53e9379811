# SPDX-License-Identifier: Apache-2.0
"""Generates the JSON Schema of the records from the annotations in tracer/records/model.py."""

from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

from tracer.records.model import Record

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_PRIMITIVES: dict[Any, str] = {str: "string", int: "integer", bool: "boolean", NoneType: "null"}


def json_schema() -> dict[str, Any]:
    """The schema of one line (draft 2020-12): one of the record types, selected by ``type``."""
    definitions: dict[str, Any] = {}
    records = [_schema_of(record, definitions) for record in get_args(Record)]
    return {
        "$schema": DIALECT,
        "title": "oomtrace record",
        "description": "One line of oomtrace's output. Fields may be added; null means unknown.",
        "oneOf": records,
        "$defs": definitions,
    }


def _schema_of(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    if is_typeddict(kind):
        if kind.__name__ not in definitions:
            definitions[kind.__name__] = {}  # reserves its place before those of its fields
            definitions[kind.__name__] = _typed_dict_schema(kind, definitions)
        return {"$ref": f"#/$defs/{kind.__name__}"}
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return {"description": arguments[1], **_schema_of(arguments[0], definitions)}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, UnionType):
        return {"anyOf": [_schema_of(argument, definitions) for argument in arguments]}
    if origin is list:
        return {"type": "array", "items": _schema_of(arguments[0], definitions)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema_of(arguments[1], definitions)}
    return {"type": _PRIMITIVES[kind]}


def _typed_dict_schema(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {
        "type": "object",
        "description": (kind.__doc__ or "").strip() or kind.__name__,
        "properties": {name: _schema_of(hint, definitions) for name, hint in hints.items()},
        "required": list(hints),
        "additionalProperties": False,
    }
