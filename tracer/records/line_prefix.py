# SPDX-License-Identifier: Apache-2.0
"""How a line of a record begins in each style, and none of anybody else."""

NESTED = b'{"schema":'
ECS = b'{"event":{"module":"oomtrace",'
OTEL = b'{"EventName":"oomtrace.'
LINE_PREFIXES = (NESTED, ECS, OTEL)
EVENT_PREFIX = "oomtrace."
"""Of the names of OpenTelemetry's events; the record's type follows."""
