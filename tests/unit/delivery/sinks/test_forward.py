# SPDX-License-Identifier: Apache-2.0
"""sinks/forward.py: messages on the wire, and invalid answers."""

import hashlib
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest

from tests.harness.lines import record
from tracer.base.errors import EXIT_USAGE, TracerError
from tracer.delivery.sinks import RejectedError
from tracer.delivery.sinks.open import open_uri

Answer = Callable[[socket.socket, "msgpack.Unpacker"], None]


@contextmanager
def server(answer: Answer) -> Iterator[int]:
    """A server that handles each connection like this; returns its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connected, _ = listening.accept()
                except OSError:
                    return
                with connected:
                    answer(connected, msgpack.Unpacker(connected.makefile("rb", buffering=0), strict_map_key=False))

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_message() -> None:
    """Tag, entries with the records' times, and the chunk; the acknowledgement may arrive in pieces."""
    got: list[Any] = []

    def answer(connected: socket.socket, messages: msgpack.Unpacker) -> None:
        for message in messages:
            got.append(message)
            data = msgpack.packb({"ack": message[2]["chunk"]})
            for number in range(len(data)):
                connected.sendall(data[number : number + 1])

    line = b'{"time":"2026-11-24T03:51:53.674414001Z","limit":9223372036854771712,"comm":"\xc3\xa4\\u0000"}\n'
    with server(answer) as port:
        sink = open_uri(f"forward://127.0.0.1:{port}/kernel.oom")
        assert sink.write([line, b'{"type":"lost"}\n']) == 2
        assert sink.write([line]) == 1
        sink.close()
    tag, entries, options = got[0]
    assert (tag, options["size"], len(got)) == ("kernel.oom", 2, 2)
    assert options["chunk"] != got[1][2]["chunk"]
    (when, first), (_, second) = _unpacked(entries)
    assert when == msgpack.ExtType(0, (1795492313).to_bytes(4, "big") + (674414001).to_bytes(4, "big"))
    assert first["limit"] == 9223372036854771712
    assert first["comm"] == "ä\0"
    assert second == {"type": "lost"}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "closed"),
        (msgpack.packb({"ack": "another"}), "not an acknowledgement"),
        (msgpack.packb({b"\xff": [{}]}), "not an acknowledgement"),
        (msgpack.packb(7), "not an acknowledgement"),
        (b"\xc1", "not msgpack"),
        (b"\xdb\xff\xff\xff\xff", "not msgpack|closed"),
        (b"\x91" * 4000, "not msgpack|closed"),
    ],
)
def test_no_acknowledgement(answer: bytes, said: str) -> None:
    """An error, and a new connection for the next attempt."""

    def reply(connected: socket.socket, messages: msgpack.Unpacker) -> None:
        messages.unpack()
        connected.sendall(answer)

    with server(reply) as port:
        sink = open_uri(f"forward://127.0.0.1:{port}/oom?timeout=2")
        for _ in range(2):
            with pytest.raises(OSError, match=said):
                sink.write([record(1)])
        sink.close()


@pytest.mark.parametrize(
    "line", [b"", b"\xff\n", b"[]\n", b"7\n", b'{"a":' * 1100 + b"1" + b"}" * 1100], ids=lambda line: repr(line[:9])
)
def test_hostile_lines(line: bytes) -> None:
    """Only a line that cannot be packed is rejected; those before it are sent."""

    def answer(connected: socket.socket, messages: msgpack.Unpacker) -> None:
        for message in messages:
            connected.sendall(msgpack.packb({"ack": message[2]["chunk"]}))

    with server(answer) as port:
        sink = open_uri(f"forward://127.0.0.1:{port}/oom")
        assert sink.write([record(1), line, record(2)]) == 1
        with pytest.raises(RejectedError):
            sink.write([line, record(2)])
        sink.close()


@pytest.mark.parametrize(
    ("pong", "said"),
    [
        (lambda digest: ["PONG", True, "", "fluent", digest], None),
        (lambda digest: ["PONG", True, "", "other", digest], "does not know the shared key"),
        (lambda _: ["PONG", True, "", "fluent", ""], "does not know the shared key"),
        (lambda _: ["PONG", True, "", "fluent", None], "does not know the shared key"),
        (lambda _: ["PONG", False, "no\nsuch\x1b[2Juser", "", ""], r"'no\\nsuch\\x1b\[2Juser'"),
        (lambda _: ["HELO", {}], "did not complete the handshake"),
    ],
)
def test_handshake(pong: Callable[[str], Any], said: str | None, tmp_path: Path) -> None:
    """Both sides must know the key; a nonce is any bytes."""
    (tmp_path / "key").write_text("the key\n")
    (tmp_path / "key").chmod(0o600)
    nonce = b"\xff\x00nonce"

    def answer(connected: socket.socket, messages: msgpack.Unpacker) -> None:
        connected.sendall(msgpack.packb(["HELO", {"nonce": nonce, "auth": "", "keepalive": False}]))
        kind, name, salt, digest, user, password = messages.unpack()
        assert (kind, user, password) == ("PING", "", "")
        assert digest == hashlib.sha512(salt.encode() + name.encode() + nonce + b"the key").hexdigest()
        mine = hashlib.sha512(salt.encode() + b"fluent" + nonce + b"the key").hexdigest()
        connected.sendall(msgpack.packb(pong(mine)))
        for message in messages:
            connected.sendall(msgpack.packb({"ack": message[2]["chunk"]}))

    with server(answer) as port:
        sink = open_uri(f"forward://127.0.0.1:{port}/oom?timeout=2&shared-key-file={tmp_path}/key")
        for _ in range(2):
            if said is None:
                assert sink.write([record(1)]) == 1
            else:
                with pytest.raises(OSError, match=said):
                    sink.write([record(1)])
        sink.close()


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("forward://127.0.0.1", "missing tag"),
        ("forward:///oom", "missing or invalid host"),
        ("forward+unix:relative", "not an absolute path"),
        ("forward://127.0.0.1/oom?user=a", "user without a key"),
    ],
)
def test_wrong_place(uri: str, said: str) -> None:
    """Usage errors, with the correct form."""
    with pytest.raises(TracerError, match=said) as raised:
        open_uri(uri)
    assert raised.value.exit_code == EXIT_USAGE


def test_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra to install."""
    monkeypatch.setitem(sys.modules, "msgpack", None)
    with pytest.raises(TracerError, match="pipx inject oomtrace msgpack"):
        open_uri("forward://127.0.0.1/oom")


def _unpacked(entries: bytes) -> list[Any]:
    unpacker = msgpack.Unpacker(strict_map_key=False)
    unpacker.feed(entries)
    return list(unpacker)
