# SPDX-License-Identifier: Apache-2.0
"""Convert a line of JSON to a syslog message (RFC 5424)."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, cast

import orjson

from tracer.base.clock import format_rfc3339
from tracer.base.errors import EXIT_USAGE, TracerError
from tracer.base.printable import printable
from tracer.delivery.sinks import RejectedError, message
from tracer.delivery.sinks.destination import Destination, Option
from tracer.delivery.sinks.line_metadata import LineMetadata, line_metadata
from tracer.encoding.encoder import encode
from tracer.encoding.styles import flat
from tracer.records.model import Record
from tracer.records.summary import summarize

FACILITIES = (
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
    "ntp", "audit", "alert", "clock",
    "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
)  # fmt: skip
OPTIONS: Mapping[str, Option] = {
    "facility": Option("Facility of the messages.", "daemon", FACILITIES),
    "message": Option(
        "The text: the record as JSON, or a sentence with all fields as structured data.",
        "json",
        ("json", "sentence"),
    ),
    "sd-id": Option("Name of the structured data: NAME@ENTERPRISE-NUMBER.", "oomtrace@32473"),
    "max-bytes": Option("Maximum message size; longer messages are trimmed, and stay JSON.", 8192, "bytes"),
}
NAMED = (
    "id", "incident.id", "incident.scope", "limit.cgroup", "victim.pid", "victim.comm", "victim.rss_bytes",
    "container.id", "container.name", "kubernetes.namespace", "kubernetes.pod_name", "kubernetes.container_name",
    "systemd.unit", "owner.container.id", "owner.container.name", "owner.systemd.unit",
)  # fmt: skip
"""Fields of the structured data if the text is JSON."""

Field = tuple[str, Any]

_NIL = "-"
_SD_NAME = re.compile(r"[!#-<>-\\^-~]{1,32}")
_SD_ID = re.compile(r"[!#-<>-\\^-~]{1,27}@[0-9.]{1,20}")
_ESCAPED = str.maketrans({'"': r"\"", "\\": r"\\", "]": r"\]"})
_NAME_CHARACTERS = 32
"""Longest name of a parameter, and longest message type."""
_HOST_CHARACTERS = 255


class MessageFormatter:
    """Formats lines as the options of an output require."""

    def __init__(self, destination: Destination) -> None:
        """Raises TracerError (exit code 2) if an option is invalid."""
        options = destination.options
        self._facility = FACILITIES.index(str(options["facility"]))
        self._is_json = options["message"] == "json"
        self._sd_id = str(options["sd-id"])
        if not _SD_ID.fullmatch(self._sd_id):
            hint = "write NAME@ENTERPRISE-NUMBER: oomtrace@32473"
            raise TracerError(f"output {destination.scheme}: invalid sd-id={self._sd_id}", hint, EXIT_USAGE)
        self._max_bytes = int(options["max-bytes"] or 0)
        if not self._is_json and options["style"] != "nested":
            hint = "remove style, which is for message=json"
            raise TracerError(f"output {destination.scheme}: message=sentence has no style", hint, EXIT_USAGE)

    def format(self, line: bytes) -> bytes:
        """Raises RejectedError if the line is not a record, or too long even when trimmed."""
        metadata = line_metadata(line)
        if metadata.type is None:
            raise RejectedError("not a record" if metadata.is_json else "not JSON")
        formatted = b""
        for data, text in self._variants(metadata, line.rstrip(b"\n")):
            formatted = self._frame(metadata, data, text)
            if len(formatted) <= self._max_bytes:
                return formatted
        raise RejectedError(f"the message has {len(formatted)} bytes; max-bytes is {self._max_bytes}")

    def _variants(self, metadata: LineMetadata, line: bytes) -> "Iterator[tuple[list[Field], bytes]]":
        """Structured data and text: the most informative variant first, each shorter than the one before."""
        record: message.Fields = orjson.loads(line)
        named = _named_fields(record)
        if not self._is_json:
            text = summarize(record).encode()
            yield list(flat(cast(Record, record)).items()), text
            yield named, text
            return
        yield named, line
        yield [], line
        with suppress(KeyError, TypeError, AttributeError):  # a record of another style or version
            room = self._max_bytes - len(self._frame(metadata, [], b""))
            yield [], encode(cast(Record, record), room + 1).rstrip(b"\n")

    def _frame(self, metadata: LineMetadata, data: "list[Field]", text: bytes) -> bytes:
        kind = str(metadata.type)
        priority = 8 * self._facility + message.syslog_severity(kind)
        parameters = "".join(f" {name}={value}" for name, value in _parameters(data))
        structured = f"[{self._sd_id}{parameters}]" if parameters else _NIL
        host = _word(metadata.host or "", _HOST_CHARACTERS)
        head = (
            f"<{priority}>1 {_time(metadata.time_ns)} {host} oomtrace {os.getpid()}"
            f" {_word(kind, _NAME_CHARACTERS)} {structured} "
        )
        return head.encode("utf-8", "replace") + text


def _named_fields(record: message.Fields) -> "list[Field]":
    fields = flat(cast(Record, record))
    return [(name, fields[name]) for name in NAMED if fields.get(name) is not None]


def _parameters(data: "list[Field]") -> Iterator[tuple[str, str]]:
    for name, value in data:
        if value is None or not _SD_NAME.fullmatch(name):
            continue
        text = value if isinstance(value, str) else orjson.dumps(value).decode()
        yield name, f'"{printable(text).translate(_ESCAPED)}"'


def _time(unix_ns: int | None) -> str:
    """RFC 5424 allows microseconds at most."""
    return _NIL if unix_ns is None else f"{format_rfc3339(unix_ns)[:26]}Z"


def _word(text: str, characters: int) -> str:
    """The text as printable ASCII without spaces."""
    return re.sub(r"[^!-~]", "_", text)[:characters] or _NIL
