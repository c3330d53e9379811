# SPDX-License-Identifier: Apache-2.0
"""A line that should be a record -> the record, as the types of tracer/event.py have it.

Files come from anywhere, and from other versions: what is not of the right type is refused, a field that was not there
yet is null, and one that nobody knows here stays as it is.
"""

from collections.abc import Callable
from typing import Any, cast

import orjson

from tracer.event import Record
from tracer.schema import json_schema

_Check = Callable[[Any], bool]
_TYPES: dict[str, type] = {"string": str, "boolean": bool, "null": type(None)}
_MOST_INTEGER = 1 << 64


class Records:
    """Reads lines."""

    def __init__(self) -> None:
        schema = json_schema()
        self._definitions: dict[str, Any] = schema["$defs"]
        self._checks: dict[str, _Check] = {}
        self._kinds: dict[str, _Check] = {}
        for reference in schema["oneOf"]:
            definition = self._definitions[_name(reference)]
            self._kinds[definition["properties"]["type"]["enum"][0]] = self._check(reference)

    def read(self, line: bytes) -> Record | None:
        """The record; None where the line is none."""
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError:
            return None
        return self.conform(value)

    def conform(self, value: Any) -> Record | None:
        """The same value with the fields that it lacks as null; None where it is no record."""
        if type(value) is not dict or type(value.get("type")) is not str:
            return None
        check = self._kinds.get(value["type"])
        return cast(Record, value) if check is not None and check(value) else None

    def _check(self, schema: dict[str, Any]) -> _Check:
        if "$ref" in schema:
            name = _name(schema)
            if name not in self._checks:
                self._checks[name] = self._object(self._definitions[name])
            return self._checks[name]
        if "anyOf" in schema:
            checks = [self._check(option) for option in schema["anyOf"]]
            return lambda value: any(check(value) for check in checks)
        if "enum" in schema:
            values = schema["enum"]
            return lambda value: type(value) is str and value in values
        kind = schema["type"]
        if kind == "integer":
            return lambda value: type(value) is int and -_MOST_INTEGER < value < _MOST_INTEGER
        if kind == "array":
            each = self._check(schema["items"])
            return lambda value: type(value) is list and all(map(each, value))
        if kind == "object":
            of_value = self._check(schema["additionalProperties"])
            return lambda value: type(value) is dict and all(map(of_value, value.values()))
        wanted = _TYPES[kind]
        return lambda value: type(value) is wanted

    def _object(self, definition: dict[str, Any]) -> _Check:
        fields = [(name, self._check(field)) for name, field in definition["properties"].items()]

        def check(value: Any) -> bool:
            return type(value) is dict and all(of_field(value.setdefault(name, None)) for name, of_field in fields)

        return check


def _name(reference: dict[str, Any]) -> str:
    return str(reference["$ref"]).rpartition("/")[2]
