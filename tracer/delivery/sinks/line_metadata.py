# SPDX-License-Identifier: Apache-2.0
"""Read from a line, of any style and version, the fields by which stores and brokers file it."""

from typing import Any, NamedTuple

import orjson

from tracer.base.clock import parse_rfc3339
from tracer.records.line_prefix import EVENT_PREFIX
from tracer.records.record_id import RecordId, extract_record_id

_HOSTS = ("host.name", "Resource/host.name", "host/name")
_NAMESPACES = (
    "kubernetes.namespace",
    "Resource/k8s.namespace.name",
    "kubernetes/namespace",
    "orchestrator/namespace",
)
_TYPES = ("type", "EventName", "event/action")
_TIMES = ("time", "Timestamp", "@timestamp")


class LineMetadata(NamedTuple):
    """A field that the line does not have is None."""

    type: str | None
    id: RecordId | None
    host: str | None
    namespace: str | None
    time_ns: int | None
    """Unix time."""
    is_json: bool


def line_metadata(line: bytes) -> LineMetadata:
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError:
        return LineMetadata(None, None, None, None, None, is_json=False)
    kind = _first(fields, _TYPES)
    return LineMetadata(
        kind.removeprefix(EVENT_PREFIX) if kind else None,
        extract_record_id(fields),
        _first(fields, _HOSTS),
        _first(fields, _NAMESPACES),
        parse_rfc3339(_first(fields, _TIMES)),
        is_json=True,
    )


def _first(fields: Any, paths: tuple[str, ...]) -> str | None:
    """The first string at one of the paths; / separates names."""
    for path in paths:
        value = fields
        for name in path.split("/"):
            value = value.get(name) if isinstance(value, dict) else None
        if isinstance(value, str):
            return value
    return None
