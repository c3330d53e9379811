# SPDX-License-Identifier: Apache-2.0
"""Decodes a line to a record with the types of tracer/records/model.py.

Files may come from any source and version: a value of the wrong type is refused, a missing field becomes null, and an
unknown field is kept.
"""

from collections.abc import Callable
from typing import Any, cast

import orjson

from tracer.identity import cgroup_path
from tracer.records.json_schema import json_schema
from tracer.records.model import Record
from tracer.records.owner import Owner, OwnerContainer

_Check = Callable[[Any], bool]
_TYPES: dict[str, type] = {"string": str, "boolean": bool, "null": type(None)}
_INTEGER_BOUND = 1 << 64


class InvalidRecordError(ValueError):
    """A line or value is not a record."""


class RecordReader:
    """Reads lines that oomtrace has written, and entries of ``journalctl -o json`` that contain such a line."""

    def __init__(self) -> None:
        schema = json_schema()
        self._definitions: dict[str, Any] = schema["$defs"]
        self._checks: dict[str, _Check] = {}
        self._kinds: dict[str, _Check] = {}
        for reference in schema["oneOf"]:
            definition = self._definitions[_name(reference)]
            self._kinds[definition["properties"]["type"]["enum"][0]] = self._check(reference)

    def read(self, line: bytes) -> Record | None:
        """The record; None: its type is unknown, as of a later version.

        Raises InvalidRecordError.
        """
        return self.conform(read_json(line))

    def conform(self, value: Any) -> Record | None:
        """The same value with missing fields as null; otherwise as ``read``."""
        if type(value) is not dict or type(value.get("type")) is not str:
            raise InvalidRecordError
        check = self._kinds.get(value["type"])
        if check is None:
            return None
        is_old = "owner" not in value
        if not check(value):
            raise InvalidRecordError
        if is_old and value["type"] in ("oom_kill", "sigkill"):
            is_cut = "victim.cgroup" in value["truncated"]
            value["owner"] = _owner(value, None if is_cut else value["victim"]["cgroup"])
            sender = value.get("sender")
            if sender is not None:
                is_cut = "sender.cgroup" in value["truncated"]
                sender["owner"] = _owner(sender, None if is_cut else sender["cgroup"])
        return cast(Record, value)

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
            return lambda value: type(value) is int and -_INTEGER_BOUND < value < _INTEGER_BOUND
        if kind == "array":
            each = self._check(schema["items"])
            return lambda value: type(value) is list and all(map(each, value))
        if kind == "object":
            of_value = self._check(schema["additionalProperties"])
            return lambda value: type(value) is dict and all(map(of_value, value.values()))
        expected = _TYPES[kind]
        return lambda value: type(value) is expected

    def _object(self, definition: dict[str, Any]) -> _Check:
        fields = [(name, self._check(field)) for name, field in definition["properties"].items()]

        def check(value: Any) -> bool:
            return type(value) is dict and all(of_field(value.setdefault(name, None)) for name, of_field in fields)

        return check


def _owner(fields: dict[str, Any], path: str | None) -> Owner | None:
    """The owner, which earlier versions did not write: from the complete path, otherwise from the record's fields."""
    container = fields["container"]
    if path is not None:
        return cgroup_path.parse_cgroup_path(path).owner
    if container is None or container["node_container_id"] is None:
        return None
    named = fields["kubernetes"] if fields["kubernetes"] and fields["kubernetes"]["pod_name"] is not None else None
    made: OwnerContainer = {"id": container["node_container_id"], "runtime": None, "name": None, "image": None}
    return {"container": made, "kubernetes": named, "systemd": None}


def read_json(line: bytes) -> dict[str, Any]:
    """The object in a line, or in the message of a journal entry, which may be a record.

    Raises InvalidRecordError.
    """
    value = _object(line)
    if "type" in value:
        return value
    # The sink journald writes its own field; stdout becomes the message of an entry.
    return _object(value.get("OOMTRACE_RECORD") or value.get("MESSAGE"))


def _object(text: Any) -> dict[str, Any]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:  # raised for other types than text as well
        raise InvalidRecordError from error
    if type(value) is not dict:
        raise InvalidRecordError
    return value


def _name(reference: dict[str, Any]) -> str:
    return str(reference["$ref"]).rpartition("/")[2]
