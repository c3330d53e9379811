# SPDX-License-Identifier: Apache-2.0
"""What a message broker wants to know of a line beside the line itself."""

from typing import NamedTuple

import orjson


class About(NamedTuple):
    """Each is None where the line does not tell, or is no record."""

    host: str | None
    """Lines of one host stay in order."""
    type: str | None
    id: str | None


def about(line: bytes) -> About:
    """Of a record, nested or flat."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        record = None
    if not isinstance(record, dict):
        return About(None, None, None)
    host = record.get("host")
    name = host.get("name") if isinstance(host, dict) else record.get("host.name")
    return About(*(value if isinstance(value, str) else None for value in (name, record.get("type"), record.get("id"))))
