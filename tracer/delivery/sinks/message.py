# SPDX-License-Identifier: Apache-2.0
"""Read a line as a record, for logs that have a severity and a text for people beside it.

A line from a spool may be of another version, with other fields: callers must not rely on any field but ``type``.
"""

from typing import Any

import orjson

from tracer.delivery.sinks import RejectedError

Fields = dict[str, Any]

_SEVERITIES = {"oom_kill": 3, "gap": 4, "lost": 4, "sigkill": 5, "oom_exit": 6, "start": 6, "stop": 6}
"""Numbers of syslog: error, warning, notice, informational."""
_NOTICE = 5


def parse_record(line: bytes) -> Fields:
    """Raises RejectedError if the line is not a record."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise RejectedError(f"not JSON: {error}") from error
    if not isinstance(record, dict) or not isinstance(record.get("type"), str):
        raise RejectedError("not a record")
    return record


def syslog_severity(kind: str) -> int:
    """The severity of a type of record."""
    return _SEVERITIES.get(kind, _NOTICE)
