# SPDX-License-Identifier: Apache-2.0
"""Styles: the field names and structure of the object that is written."""

from collections.abc import Callable, Mapping
from typing import Any

from tracer.encoding.flatten import leaves
from tracer.records.model import Record

Style = Callable[[Record], Mapping[str, Any]]


def nested(record: Record) -> Mapping[str, Any]:
    """As in tracer/records/model.py."""
    return record


def flat(record: Record) -> Mapping[str, Any]:
    """One level, names joined by dots: ``victim.rss_bytes``.  Lists stay lists, labels stay one object."""
    return dict(leaves(record))


def ecs(record: Record) -> Mapping[str, Any]:
    """Elastic Common Schema."""
    from tracer.encoding.ecs import ecs as make  # its tables take memory: only if used

    return make(record)


def otel(record: Record) -> Mapping[str, Any]:
    """OpenTelemetry's log data model."""
    from tracer.encoding.otel import otel as make

    return make(record)


STYLES: Mapping[str, Style] = {"nested": nested, "flat": flat, "ecs": ecs, "otel": otel}
