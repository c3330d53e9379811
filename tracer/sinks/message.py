# SPDX-License-Identifier: Apache-2.0
"""A line of JSON -> what logs for humans have beside it: a severity and a sentence.

A line from a spool may be of another version, whose fields are others: nothing of it is relied on.
"""

from collections.abc import Callable, Mapping
from typing import Any, cast

import orjson

from tracer.event import OomKill
from tracer.sentence import describe, printable
from tracer.sinks import RejectedError

Fields = dict[str, Any]

_SEVERITIES = {"oom_kill": 3, "gap": 4, "lost": 4, "sigkill": 5, "oom_exit": 6, "start": 6, "stop": 6}
"""As syslog numbers them: error, warning, notice, informational."""
_NOTICE = 5


def read(line: bytes) -> Fields:
    """The record.  Raises RejectedError where the line is none."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise RejectedError(f"it is no JSON: {error}") from error
    if not isinstance(record, dict) or not isinstance(record.get("type"), str):
        raise RejectedError("it is no record")
    return record


def severity(record: Fields) -> int:
    return _SEVERITIES.get(record["type"], _NOTICE)


def sentence(record: Fields) -> str:
    """For humans, printable, on one line."""
    kind = record["type"]
    try:
        return printable(_SENTENCES[kind](record))
    except (KeyError, TypeError, ValueError, AttributeError):
        return printable(f"oomtrace: a record of type {kind}.")


def _oom_exit(record: Mapping[str, Any]) -> str:
    after_ms = record["after_ns"] / 1e6
    fate = {True: "; its container ended with it", False: "; its container runs on"}.get(
        record["container_init_died"], ""
    )
    return f"The killed process {record['pid']} was gone after {after_ms:.0f} ms{fate}."


def _sigkill(record: Mapping[str, Any]) -> str:
    victim, sender = record["victim"], record["sender"]
    by = f"{sender['comm']} (pid {sender['pid']}, uid {sender['uid']})" if sender else "the kernel"
    where = record["container"]
    place = f", container {where['name'] or where['id'][:12]}" if where else ""
    return f"{victim['comm']} (pid {victim['pid']}{place}) was killed by SIGKILL from {by}."


def _gap(record: Mapping[str, Any]) -> str:
    since = f"since {record['since']}" if record["since"] else "since boot"
    return f"{record['missing']} OOM kills {since} have no record; the kernel counts {record['oom_kills']}."


def _lost(record: Mapping[str, Any]) -> str:
    return f"{record['count']} events were lost since {record['since']} ({record['stage']})."


def _start(record: Mapping[str, Any]) -> str:
    return f"oomtrace {record['version']} is attached ({record['source']}): OOM kills from here on are recorded."


def _stop(record: Mapping[str, Any]) -> str:
    return f"oomtrace stopped; this run recorded {record['records']} OOM kills."


_SENTENCES: Mapping[str, Callable[[Fields], str]] = {
    "oom_kill": lambda record: describe(cast(OomKill, record)),
    "oom_exit": _oom_exit,
    "sigkill": _sigkill,
    "gap": _gap,
    "lost": _lost,
    "start": _start,
    "stop": _stop,
}
