# SPDX-License-Identifier: Apache-2.0
"""sinks/syslog.py: messages of RFC 5424, for any record."""

import json
import re
import socket
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.harness.records import shown
from tracer.base.errors import TracerError
from tracer.delivery.sinks import RejectedError
from tracer.delivery.sinks.open import open_uri, parse_destination
from tracer.delivery.sinks.syslog_message import MessageFormatter
from tracer.encoding.encoder import encode
from tracer.encoding.styles import STYLES

MESSAGE = re.compile(
    rb"<(?P<priority>\d{1,3})>1 (?P<time>-|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d)) "
    rb"(?P<host>[!-~]{1,255}) (?P<app>[!-~]{1,48}) (?P<process>[!-~]{1,128}) (?P<kind>[!-~]{1,32}) "
    rb"(?P<data>-|(?:\[[!#-<>-\\^-~]{1,32}(?: [!#-<>-\\^-~]{1,32}=\"(?:[^\"\\\]]|\\[\"\\\]])*\")*\])+) (?P<text>.*)",
    re.DOTALL,
)
"""The grammar of RFC 5424, section 6."""


def made(line: bytes, options: str = "") -> dict[str, bytes]:
    message = MessageFormatter(parse_destination(f"syslog+udp://host{options}")).format(line)
    match = MESSAGE.fullmatch(message)
    assert match is not None, message
    return match.groupdict()


def parameters(data: bytes) -> dict[str, str]:
    """Names and values, unescaped."""
    pairs = re.findall(rb' ([^ =]+)="((?:[^"\\\]]|\\["\\\]])*)"', data)
    return {name.decode(): re.sub(r'\\(["\\\]])', r"\1", value.decode()) for name, value in pairs}


def test_message() -> None:
    """The record's time, host and type, followed by the line."""
    line = encode(shown())
    record = json.loads(line)
    found = made(line)
    assert found["text"] == line.rstrip(b"\n")
    assert found["priority"] == b"27"
    assert found["kind"] == b"oom_kill"
    assert found["app"] == b"oomtrace"
    assert found["host"].decode() == record["host"]["name"]
    assert parameters(found["data"])["victim.comm"] == record["victim"]["comm"]


@pytest.mark.parametrize(
    ("time", "told"),
    [
        ("2026-11-24T03:51:53.674414999Z", b"2026-11-24T03:51:53.674414Z"),
        ("2026-11-24T03:51:53Z", b"2026-11-24T03:51:53.000000Z"),
        (None, b"-"),
        ("yesterday\n", b"-"),
        (7, b"-"),
    ],
)
def test_time(time: object, told: bytes) -> None:
    """Microseconds at most."""
    assert made(json.dumps({"type": "stop", "time": time}).encode())["time"] == told


text = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.recursive(text | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(text, inner)))
def test_any_record(value: Any) -> None:
    """For any field values, there is one message with the same content."""
    record = {
        "type": "oom_kill",
        "victim": {"comm": value, "pid": 1},
        "host": {"name": value},
        "x": value,
        "time": value,
    }
    line = json.dumps(record).encode() + b"\n"
    assert json.loads(made(line, "?max-bytes=1M")["text"]) == record
    found = made(line, "?max-bytes=1M&message=sentence")
    assert b"\n" not in found["text"]
    assert parameters(found["data"])["victim.pid"] == "1"


@pytest.mark.parametrize("value", ['a"b', "a\\b", "a]b", '\\"]\\', "a\nb", "\x1b[2J", "é…", ""])
def test_escapes(value: str) -> None:
    """Special characters of structured data are escaped, and control characters spelled out."""
    line = json.dumps({"type": "oom_kill", "victim": {"comm": value}}).encode()
    told = parameters(made(line)["data"])["victim.comm"]
    assert told == value.encode("unicode_escape").decode() if not value.isprintable() else told == value


def test_type_and_host_of_others() -> None:
    """Invalid characters in header fields are replaced."""
    found = made(json.dumps({"type": "a b\n" + "x" * 40, "host": {"name": "h ö\n" * 200}}).encode())
    assert found["kind"] == b"a_b_" + b"x" * 28
    assert found["host"].startswith(b"h___h___")
    assert found["priority"] == b"29"


@pytest.mark.parametrize("line", [b"", b"{", b"[1]", b'{"a":1}', b'{"type":7}', b"\xff", b'"x"'])
def test_no_record(line: bytes) -> None:
    with pytest.raises(RejectedError):
        made(line + b"\n")


def test_too_long() -> None:
    """Structured data is omitted first, then long fields are trimmed (still valid JSON); then the line is rejected."""
    record = shown()
    record["victim"]["cmdline"] = ["word"] * 1000
    line = encode(record, 1 << 20)
    whole = json.loads(line)
    found = made(line, f"?max-bytes={len(line) + 100}")
    assert (found["data"], json.loads(found["text"])) == (b"-", whole)
    found = made(line, "?max-bytes=4K")
    assert json.loads(found["text"])["truncated"] == ["victim.cmdline"]
    assert len(MessageFormatter(parse_destination("syslog+udp://h?max-bytes=4K")).format(line)) <= 4096
    with pytest.raises(RejectedError, match="max-bytes"):
        made(line, "?max-bytes=500")
    with pytest.raises(RejectedError, match="max-bytes"):
        made(b'{"type":"x","y":"' + b"z" * 9000 + b'"}')


@pytest.mark.parametrize("style", ["nested", "flat", "ecs", "otel"])
def test_styles(style: Literal["nested", "flat", "ecs", "otel"]) -> None:
    """Severity, time, host and type are known for JSON of any style; a sentence has no style."""
    record = shown()
    line = encode(record, style=STYLES[style])
    found = made(line, f"?style={style}")
    assert (found["text"], found["priority"], found["kind"]) == (line.rstrip(b"\n"), b"27", b"oom_kill")
    assert found["time"].decode() == record["time"][:26] + "Z"
    assert found["host"].decode() == record["host"]["name"]
    if style != "nested":
        with pytest.raises(TracerError, match="message=sentence has no style"):
            made(line, f"?style={style}&message=sentence")


def test_sentence() -> None:
    """With message=sentence the structured data has all fields, or some if that is too long."""
    line = encode(shown())
    found = made(line, "?message=sentence&facility=local0&sd-id=oom@1")
    assert found["priority"] == b"131"
    assert found["text"].startswith(b"The kernel killed ")
    told = parameters(found["data"])
    assert found["data"].startswith(b"[oom@1 ")
    assert json.loads(told["victim.cmdline"]) == json.loads(line)["victim"]["cmdline"]
    assert len(told) > 40
    assert len(parameters(made(line, "?message=sentence&max-bytes=1K")["data"])) < 20


@pytest.mark.parametrize("options", ["?sd-id=x", "?sd-id=a b@1", "?sd-id=", "?facility=x", "?message=x", "?timeout=x"])
def test_wrong_options(options: str) -> None:
    with pytest.raises(TracerError) as told:
        open_uri(f"syslog+udp://host{options}")
    assert told.value.exit_code == 2


@pytest.mark.parametrize("uri", ["syslog+tcp:host", "syslog+udp://", "syslog+unix:relative", "syslog+tcp://host:0"])
def test_wrong_places(uri: str) -> None:
    with pytest.raises(TracerError) as told:
        open_uri(uri)
    assert told.value.exit_code == 2


@pytest.mark.parametrize("framing", ["octets", "newline"])
def test_framing(framing: str) -> None:
    """Messages of a batch are separated by byte counts, or by newlines."""
    lines = [encode(shown()), b'{"type":"stop"}\n']
    with socket.create_server(("127.0.0.1", 0)) as server:
        sink = open_uri(f"syslog+tcp://127.0.0.1:{server.getsockname()[1]}?framing={framing}")
        assert sink.write([*lines, b"no record\n", lines[0]]) == 2
        with pytest.raises(RejectedError):
            sink.write([b"no record\n"])
        sink.close()
        connected, _ = server.accept()
        with connected, connected.makefile("rb") as stream:
            data = stream.read()
    texts = []
    while data:
        if framing == "octets":
            count, _, data = data.partition(b" ")
            message, data = data[: int(count)], data[int(count) :]
        else:
            message, _, data = data.partition(b"\n")
        match = MESSAGE.fullmatch(message)
        assert match is not None
        texts.append(match["text"] + b"\n")
    assert texts == lines


def test_too_many_bytes_for_a_datagram(tmp_path: Path) -> None:
    """A message too large for a datagram is rejected, not retried forever."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reader:
        reader.bind(str(tmp_path / "s"))
        sink = open_uri(f"syslog+unix:{tmp_path}/s?max-bytes=2M")
        with pytest.raises(RejectedError, match="datagram"):
            sink.write([b'{"type":"x","y":"' + b"z" * (1 << 20) + b'"}\n'])
        sink.close()
