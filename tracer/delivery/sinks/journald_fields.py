# SPDX-License-Identifier: Apache-2.0
"""Convert a line of JSON to the fields of a journal entry (systemd.journal-fields(7))."""

import re
import struct
from collections.abc import Iterator, Mapping
from typing import Any, cast

import orjson

from tracer.delivery.sinks import message
from tracer.encoding.styles import flat
from tracer.records.model import Record
from tracer.records.summary import summarize

MESSAGE_IDS: Mapping[str, str] = {
    "oom_kill": "e6147e4bd52648babb690f42a2233494",
    "oom_exit": "923ebf01ddc84df99f63d43715d65afc",
    "sigkill": "313f3b64d9634e958ea3488883c36ee5",
    "gap": "cf9dea18129b424e811587b533cfba68",
    "lost": "665e2d31ed9f4b41befc03d4371522cb",
    "start": "5b50e1959427495a906c67dd9279e7a5",
    "stop": "3323bfd15cde4506840ad89d66631d45",
}
"""Permanent message id of each type of record; the catalog in deploy/collectors/journald explains them."""
IDENTIFIER = "oomtrace"

_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
"""Field names that journald accepts from clients."""
_DOCKER_ID_CHARACTERS = 12
_UNIT = re.compile(r".+\.(?:service|scope|socket|swap|mount)")


def journal_entry(line: bytes) -> bytes:
    """An entry in journald's native protocol.

    Every field of the record becomes one: ``victim.rss_bytes`` is OOMTRACE_VICTIM_RSS_BYTES.  Lists and labels are
    JSON; null is left out.  Raises RejectedError if the line is not a record.
    """
    record = message.parse_record(line)
    return b"".join(_encode(name, value) for name, value in _fields(record, line) if _NAME.fullmatch(name))


def _fields(record: message.Fields, line: bytes) -> Iterator[tuple[str, str]]:
    yield "MESSAGE", summarize(record)
    yield "PRIORITY", str(message.syslog_severity(record["type"]))
    yield "SYSLOG_IDENTIFIER", IDENTIFIER
    if record["type"] in MESSAGE_IDS:
        yield "MESSAGE_ID", MESSAGE_IDS[record["type"]]
    yield from _object_fields(_subobject(record, "victim"))
    owner = _subobject(record, "owner")
    yield from _container_fields(_subobject(owner or record, "container"))
    for name, value in flat(cast(Record, record)).items():
        if value is not None:
            yield "OOMTRACE_" + name.upper().replace(".", "_"), _text(value)
    yield "OOMTRACE_RECORD", line.rstrip(b"\n").decode("utf-8", "replace")


def _object_fields(victim: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Fields of the process that the entry is about, so ``journalctl -u UNIT`` shows the entry.

    OBJECT_PID is left out: journald would add fields of the process that has the pid now, which may be another one.
    """
    if isinstance(victim.get("cgroup"), str):
        yield from _unit_fields(victim["cgroup"])
    cmdline = victim.get("cmdline")
    values = {**victim, "cmdline": " ".join(map(str, cmdline)) if isinstance(cmdline, list) else None}
    for name in ("uid", "comm", "exe", "cmdline"):
        if values.get(name) is not None:
            yield f"OBJECT_{name.upper()}", _text(values[name])


def _unit_fields(cgroup: str) -> Iterator[tuple[str, str]]:
    """The system unit that contains a cgroup, and the unit of a user's service manager, as systemd derives them."""
    names = [part.removeprefix("_") for part in cgroup.split("/") if part and not part.endswith(".slice")]
    if not names or not _UNIT.fullmatch(names[0]):
        return
    yield "OBJECT_SYSTEMD_UNIT", names[0]
    if names[0].startswith("user@") and len(names) > 1 and _UNIT.fullmatch(names[1]):
        yield "OBJECT_SYSTEMD_USER_UNIT", names[1]


def _container_fields(container: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The field names of Docker's and Podman's own entries, so one match finds both."""
    names = {"CONTAINER_ID_FULL": "id", "CONTAINER_NAME": "name", "IMAGE_NAME": "image"}
    if isinstance(container.get("id"), str):
        yield "CONTAINER_ID", container["id"][:_DOCKER_ID_CHARACTERS]
    for name, field in names.items():
        if isinstance(container.get(field), str):
            yield name, container[field]


def _subobject(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = record.get(name)
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _encode(name: str, value: str) -> bytes:
    data = value.encode()
    if b"\n" in data:
        return b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(data)), data)
    return b"%s=%s\n" % (name.encode(), data)
