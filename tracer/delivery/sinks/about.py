# SPDX-License-Identifier: Apache-2.0
"""What a message broker wants to know of a line beside the line itself."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import orjson


class About(NamedTuple):
    """Each is None where the line does not tell, or is no record."""

    host: str | None
    """Lines of one host stay in order."""
    type: str | None
    id: str | None


def about(line: bytes) -> About:
    """Of a record in any style."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        record = None
    if not isinstance(record, dict):
        return About(None, None, None)
    host, event, resource, attributes = (_part(record, name) for name in ("host", "event", "Resource", "Attributes"))
    names = (host.get("name"), record.get("host.name"), resource.get("host.name"))
    kinds = (record.get("type"), event.get("action"), attributes.get("oomtrace.type"))
    ids = (record.get("id"), event.get("id"), attributes.get("oomtrace.id"))
    return About(_text(names), _text(kinds), _text(ids))


def _part(record: dict[str, Any], name: str) -> dict[str, Any]:
    part = record.get(name)
    return part if isinstance(part, dict) else {}


def _text(values: Iterable[object]) -> str | None:
    return next((value for value in values if isinstance(value, str)), None)
