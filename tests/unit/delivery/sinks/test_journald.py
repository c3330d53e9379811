# SPDX-License-Identifier: Apache-2.0
"""sinks/journald.py: entries in the native protocol, for any record."""

import json
import os
import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.harness import ROOT
from tests.harness.records import shown
from tracer.base.errors import TracerError
from tracer.delivery.sinks import RejectedError
from tracer.delivery.sinks.journald_fields import MESSAGE_IDS, journal_entry
from tracer.delivery.sinks.open import open_uri
from tracer.encoding.encoder import encode
from tracer.records.model import Record

CATALOG = (ROOT / "deploy" / "collectors" / "journald" / "oomtrace.catalog").read_text()


def fields(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Parse an entry as journald does."""
    while data:
        line, newline, rest = data.partition(b"\n")
        assert newline
        name, equals, value = line.partition(b"=")
        if not equals:
            (size,) = struct.unpack("<Q", rest[:8])
            value, rest = rest[8 : 8 + size], rest[8 + size :]
            assert rest.startswith(b"\n")
            rest = rest[1:]
        assert re.fullmatch(r"[A-Z][A-Z0-9_]{0,63}", name.decode())
        yield name.decode(), value
        data = rest


def read(record: Any) -> dict[str, bytes]:
    return dict(fields(journal_entry(json.dumps(record).encode() + b"\n")))


def test_entry() -> None:
    """Every field of the record, the whole line, and the fields that readers of the journal use."""
    line = encode(shown())
    record = json.loads(line)
    found = dict(fields(journal_entry(line)))
    assert found["OOMTRACE_RECORD"] == line.rstrip(b"\n")
    assert found["OOMTRACE_VICTIM_RSS_BYTES"] == str(record["victim"]["rss_bytes"]).encode()
    assert found["OOMTRACE_DELAYED"] == b"false"
    assert found["PRIORITY"] == b"3"
    assert found["SYSLOG_IDENTIFIER"] == b"oomtrace"
    assert "OOMTRACE_KUBERNETES" not in found


text = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.recursive(text | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(text, inner)))
def test_any_record(value: Any) -> None:
    """Newlines in names and values create no fields."""
    record = {
        "type": "oom_kill",
        "victim": {"comm": value, "cmdline": value, "cgroup": value},
        "container": value,
        "x\n": 1,
    }
    found = read(record)
    assert json.loads(found["OOMTRACE_RECORD"]) == record
    assert b"\n" not in found["MESSAGE"]
    if isinstance(value, str):
        assert found["OOMTRACE_VICTIM_COMM"].decode() == value


@pytest.mark.parametrize(
    ("cgroup", "unit", "user_unit"),
    [
        ("/system.slice/nginx.service", b"nginx.service", None),
        ("/system.slice/system-getty.slice/getty@tty1.service/x", b"getty@tty1.service", None),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/gnome.service",
            b"user@1000.service",
            b"gnome.service",
        ),
        ("/user.slice/user-0.slice/session-1.scope", b"session-1.scope", None),
        ("/machine.slice/systemd-nspawn@a.service/payload/system.slice/b.service", b"systemd-nspawn@a.service", None),
        ("/lxc.payload.web/system.slice/nginx.service", None, None),
        ("/system.slice/docker-0123.scope", b"docker-0123.scope", None),
        ("/system.slice/_tasks.service", b"tasks.service", None),
        ("/kubepods/pod1/c1", None, None),
        ("/system.slice", None, None),
        ("/", None, None),
        (None, None, None),
    ],
)
def test_unit(cgroup: str | None, unit: bytes | None, user_unit: bytes | None) -> None:
    """The host's unit, never a unit of a container's systemd."""
    found = read({"type": "oom_kill", "victim": {"cgroup": cgroup}})
    assert found.get("OBJECT_SYSTEMD_UNIT") == unit
    assert found.get("OBJECT_SYSTEMD_USER_UNIT") == user_unit


def test_container() -> None:
    """The fields of Docker's own entries."""
    found = read({"type": "oom_kill", "container": {"id": "a" * 64, "name": "shop", "image": "shop/cart:1"}})
    assert (found["CONTAINER_ID"], found["CONTAINER_ID_FULL"]) == (b"a" * 12, b"a" * 64)
    assert (found["CONTAINER_NAME"], found["IMAGE_NAME"]) == (b"shop", b"shop/cart:1")


@pytest.mark.parametrize("line", [b"", b"{", b"[1]", b'{"a":1}', b"\xff"])
def test_no_record(line: bytes) -> None:
    with pytest.raises(RejectedError):
        journal_entry(line)


def test_every_type_is_explained() -> None:
    """Each type has a message id, and a text in the catalog with fields of that type."""
    types = {get_args(get_type_hints(kind)["type"])[0] for kind in get_args(Record)}
    assert types <= set(MESSAGE_IDS)
    assert len(set(MESSAGE_IDS.values())) == len(MESSAGE_IDS)
    explained = re.findall(r"^-- ([0-9a-f]{32})$", CATALOG, re.MULTILINE)
    assert sorted(explained) == sorted(MESSAGE_IDS.values())


def test_large(tmp_path: Path) -> None:
    """An entry that is too large for a datagram is sent as a sealed file in memory."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald:
        journald.bind(str(tmp_path / "s"))
        sink = open_uri(f"journald:{tmp_path}/s?timeout=1")
        line = json.dumps({"type": "oom_kill", "x": "y" * (4 << 20)}).encode() + b"\n"
        with pytest.raises(TimeoutError):
            sink.write([line])  # there is no reader
        data, descriptors, _, _ = socket.recv_fds(journald, 1 << 20, 1)
        sink.close()
    assert data == b""
    (descriptor,) = descriptors
    with pytest.raises(PermissionError):
        os.write(descriptor, b"x")
    with open(descriptor, "rb") as file:
        file.seek(0)
        assert dict(fields(file.read()))["OOMTRACE_RECORD"] == line.rstrip(b"\n")


def test_places() -> None:
    with pytest.raises(TracerError) as told:
        open_uri("journald:relative")
    assert told.value.exit_code == 2
    open_uri("journald").close()
    with pytest.raises(TracerError, match="style"):
        open_uri("journald?style=flat")
