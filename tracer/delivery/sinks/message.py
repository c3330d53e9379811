# SPDX-License-Identifier: Apache-2.0
"""A line of JSON -> what logs for humans have beside it: a severity and a sentence.

A line from a spool may be of another version, whose fields are others: nothing of it is relied on.
"""

from typing import Any

import orjson

from tracer.delivery.sinks import RejectedError
from tracer.records.summary import summarize

Fields = dict[str, Any]

_SEVERITIES = {"oom_kill": 3, "gap": 4, "lost": 4, "sigkill": 5, "oom_exit": 6, "start": 6, "stop": 6}
"""As syslog numbers them: error, warning, notice, informational."""
_NOTICE = 5


def parse_record(line: bytes) -> Fields:
    """The record.  Raises RejectedError where the line is none."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise RejectedError(f"it is no JSON: {error}") from error
    if not isinstance(record, dict) or not isinstance(record.get("type"), str):
        raise RejectedError("it is no record")
    return record


def syslog_severity(kind: str) -> int:
    """Of a type of record."""
    return _SEVERITIES.get(kind, _NOTICE)


def sentence(record: Fields) -> str:
    """For humans, printable, on one line."""
    return summarize(record)
