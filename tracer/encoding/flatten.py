# SPDX-License-Identifier: Apache-2.0
"""The fields of a record by their paths."""

from collections.abc import Iterator, Mapping
from typing import Any


def leaves(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Paths are names joined by dots: ``victim.rss_bytes``.  Lists stay lists, labels stay one object."""
    for name, value in fields.items():
        if isinstance(value, dict) and name != "labels":
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
