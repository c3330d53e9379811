# SPDX-License-Identifier: Apache-2.0
"""Lines of records -> what identifies them, so that none is written twice."""

from collections.abc import Iterable

import orjson

Id = tuple[str, str]
"""Type and id of a record: ``("oom_kill", "edc589e9-1c5c1eee28-548")``."""


def ids(lines: Iterable[bytes]) -> set[Id]:
    """Of those that have one; whatever is no record is passed over."""
    found = set()
    for line in lines:
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if isinstance(record, dict) and isinstance(record.get("type"), str) and isinstance(record.get("id"), str):
            found.add((record["type"], record["id"]))
    return found
