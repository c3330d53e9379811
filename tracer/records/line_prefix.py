# SPDX-License-Identifier: Apache-2.0
"""The bytes with which a record's line begins in each style, and no line of another program does."""

NESTED = b'{"schema":'
ECS = b'{"event":{"module":"oomtrace",'
OTEL = b'{"EventName":"oomtrace.'
LINE_PREFIXES = (NESTED, ECS, OTEL)
EVENT_PREFIX = "oomtrace."
"""Prefix of OpenTelemetry event names, before the record's type."""
