# SPDX-License-Identifier: Apache-2.0
"""A line of JSON -> the fields of a journal entry (systemd.journal-fields(7))."""

import re
import struct
from collections.abc import Iterator, Mapping
from typing import Any, cast

import orjson

from tracer.delivery.sinks import message
from tracer.encoding.styles import flat
from tracer.records.model import Record

MESSAGE_IDS: Mapping[str, str] = {
    "oom_kill": "e6147e4bd52648babb690f42a2233494",
    "oom_exit": "923ebf01ddc84df99f63d43715d65afc",
    "sigkill": "313f3b64d9634e958ea3488883c36ee5",
    "gap": "cf9dea18129b424e811587b533cfba68",
    "lost": "665e2d31ed9f4b41befc03d4371522cb",
    "start": "5b50e1959427495a906c67dd9279e7a5",
    "stop": "3323bfd15cde4506840ad89d66631d45",
}
"""What each type of record is known by for ever; the catalog in deploy/collectors/journald explains them."""
IDENTIFIER = "oomtrace"

_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
"""What journald takes from others."""
_DOCKER_ID_CHARACTERS = 12
_UNIT = re.compile(r".+\.(?:service|scope|socket|swap|mount)")


def journal_entry(line: bytes) -> bytes:
    """An entry in journald's native protocol.

    Every field of the record is there by its name: ``victim.rss_bytes`` as OOMTRACE_VICTIM_RSS_BYTES, lists and labels
    as JSON, null left out.  Raises RejectedError where the line is no record.
    """
    record = message.parse_record(line)
    return b"".join(_encode(name, value) for name, value in _fields(record, line) if _NAME.fullmatch(name))


def _fields(record: message.Fields, line: bytes) -> Iterator[tuple[str, str]]:
    yield "MESSAGE", message.sentence(record)
    yield "PRIORITY", str(message.syslog_severity(record["type"]))
    yield "SYSLOG_IDENTIFIER", IDENTIFIER
    if record["type"] in MESSAGE_IDS:
        yield "MESSAGE_ID", MESSAGE_IDS[record["type"]]
    yield from _object(_object_of(record, "victim"))
    owner = _object_of(record, "owner")
    yield from _container(_object_of(owner or record, "container"))
    for name, value in flat(cast(Record, record)).items():
        if value is not None:
            yield "OOMTRACE_" + name.upper().replace(".", "_"), _text(value)
    yield "OOMTRACE_RECORD", line.rstrip(b"\n").decode("utf-8", "replace")


def _object(victim: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Whom it is about, so that ``journalctl -u UNIT`` shows it.

    Not OBJECT_PID: journald would look up who has that pid now, who may be somebody else.
    """
    if isinstance(victim.get("cgroup"), str):
        yield from _units(victim["cgroup"])
    cmdline = victim.get("cmdline")
    own = {**victim, "cmdline": " ".join(map(str, cmdline)) if isinstance(cmdline, list) else None}
    for name in ("uid", "comm", "exe", "cmdline"):
        if own.get(name) is not None:
            yield f"OBJECT_{name.upper()}", _text(own[name])


def _units(cgroup: str) -> Iterator[tuple[str, str]]:
    """The host's unit that a cgroup is in or below, as systemd has it; and the unit of a user's systemd."""
    names = [part.removeprefix("_") for part in cgroup.split("/") if part and not part.endswith(".slice")]
    if not names or not _UNIT.fullmatch(names[0]):
        return
    yield "OBJECT_SYSTEMD_UNIT", names[0]
    if names[0].startswith("user@") and len(names) > 1 and _UNIT.fullmatch(names[1]):
        yield "OBJECT_SYSTEMD_USER_UNIT", names[1]


def _container(container: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """By the names that Docker's and podman's own entries have, so that a match finds both."""
    names = {"CONTAINER_ID_FULL": "id", "CONTAINER_NAME": "name", "IMAGE_NAME": "image"}
    if isinstance(container.get("id"), str):
        yield "CONTAINER_ID", container["id"][:_DOCKER_ID_CHARACTERS]
    for name, field in names.items():
        if isinstance(container.get(field), str):
            yield name, container[field]


def _object_of(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = record.get(name)
    return found if isinstance(found, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _encode(name: str, value: str) -> bytes:
    data = value.encode()
    if b"\n" in data:
        return b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(data)), data)
    return b"%s=%s\n" % (name.encode(), data)
