# SPDX-License-Identifier: Apache-2.0
"""A line that should hold a record -> the record, as the types of tracer/records/model.py have it.

Files come from anywhere, and from other versions: what is not of the right type is refused, a field that was not there
yet is null, and one that nobody knows here stays as it is.
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
_MOST_INTEGER = 1 << 64


class InvalidRecordError(ValueError):
    """It is no record."""


class RecordReader:
    """Reads lines: those that oomtrace writes, and entries of ``journalctl -o json`` that have one of them."""

    def __init__(self) -> None:
        schema = json_schema()
        self._definitions: dict[str, Any] = schema["$defs"]
        self._checks: dict[str, _Check] = {}
        self._kinds: dict[str, _Check] = {}
        for reference in schema["oneOf"]:
            definition = self._definitions[_name(reference)]
            self._kinds[definition["properties"]["type"]["enum"][0]] = self._check(reference)

    def read(self, line: bytes) -> Record | None:
        """The record; None: one of a kind that a later version may have.

        Raises InvalidRecordError.
        """
        return self.conform(read_json(line))

    def conform(self, value: Any) -> Record | None:
        """The same value with the fields that it lacks as null; otherwise as `read`."""
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


def _owner(fields: dict[str, Any], path: str | None) -> Owner | None:
    """What earlier versions did not write: of the path, where that is whole, else as far as the record tells."""
    container = fields["container"]
    if path is not None:
        return cgroup_path.parse_cgroup_path(path).owner
    if container is None or container["node_container_id"] is None:
        return None
    named = fields["kubernetes"] if fields["kubernetes"] and fields["kubernetes"]["pod_name"] is not None else None
    made: OwnerContainer = {"id": container["node_container_id"], "runtime": None, "name": None, "image": None}
    return {"container": made, "kubernetes": named, "systemd": None}


def read_json(line: bytes) -> dict[str, Any]:
    """What may be a record: the object in a line, or in the text of the entry that this is.

    Raises InvalidRecordError.
    """
    value = _object(line)
    if "type" in value:
        return value
    # The output journald has a field of its own for it; of stdout the journal makes a message.
    return _object(value.get("OOMTRACE_RECORD") or value.get("MESSAGE"))


def _object(text: Any) -> dict[str, Any]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:  # of what is no text, too
        raise InvalidRecordError from error
    if type(value) is not dict:
        raise InvalidRecordError
    return value


def _name(reference: dict[str, Any]) -> str:
    return str(reference["$ref"]).rpartition("/")[2]
