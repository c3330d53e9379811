# SPDX-License-Identifier: Apache-2.0
"""A record of each type with a different value in every field, generated from the JSON Schema."""

import itertools
from typing import Any

from tracer.records.json_schema import json_schema

SCHEMA = json_schema()
IMAGE = "shop/cart:2.4"


def _make(field: dict[str, Any], name: str, numbers: "itertools.count[int]") -> Any:
    if "$ref" in field:
        definition = SCHEMA["$defs"][field["$ref"].rpartition("/")[2]]
        return {inner: _make(of, inner, numbers) for inner, of in definition["properties"].items()}
    if "anyOf" in field:
        return _make(field["anyOf"][0], name, numbers)
    if "enum" in field:
        return field["enum"][0]
    if field["type"] == "array":
        return [_make(field["items"], name, numbers) for _ in range(2)]
    if field["type"] == "object":
        return {f"of.{name}": f"label {next(numbers)}"}
    if field["type"] == "integer":
        return next(numbers)
    if field["type"] == "boolean":
        return True
    if name in ("time", "since", "started_at"):
        return f"2026-11-24T03:51:53.{next(numbers):09d}Z"
    return IMAGE if name == "image" else f"{name} {next(numbers)}"


def _full() -> dict[str, Any]:
    records = [_make(reference, "", itertools.count(10_001)) for reference in SCHEMA["oneOf"]]
    return {record["type"]: record for record in records}


FULL = _full()
