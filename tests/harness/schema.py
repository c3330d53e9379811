# SPDX-License-Identifier: Apache-2.0
"""Checks records, and lines of outputs, against the JSON Schema."""

import json
from typing import Any

from jsonschema.validators import validator_for

from tracer.records.json_schema import json_schema

LINE_BYTES_MAX = 8192
"""Log shippers cut longer lines, and the parts are not valid JSON."""

_SCHEMA = json_schema()
_VALIDATOR = validator_for(_SCHEMA)(_SCHEMA)


def validate(record: Any) -> None:
    """Check a record against the JSON Schema.

    Raises jsonschema.ValidationError.
    """
    _VALIDATOR.validate(record)


def check_line(line: bytes) -> None:
    """Check that a line is one valid record without control characters, whatever names are in it."""
    assert len(line) < LINE_BYTES_MAX
    assert min(line) >= 0x20, "control characters in a line"
    validate(json.loads(line))
