# SPDX-License-Identifier: Apache-2.0
"""Lines of records -> what identifies them, so that none is written twice."""

from collections.abc import Iterable
from typing import Any

import orjson

from tracer.records.line_prefix import EVENT_PREFIX

RecordId = tuple[str, str]
"""Type and id of a record: ``("oom_kill", "edc589e9-1c5c1eee28-548")``."""


def extract_record_ids(lines: Iterable[bytes]) -> set[RecordId]:
    """Of those that have one; whatever is no record is passed over."""
    found = set()
    for line in lines:
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        own = extract_record_id(record)
        if own is not None:
            found.add(own)
    return found


def extract_record_id(fields: Any) -> RecordId | None:
    """Of what a line of any style holds."""
    if not isinstance(fields, dict):
        return None
    kind, own = fields.get("type"), fields.get("id")
    event, attributes = fields.get("event"), fields.get("Attributes")
    if isinstance(event, dict) and event.get("module") == "oomtrace":
        kind, own = event.get("action"), event.get("id")
    elif isinstance(attributes, dict):
        kind, own = str(fields.get("EventName")).removeprefix(EVENT_PREFIX), attributes.get("oomtrace.id")
    return (kind, own) if isinstance(kind, str) and isinstance(own, str) else None
