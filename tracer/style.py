# SPDX-License-Identifier: Apache-2.0
"""A record -> the object that is written, with the fields named and ordered as its reader wants them."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tracer.event import Record

Style = Callable[[Record], Mapping[str, Any]]


def nested(record: Record) -> Mapping[str, Any]:
    """As tracer/event.py has it."""
    return record


def flat(record: Record) -> Mapping[str, Any]:
    """One level, names joined by dots: ``victim.rss_bytes``.  Lists stay lists, labels one object."""
    return dict(_leaves(record, ""))


def _leaves(fields: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        if isinstance(value, dict) and name != "labels":
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


STYLES: Mapping[str, Style] = {"nested": nested, "flat": flat}
