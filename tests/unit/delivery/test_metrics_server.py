# SPDX-License-Identifier: Apache-2.0
"""metrics_server.py: clients cannot exhaust descriptors, threads or CPU time, nor block other clients."""

import contextlib
import gzip
import os
import resource
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from tests.harness.lines import wait_for
from tracer.delivery.metrics import SERIES_MAX, Metrics, parse_endpoint
from tracer.delivery.metrics_server import CONNECTIONS_MAX, REQUEST_MAX_BYTES, MetricsServer, Request, Response

from .test_metrics import kill

ANSWER = b"x" * 1000
GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
FLOOD = 300


def answer(_request: Request) -> Response:
    return Response("200 OK", [("Content-Type", "text/plain")], ANSWER)


@pytest.fixture
def server() -> MetricsServer:
    server = MetricsServer("127.0.0.1", 0, answer)
    server.start()
    return server


@pytest.fixture
def opened() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


def connect(port: int, source: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=15, source_address=(source, 0))


def read_all(client: socket.socket) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionError):
        while chunk := client.recv(65536):
            received += chunk
    return received


def ask(port: int, request: bytes = GET, source: str = "127.0.0.1") -> bytes:
    with connect(port, source) as client:
        client.sendall(request)
        return read_all(client)


def is_ended_while_sending(client: socket.socket) -> bool:
    for _ in range(200):
        try:
            client.sendall(b"G")
        except ConnectionError:
            return True
        time.sleep(0.05)
    return False


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def thread_s(name: str) -> float:
    """CPU time of the threads with that name."""
    ticks = 0
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/stat") as file:
            head, _, rest = file.read().rpartition(")")
        if head.endswith(f"({name}"):
            ticks += sum(map(int, rest.split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def test_idle_connections(server: MetricsServer, opened: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Idle connections take neither descriptors nor threads, and another address is still served."""
    monkeypatch.setattr("tracer.delivery.metrics_server.CONNECTION_S", 600.0)  # their number alone ends them
    assert ask(server.port, source="127.0.0.2").endswith(b"\r\n\r\n" + ANSWER)
    before, threads = descriptors(), threading.active_count()
    for _ in range(FLOOD):
        opened.enter_context(connect(server.port))
    wait_for(lambda: descriptors() - before - FLOOD == CONNECTIONS_MAX)
    assert threading.active_count() == threads
    other = opened.enter_context(connect(server.port, "127.0.0.2"))
    for _ in range(FLOOD):
        opened.enter_context(connect(server.port))
    other.sendall(GET)
    assert read_all(other).endswith(ANSWER), "it was driven out by connections of another address"
    assert ask(server.port).endswith(ANSWER), "of the same address the newest ones are served"


def test_time(server: MetricsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that are idle, send slowly or receive nothing are closed, and their descriptors freed."""
    monkeypatch.setattr("tracer.delivery.metrics_server.CONNECTION_S", 0.5)
    large = MetricsServer("127.0.0.1", 0, lambda _: Response("200 OK", [], bytes(50 << 20)))
    large.start()
    before = descriptors()
    with connect(server.port) as idle, connect(server.port) as slow, connect(large.port) as deaf:
        deaf.sendall(GET)
        began_s = time.monotonic()
        assert is_ended_while_sending(slow)
        assert read_all(idle) == b""
        wait_for(lambda: descriptors() == before + 3)
        assert 0.4 < time.monotonic() - began_s < 5
        assert 0 < len(read_all(deaf)) < 50 << 20


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /" + b"x" * REQUEST_MAX_BYTES + b" HTTP/1.1\r\n\r\n", b"431 "),
        (b"\r\n\r\n", b"400 "),
        (b"GET /\r\n\r\n", b"400 "),
        (b"\x16\x03\x01\x00\xf7\r\n\r\n", b"400 "),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"400 "),
        (b"GET / HTTP/1.1\r\n\r\n", b"200 "),
    ],
)
def test_requests(server: MetricsServer, request_bytes: bytes, status: bytes) -> None:
    """Requests that are too large or not HTTP are refused."""
    assert ask(server.port, request_bytes).startswith(b"HTTP/1.1 " + status)


def test_endless_request(server: MetricsServer) -> None:
    """No more than the limit is received of a request."""
    with connect(server.port) as client, contextlib.suppress(ConnectionError):
        for _ in range(10_000):
            client.sendall(b"x" * 4096)
        pytest.fail("all of it was received")
    assert ask(server.port).endswith(ANSWER)


def test_reset(server: MetricsServer, capfd: pytest.CaptureFixture[str]) -> None:
    """A reset before, within or after a request prints nothing."""
    for sent in (b"", GET[:10], GET):
        for _ in range(5):
            with connect(server.port) as client:
                client.sendall(sent)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert ask(server.port).endswith(ANSWER)
    assert capfd.readouterr().err == ""


def test_no_descriptor(server: MetricsServer, opened: contextlib.ExitStack, capfd: pytest.CaptureFixture[str]) -> None:
    """Without a free descriptor, the server says so once, waits without CPU time, and recovers."""
    ask(server.port)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limit)
    client = opened.enter_context(socket.socket())
    client.settimeout(15)
    spent_s = thread_s("metrics")
    resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 1, limit[1]))
    holes = []
    with contextlib.suppress(OSError):
        while True:
            holes.append(os.open("/dev/null", os.O_RDONLY))
    client.connect(("127.0.0.1", server.port))
    client.sendall(GET)
    time.sleep(2.5)
    for each in holes:
        os.close(each)
    resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert read_all(client).endswith(ANSWER)
    assert thread_s("metrics") - spent_s < 0.2
    assert capfd.readouterr().err.count("cannot accept a connection") == 1


def test_cpu_time(opened: contextlib.ExitStack) -> None:
    """Any number of clients that request the largest response continuously take a tenth of one CPU."""
    metrics = Metrics(lambda: 7, list, "bpf")
    for number in range(SERIES_MAX):
        metrics.observe(kill(name=f"{number}" * 40))
    server = MetricsServer("127.0.0.1", 0, metrics._respond)
    server.start()
    ask(server.port)
    ends_s, answers = time.monotonic() + 4, []

    def hammer() -> None:
        while time.monotonic() < ends_s:
            with contextlib.suppress(OSError):
                answers.append(len(ask(server.port)))

    hammers = [threading.Thread(target=hammer) for _ in range(8)]
    spent_s = thread_s("metrics")
    for each in hammers:
        each.start()
    for each in hammers:
        each.join()
    assert (
        thread_s("metrics") - spent_s < 1.0
    )  # REST_FACTOR is nine times, and the first part of an answer goes before it
    assert min(answers) > 100_000


def test_fails(capfd: pytest.CaptureFixture[str]) -> None:
    """A response that cannot be made ends neither the thread nor the next response."""

    def fail(_request: Request) -> Response:
        raise ValueError("no numbers")

    server = MetricsServer("127.0.0.1", 0, fail)
    server.start()
    for _ in range(2):
        assert ask(server.port).startswith(b"HTTP/1.1 500 ")
    assert "no numbers" in capfd.readouterr().err


def test_formats() -> None:
    """OpenMetrics, gzip and methods work as in prometheus_client."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    Metrics(lambda: 7, list, "bpf").publish([parse_endpoint(f"127.0.0.1:{port}")])

    def shown(line: bytes, *headers: bytes) -> tuple[bytes, bytes]:
        head, _, body = ask(port, b"\r\n".join((line, *headers, b"", b""))).partition(b"\r\n\r\n")
        return head, body

    head, body = shown(b"GET /metrics HTTP/1.1")
    assert b"200 OK" in head
    assert b"Content-Type: text/plain; version=0.0.4; charset=utf-8" in head
    assert b"oomtrace_kernel_oom_kills_total 7.0" in body
    head, packed = shown(b"GET /metrics HTTP/1.1", b"Accept-Encoding: gzip")
    assert gzip.decompress(packed).splitlines()[:2] == body.splitlines()[:2]
    head, body = shown(b"GET / HTTP/1.1", b"Accept: application/openmetrics-text;version=1.0.0")
    assert body.endswith(b"# EOF\n")
    assert b"405 Method Not Allowed" in shown(b"POST /metrics HTTP/1.1")[0]
