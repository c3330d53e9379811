# SPDX-License-Identifier: Apache-2.0
"""sinks/http.py: requests of each preset, displayed URIs, and the meaning of each answer."""

import base64
import json
import socket
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.harness.events import incident, victim
from tests.harness.http_peer import DIE, Peer, Reply, serving
from tests.harness.lines import numbers, record, settle, wait_for
from tests.harness.records import complete
from tracer.base.errors import TracerError
from tracer.delivery.output import Output
from tracer.delivery.sinks import RejectedError, Sink
from tracer.delivery.sinks.http_client import RetryableError
from tracer.delivery.sinks.open import open_uri
from tracer.delivery.spool import Spool
from tracer.encoding.encoder import encode
from tracer.encoding.styles import STYLES
from tracer.pipeline.incidents import JoinedKill

TIME = b'{"time":"2026-11-24T03:51:53.674414000Z",'
LINES = [record(number).replace(b"{", TIME, 1) for number in range(3)]
PRESETS = ["", "loki+", "elasticsearch+", "opensearch+", "splunk+", "vector+"]


OPENED: list[Sink] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Sinks that a test has opened."""
    yield
    while OPENED:
        OPENED.pop().close()


@pytest.fixture
def peer() -> Iterator[Peer]:
    with serving() as serves:
        yield serves


def opened(uri: str) -> Sink:
    OPENED.append(open_uri(uri))
    return OPENED[-1]


def sink_to(peer: Peer, preset: str = "", rest: str = "") -> Sink:
    return opened(f"{preset}http://127.0.0.1:{peer.port}{rest}")


def kill_line(style: str = "nested", namespace: str | None = None) -> tuple[Any, bytes]:
    """A record and its line."""
    whole = complete(JoinedKill(victim(), incident(), 1, (), (), ()))
    if namespace is not None:
        whole["kubernetes"] = {
            "pod_name": "p", "namespace": namespace, "pod_uid": "u", "container_name": "c", "qos_class": None
        }  # fmt: skip
    return whole, encode(whole, style=STYLES[style])


def test_lines_are_posted(peer: Peer) -> None:
    """Lines are sent unchanged, in batches."""
    sink = sink_to(peer, rest="/in?batch=2&query=a%3Db%26c%3Dd&headers=X-One=1,X-Two=b")
    assert sink.batch_lines == 2
    assert sink.write(LINES) == 2
    assert sink.write(LINES[2:]) == 1
    assert peer.bodies == [LINES[0] + LINES[1], LINES[2]]
    first = peer.asked[0]
    assert first.path == "/in?a=b&c=d"
    assert first.headers["content-type"] == "application/x-ndjson"
    assert (first.headers["x-one"], first.headers["x-two"]) == ("1", "b")
    assert "content-encoding" not in first.headers
    assert len({asked.client for asked in peer.asked}) == 1, "the connection is kept"


@pytest.mark.parametrize("preset", PRESETS[1:])
def test_presets_compress(preset: str, peer: Peer) -> None:
    """Presets whose servers accept gzip compress; the peer has decompressed."""
    reply = Reply(body=b'{"errors":false,"items":[],"code":0}')
    peer.replies = [reply, reply]
    assert sink_to(peer, preset).write(LINES[:1]) == 1
    assert sink_to(peer, preset, "?compress=none").write(LINES[:1]) == 1
    assert [asked.headers.get("content-encoding") for asked in peer.asked] == ["gzip", None]
    assert peer.bodies[0] == peer.bodies[1]


@pytest.mark.parametrize("status", [301, 307, 401, 403, 404, 408, 425, 429, 500, 502, 503, 507])
@pytest.mark.parametrize("preset", PRESETS)
def test_tried_again(preset: str, status: int, peer: Peer) -> None:
    """The reason contains status, beginning of the body and redirect, without secrets."""
    headers = {"Retry-After": "7", "Location": "https://elsewhere/geheim?token=geheim"}
    peer.replies = [Reply(status, b"no \x1b[31m" + b"way " * 5000, headers)]
    with pytest.raises(RetryableError) as caught:
        sink_to(peer, preset).write(LINES)
    reason = caught.value.strerror or ""
    assert f"the server answered {status}" in reason
    assert "no \\x1b[31mway" in reason
    assert len(reason) < 600
    assert "to https://elsewhere" in reason
    assert "geheim" not in reason
    assert caught.value.retry_after_s == 7


@pytest.mark.parametrize(
    ("told", "after_s"),
    [("", 0), ("-1", 0), ("1e9", 0), ("999999999", 999999999), ("Wed, 21 Oct 2026 07:28:00 GMT", 0)],
)
def test_retry_after(told: str, after_s: float, peer: Peer) -> None:
    """Retry-After in seconds is used; a date is not."""
    peer.replies = [Reply(429, b"", {"Retry-After": told})]
    with pytest.raises(RetryableError) as caught:
        sink_to(peer).write(LINES)
    assert caught.value.retry_after_s == after_s


@pytest.mark.parametrize("status", [400, 413, 422])
@pytest.mark.parametrize("preset", [preset for preset in PRESETS if preset != "splunk+"])
def test_rejected(preset: str, status: int, peer: Peer) -> None:
    """Statuses that reject a request permanently."""
    peer.replies = [Reply(status, b"no such field")]
    with pytest.raises(RejectedError, match=f"the server answered {status} no such field"):
        sink_to(peer, preset).write(LINES)


def test_one_of_a_batch_is_rejected(peer: Peer, tmp_path: Path) -> None:
    """A batch that is too large, or has a bad line, is sent in pieces; only the bad line is set aside."""
    sink = sink_to(peer, rest="?batch=3")
    peer.replies = [Reply(503), Reply(413), Reply(200), Reply(400), Reply(200)]
    output = Output(sink, None)
    for line in LINES:
        output.put(line)
    settle(output, 3)
    output.close(5)
    assert output.rejected == 1
    assert peer.bodies[2:] == LINES or peer.bodies[-3:] == LINES


def refusing(peer: Peer, *bad: int) -> None:
    """Answer 400 to each request with one of these lines, 200 to the others."""
    peer.status = lambda body: 400 if any(b'"k-%d"' % number in body for number in bad) else 200


def test_proxy_that_refuses_all(peer: Peer, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """If every line is refused, none is at fault: all are kept, and delivered once the server accepts them."""
    uri = f"http://127.0.0.1:{peer.port}/"
    refusing(peer, *range(30))
    output = Output(opened(uri), Spool(str(tmp_path), uri))
    for number in range(30):
        output.put(record(number))
    wait_for(lambda: output.failing and len(peer.asked) > 20)
    assert output.rejected == 0
    refusing(peer)
    output.reopen()
    wait_for(lambda: output.waiting == (0, 0))
    output.close(5)
    assert (output.rejected, output.dropped, output.damaged) == (0, 0, 0)
    assert delivered(peer) == list(range(30))
    assert "the server answered 400" in capfd.readouterr().err
    assert not list(tmp_path.glob("*/rejected.ndjson"))


@pytest.mark.parametrize("bad", [{0}, {29}, {4, 5, 6}, {0, 1, 2, 3, 4, 5, 6, 20}])
def test_lines_that_are_refused(bad: set[int], peer: Peer, tmp_path: Path) -> None:
    """A line is set aside once another one is accepted; the others are delivered once, in order."""
    uri = f"http://127.0.0.1:{peer.port}/?batch=10"
    refusing(peer, *bad)
    output = Output(opened(uri), Spool(str(tmp_path), uri))
    for number in range(30):
        output.put(record(number))
    wait_for(lambda: len(delivered(peer)) == 30 - len(bad))
    assert output.rejected == len(bad - {29})
    for number in range(30, 33):  # the last one is judged by the next
        output.put(record(number))
    output.reopen()
    wait_for(lambda: output.waiting == (0, 0))
    output.close(5)
    assert delivered(peer) == [number for number in range(33) if number not in bad]
    assert output.rejected == len(bad)
    (aside,) = tmp_path.glob("*/rejected.ndjson")
    assert numbers(aside.read_bytes()) == sorted(bad)


def delivered(peer: Peer) -> list[int]:
    return numbers(b"".join(asked.body for asked in peer.asked if asked.status == 200))


def test_it_waits_as_it_is_asked_to(peer: Peer) -> None:
    """Retry-After is longer than the first pause, and the sink does not sleep."""
    peer.replies = [Reply(429, b"", {"Retry-After": "1"})]
    output = Output(sink_to(peer), None)
    begin_s = time.monotonic()
    output.put(LINES[0])
    wait_for(lambda: len(peer.asked) == 1)
    assert time.monotonic() - begin_s < 0.9
    settle(output, 1)
    assert time.monotonic() - begin_s >= 1
    output.close(5)
    assert len(peer.asked) == 2


def test_connection_that_was_closed(peer: Peer) -> None:
    """Closing a persistent connection between two requests, or during one, is not a failure."""
    sink = sink_to(peer)
    peer.replies = [Reply(closes=True)]
    sink.write(LINES[:1])
    time.sleep(0.05)
    sink.write(LINES[1:2])
    peer.replies = [Reply(raw=DIE)]
    sink.write(LINES[2:])
    assert peer.bodies == [LINES[0], LINES[1], LINES[2], LINES[2]]


@pytest.mark.parametrize("raw", [DIE, b"\x1b[31mhello\r\n\r\n"])
def test_no_answer(raw: bytes, peer: Peer) -> None:
    """A new connection that ends without a valid answer has delivered nothing."""
    peer.replies = [Reply(raw=raw)]
    sink = sink_to(peer)
    with pytest.raises(OSError, match=r".") as caught:
        sink.write(LINES)
    assert caught.value.strerror is not None
    assert caught.value.strerror.isprintable()
    assert sink.write(LINES) == 3, "the next time all is well"


def test_answer_without_end(peer: Peer) -> None:
    """Of a very long answer only a part is read; of a truncated one the status counts."""
    for head, body in ((b"", b"x" * (9 << 20)), (b"Content-Length: 90\r\n", b"abc")):
        peer.replies = [Reply(raw=b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + body)]
        assert sink_to(peer).write(LINES) == 3
    assert sink_to(peer).write(LINES) == 3


def test_slow_answer() -> None:
    """The timeout is for the whole answer, also if single bytes keep arriving."""
    listener = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def drip() -> None:
        connection, _ = listener.accept()
        with connection:
            while not stop.wait(0.1):
                connection.send(b"H")

    thread = threading.Thread(target=drip)
    thread.start()
    begin_s = time.monotonic()
    with pytest.raises(TimeoutError, match="no answer within the timeout"):
        opened(f"http://127.0.0.1:{listener.getsockname()[1]}?timeout=1").write(LINES)
    stop.set()
    thread.join()
    listener.close()
    assert time.monotonic() - begin_s < 3


def test_nobody_listens() -> None:
    """The sink opens all the same; lines are delivered later."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    sink = opened(f"http://127.0.0.1:{port}")
    with pytest.raises(ConnectionRefusedError):
        sink.write(LINES)


def test_uris_are_different(peer: Peer) -> None:
    """Displayed URIs distinguish outputs to one host, without showing a secret path."""
    rests = ["", "/geheim", "/anders", "/geheim?name=a", "/geheim?name=b"]
    uris = [sink_to(peer, rest=rest).uri for rest in rests]
    assert len(set(uris)) == len(rests)
    assert "geheim" not in "".join(uris)
    assert uris[0] == f"http://127.0.0.1:{peer.port}"
    assert uris[3] == f"http://127.0.0.1:{peer.port}#a"


SECRETS = [
    ("", "token-file={token}", "Bearer geheim"),
    ("loki+", "user=me&password-file={token}", "Basic " + base64.b64encode(b"me:geheim").decode()),
    ("elasticsearch+", "token-file={token}", "ApiKey geheim"),
    ("opensearch+", "token-file={token}", "Bearer geheim"),
    ("splunk+", "token-file={token}", "Splunk geheim"),
    ("vector+", "header-file={header}", "Custom geheim"),
]


@pytest.mark.parametrize(("preset", "options", "shown"), SECRETS)
def test_secrets(preset: str, options: str, shown: str, peer: Peer, tmp_path: Path) -> None:
    """Secrets are only in the request; a refused token is read again from its file."""
    files = {"token": tmp_path / "token", "header": tmp_path / "header"}
    files["token"].write_text("geheim\n")
    files["header"].write_text("Authorization: Custom geheim\nX-More: yes\n")
    for file in files.values():
        file.chmod(0o600)
    sink = sink_to(peer, preset, "?" + options.format(**files))
    assert "geheim" not in sink.uri
    peer.replies = [Reply(403, b"forbidden")]
    with pytest.raises(RetryableError) as caught:
        sink.write(LINES)
    assert "geheim" not in str(caught.value)
    assert peer.asked[0].headers["authorization"] == shown
    for file in files.values():
        file.write_text(file.read_text().replace("geheim", "neu"))
    peer.replies = [Reply(403), Reply(403)]
    for _ in range(2):
        with pytest.raises(RetryableError):
            sink.write(LINES)
    assert peer.asked[-1].headers["authorization"] in (
        shown.replace("geheim", "neu"), "Basic " + base64.b64encode(b"me:neu").decode()
    )  # fmt: skip


@pytest.mark.parametrize(("preset", "options", "shown"), SECRETS)
@pytest.mark.parametrize("how", ["header", "words", "json", "location", "status"])
def test_secrets_that_come_back(preset: str, options: str, shown: str, how: str, peer: Peer, tmp_path: Path) -> None:
    """Secrets that a server echoes are redacted in messages; the rest is shown."""
    for name, text in (("token", "geh/eim\n"), ("header", "Authorization: Custom geh/eim\n")):
        (tmp_path / name).write_text(text)
    shown = base64.b64encode(b"me:geh/eim").decode() if shown.startswith("Basic") else "geh/eim"
    sink = sink_to(peer, preset, "?" + options.format(token=tmp_path / "token", header=tmp_path / "header"))
    peer.echoes = "authorization" if how == "header" else ""
    peer.replies = [
        {
            "header": Reply(404, b" is unknown"),
            "words": Reply(404, f"{'x' * 190} {shown} is unknown".encode()),
            "json": Reply(404, json.dumps({"no": shown}).replace("/", "\\/").encode() + b" is unknown"),
            "location": Reply(301, b"is unknown", {"Location": f"https://{shown.replace('/', '')}.geh/eim"}),
            "status": Reply(raw=f"geh/eim {shown} is unknown\r\n\r\n".encode()),
        }[how]
    ]
    with pytest.raises(OSError, match=r".") as caught:
        sink.write(LINES)
    said = str(caught.value)
    assert ("***" in said) or how == "location"
    assert shown not in said
    assert "geh/eim" not in said
    assert "geh\\/eim" not in said
    assert "the server answered" in said


def test_token_is_read_when_it_connects(peer: Peer, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A new token is used from the next connection on; while it cannot be read, the old one is used.

    A file that others can read is reported once.
    """
    token = tmp_path / "token"
    token.write_text("old")
    token.chmod(0o644)
    sink = sink_to(peer, rest=f"?token-file={token}")
    for text, end in (("new", sink.close), ("newer", sink.reopen), (None, sink.reopen)):
        sink.write(LINES)
        if text is None:
            token.unlink()
        else:
            token.write_text(text)
        sink.write(LINES)
        end()
    sink.write(LINES)
    sent = [asked.headers["authorization"].removeprefix("Bearer ") for asked in peer.asked]
    assert sent == ["old", "old", "new", "new", "newer", "newer", "newer"]
    assert capfd.readouterr().err.count("readable by all users") == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("loki+http://h?tenant=a%0d%0ab", "tenant is not printable ASCII"),
        ("http://h?ca-file=/x", "TLS options require TLS"),
        ("https://h?ca-file=/does/not/exist", "/does/not/exist"),
        ("http://h?token-file=/does/not/exist", "cannot read /does/not/exist"),
        ("http://h?token-env=OOMTRACE_NOT_THERE", "OOMTRACE_NOT_THERE"),
        ("http://h?headers=oops", "has no value"),
        ("http://h?headers=a b=c", "invalid header name"),
        ("http://h?headers=a=x%0d%0ab", "not printable ASCII"),
        ("http://h/a%0db", "invalid path"),
        ("http:h", "missing or invalid host"),
        ("loki+http://h?labels=1a=b", "invalid label"),
        ("splunk+http://h?token=geheim", "must not be in a URI"),
    ],
)
def test_wrong(text: str, said: str) -> None:
    """Invalid options are reported at the start, not at the first kill."""
    with pytest.raises(TracerError) as caught:
        open_uri(text)
    assert said in str(caught.value)
    assert "geheim" not in str(caught.value)


def test_header_with_a_newline(tmp_path: Path) -> None:
    """A secret cannot become a second header."""
    (tmp_path / "token").write_bytes(b"a\nX-Other: b\n")
    with pytest.raises(TracerError, match="not printable ASCII"):
        open_uri(f"http://h?token-file={tmp_path}/token")


@pytest.mark.parametrize("style", STYLES)
def test_loki(style: str, peer: Peer) -> None:
    """Few labels in any style; the line is the JSON; times are those of the records, in nanoseconds."""
    whole, line = kill_line(style, "shop")
    sink = sink_to(peer, "loki+", f"?style={style}&labels=cluster=eu,job=oom&tenant=t1")
    assert sink.write([line, b"no json \xff\n"]) == 2
    streams = json.loads(peer.bodies[0])["streams"]
    labels = {"host": "node-1", "type": "oom_kill", "namespace": "shop", "job": "oom", "cluster": "eu"}
    assert [stream["stream"] for stream in streams] == [labels, {"job": "oom", "cluster": "eu"}]
    ((time_ns, text),) = streams[0]["values"]
    assert text == line.decode().rstrip("\n")
    assert time_ns == str(time_of(whole))
    assert (peer.asked[0].path, peer.asked[0].headers["x-scope-orgid"]) == ("/loki/api/v1/push", "t1")


@pytest.mark.parametrize("style", STYLES)
def test_bulk(style: str, peer: Peer) -> None:
    """Each record is a document, whose id is the same when it is sent again."""
    whole, line = kill_line(style)
    peer.replies = [Reply(body=b'{"errors":false}')] * 2
    sink = sink_to(peer, "elasticsearch+", f"?style={style}&index=oom-%7Bdate%7D")
    lines = [line, b'{"schema":1,"type":"stop","time":"2026-11-24T03:51:53.000000001Z"}\n']
    for _ in range(2):
        assert sink.write(lines) == 2
    assert peer.bodies[0] == peer.bodies[1]
    actions = [json.loads(text)["create"] for text in peer.bodies[0].splitlines()[::2]]
    day = whole["time"][:10].replace("-", ".")
    assert actions[0] == {"_index": f"oom-{day}", "_id": f"oom_kill-{whole['id']}"}
    assert actions[1]["_index"] == "oom-2026.11.24"
    assert actions[1]["_id"].startswith("stop-")
    assert b"".join(peer.bodies[0].splitlines(keepends=True)[1::2]) == b"".join(lines)
    assert peer.asked[0].path.startswith("/_bulk?filter_path=errors,items")


SHARDS = "Validation Failed: 1: this action would add [2] shards, but this cluster currently has [1000]/[1000] maximum normal shards open;"  # fmt: skip # noqa: E501


def items(*statuses: int, kind: str = "t", reason: str = "r%d") -> bytes:
    errors = [{"error": {"type": kind, "reason": reason.replace("%d", str(status))}} for status in statuses]
    found = [
        {"create": {"status": status, **({} if status < 300 else error)}}
        for status, error in zip(statuses, errors, strict=True)
    ]
    return json.dumps({"errors": any(status >= 300 for status in statuses), "items": found}).encode()


@pytest.mark.parametrize(
    ("statuses", "taken"),
    [((201, 201, 201), 3), ((201, 409, 201), 3), ((201, 429, 201), 1), ((409, 201, 400), 2), ((201, 201, 503), 2)],
)
def test_bulk_takes_the_first(statuses: tuple[int, ...], taken: int, peer: Peer) -> None:
    """A document that exists already is delivered, and so are those before one that is not created."""
    peer.replies = [Reply(body=items(*statuses))]
    assert sink_to(peer, "elasticsearch+").write(LINES) == taken


@pytest.mark.parametrize(
    ("body", "error", "said"),
    [
        (items(429, 201, 201), OSError, "the server answered 429 .*r429"),
        (items(503, 201, 201), OSError, "the server answered 503"),
        (items(403, 201, 201), OSError, "the server answered 403"),
        (items(400, 201, 201), OSError, "the server answered 400 .*r400"),
        (items(413, 201, 201), RejectedError, "the server answered 413 .*r413"),
        (items(400, 201, 201, kind="mapper_parsing_exception"), RejectedError, "the server answered 400 .*r400"),
        (items(400, 201, 201, kind="document_parsing_exception"), RejectedError, "the server answered 400 .*r400"),
        (
            items(400, 201, 201, kind="strict_dynamic_mapping_exception"),
            RejectedError,
            "the server answered 400 .*r400",
        ),
        (
            items(400, 400, 201, kind="validation_exception", reason=SHARDS),
            OSError,
            "the server answered 400 .*maximum normal",
        ),
        (
            items(400, 201, 201, kind="illegal_argument_exception", reason=SHARDS),
            OSError,
            "the server answered 400 .*maximum",
        ),
        (items(400, kind="index_closed_exception"), OSError, "for 1 of 3"),
        (
            items(400, 400, 400, kind="index_closed_exception", reason="closed"),
            OSError,
            "the server answered 400 .*closed",
        ),
        (
            items(
                400,
                201,
                201,
                kind="illegal_argument_exception",
                reason="Limit of total fields [1000] has been exceeded",
            ),
            RejectedError,
            "the server answered 400 .*total fields",
        ),
        (
            items(
                400, 201, 201, kind="illegal_argument_exception", reason="mapper [a] cannot be changed from type [long]"
            ),
            RejectedError,
            "the server answered 400 .*cannot be changed",
        ),
        (items(429), OSError, "for 1 of 3"),
        (b"<html>", OSError, "not an answer of _bulk: <html>"),
        (b'{"errors":true,"items":[{},{},{}]}', OSError, "not an answer of _bulk"),
        (b'{"errors":true,"items":[{"create":{"status":"x"}}]}', OSError, "not an answer of _bulk"),
    ],
)
def test_bulk_does_not_take(body: bytes, error: type[Exception], said: str, peer: Peer) -> None:
    """Errors that are not about a document are retried: a busy or full cluster, a closed index.

    Errors of the mapping are about a document.  After an invalid answer nothing counts as delivered.
    """
    peer.replies = [Reply(body=body)]
    with pytest.raises(error, match=said) as caught:
        sink_to(peer, "elasticsearch+").write(LINES)
    assert not isinstance(caught.value, RejectedError) or caught.value.is_certain


TOO_OLD = b"entry for stream '{job=\"oomtrace\"}' has timestamp too old: 2026-11-24T03:51:53Z, oldest acceptable timestamp is: 2026-11-25T00:00:00Z"  # fmt: skip # noqa: E501
TOO_LONG = b"Max entry size '262144' bytes exceeded for stream '{job=\"oomtrace\"}' while adding an entry with length '300000' bytes"  # fmt: skip # noqa: E501


@pytest.mark.parametrize(("body", "is_certain"), [(TOO_OLD, True), (TOO_LONG, True), (b"<html>400</html>", False)])
def test_loki_rejects(body: bytes, is_certain: bool, peer: Peer) -> None:
    """Loki's message identifies a bad entry; any other 400 may concern every line."""
    peer.replies = [Reply(400, body)]
    with pytest.raises(RejectedError) as caught:
        sink_to(peer, "loki+").write(LINES[:1])
    assert caught.value.is_certain == is_certain


@pytest.mark.parametrize("style", STYLES)
def test_splunk(style: str, peer: Peer) -> None:
    """Events are concatenated; times have all digits."""
    whole, line = kill_line(style)
    sink = sink_to(peer, "splunk+", f"?style={style}&index=main")
    assert sink.write([line, b"no json\n"]) == 2
    first, second = peer.bodies[0].splitlines()
    event = json.loads(first)
    assert event["event"] == json.loads(line)
    assert {name: event[name] for name in ("host", "source", "sourcetype", "index")} == {
        "host": "node-1", "source": "oomtrace", "sourcetype": "oomtrace", "index": "main"
    }  # fmt: skip
    seconds, nanoseconds = divmod(time_of(whole), 1_000_000_000)
    assert first.startswith(b'{"time":%d.%09d,' % (seconds, nanoseconds))
    assert json.loads(second)["event"] == "no json"
    assert peer.asked[0].path == "/services/collector/event"


@pytest.mark.parametrize(
    ("code", "error"), [(6, RejectedError), (12, RejectedError), (7, OSError), (10, OSError), (None, OSError)]
)
def test_splunk_codes(code: int | None, error: type[Exception], peer: Peer) -> None:
    """A bad event is set aside; a wrong index or a missing channel must be fixed by an administrator."""
    peer.replies = [Reply(400, json.dumps({"text": "Incorrect", "code": code}).encode())]
    with pytest.raises(error, match="the server answered 400"):
        sink_to(peer, "splunk+").write(LINES[:1])


def time_of(whole: Any) -> int:
    at = datetime.fromisoformat(whole["time"][:19] + "+00:00")
    return int(at.timestamp()) * 1_000_000_000 + int(whole["time"][20:29])
