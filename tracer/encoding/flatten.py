# SPDX-License-Identifier: Apache-2.0
"""A record -> its fields, each by its path."""

from collections.abc import Iterator, Mapping
from typing import Any


def leaves(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Names joined by dots: ``victim.rss_bytes``.  Lists stay lists, labels one object."""
    for name, value in fields.items():
        if isinstance(value, dict) and name != "labels":
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
