# SPDX-License-Identifier: Apache-2.0
"""Extracts the ids of records from their lines, so that no record is delivered twice."""

from collections.abc import Iterable
from typing import Any

import orjson

from tracer.records.line_prefix import EVENT_PREFIX

RecordId = tuple[str, str]
"""Type and id of a record: ``("oom_kill", "edc589e9-1c5c1eee28-548")``."""


def extract_record_ids(lines: Iterable[bytes]) -> set[RecordId]:
    """The ids of all lines that have one; lines that are not records are skipped."""
    record_ids = set()
    for line in lines:
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        record_id = extract_record_id(record)
        if record_id is not None:
            record_ids.add(record_id)
    return record_ids


def extract_record_id(fields: Any) -> RecordId | None:
    """The id in a parsed line of any style; None: there is none."""
    if not isinstance(fields, dict):
        return None
    kind, record_id = fields.get("type"), fields.get("id")
    event, attributes = fields.get("event"), fields.get("Attributes")
    if isinstance(event, dict) and event.get("module") == "oomtrace":
        kind, record_id = event.get("action"), event.get("id")
    elif isinstance(attributes, dict):
        kind, record_id = str(fields.get("EventName")).removeprefix(EVENT_PREFIX), attributes.get("oomtrace.id")
    return (kind, record_id) if isinstance(kind, str) and isinstance(record_id, str) else None
