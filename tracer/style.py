# SPDX-License-Identifier: Apache-2.0
"""A record -> the object that is written, with the fields named and ordered as its reader wants them."""

from collections.abc import Callable, Mapping
from typing import Any

from tracer import style_ecs, style_otel
from tracer.event import Record
from tracer.leaves import leaves

Style = Callable[[Record], Mapping[str, Any]]


def nested(record: Record) -> Mapping[str, Any]:
    """As tracer/event.py has it."""
    return record


def flat(record: Record) -> Mapping[str, Any]:
    """One level, names joined by dots: ``victim.rss_bytes``.  Lists stay lists, labels one object."""
    return dict(leaves(record))


STYLES: Mapping[str, Style] = {"nested": nested, "flat": flat, "ecs": style_ecs.ecs, "otel": style_otel.otel}
HEADS = (b'{"schema":', style_ecs.HEAD, style_otel.HEAD)
"""How a line of a record begins, and none of anybody else."""
