# SPDX-License-Identifier: Apache-2.0
"""sinks/kafka.py and sinks/mqtt.py without a broker: options and errors."""

import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.harness.lines import record
from tracer.base.errors import EXIT_USAGE, TracerError
from tracer.delivery.sinks import RejectedError
from tracer.delivery.sinks.open import open_uri


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("kafka://127.0.0.1", "missing or invalid topic"),
        ("kafka://127.0.0.1/a/b", "missing or invalid topic"),
        ("kafka://127.0.0.1/a%0ab", "missing or invalid topic"),
        ("kafka:///topic", "missing or invalid host"),
        ("kafka://a,/topic", "missing or invalid host"),
        ("kafka://a,b:99999/topic", "missing or invalid host"),
        ("kafka:topic", "missing"),
        ("mqtt://127.0.0.1", "missing or invalid topic"),
        ("mqtt://127.0.0.1/a/%2b", "missing or invalid topic"),
        ("mqtt://127.0.0.1/a/%23", "missing or invalid topic"),
        ("mqtt:///topic", "missing or invalid host"),
    ],
)
def test_wrong_place(uri: str, said: str) -> None:
    """Usage errors, with the correct form."""
    with pytest.raises(TracerError, match=said) as raised:
        open_uri(uri)
    assert raised.value.exit_code == EXIT_USAGE


@pytest.mark.parametrize(
    ("scheme", "module", "package"),
    [
        ("kafka", "confluent_kafka", "confluent-kafka"),
        ("mqtt", "paho.mqtt", "paho-mqtt"),
        ("mqtts", "paho.mqtt", "paho-mqtt"),
    ],
)
def test_missing_extra(scheme: str, module: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra to install."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(TracerError, match=f"pipx inject oomtrace {package}"):
        open_uri(f"{scheme}://127.0.0.1/topic")


@pytest.mark.parametrize(
    ("properties", "said"),
    [
        ("sasl.pasword=geheim", 'No such configuration property: "sasl.pasword"'),
        ("# all\n\nacks", "line 3 is not a property"),
        ("compression.type=cheap", "Invalid value"),
        ("enable.idempotence=true\nacks=1", "acks"),
    ],
)
def test_wrong_properties(properties: str, said: str, tmp_path: Path) -> None:
    """librdkafka refuses invalid properties at the start; a password is not shown."""
    (tmp_path / "kafka").write_text(properties)
    with pytest.raises(TracerError, match=said) as raised:
        open_uri(f"kafka://127.0.0.1/topic?config-file={tmp_path}/kafka")
    assert "geheim" not in str(raised.value)


def test_properties_that_everybody_may_read(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Reported, as for other files with secrets."""
    path = tmp_path / "kafka"
    path.write_text("security.protocol=sasl_plaintext\nsasl.mechanisms=PLAIN\nsasl.username=a\nsasl.password=geheim\n")
    path.chmod(0o644)
    open_uri(f"kafka://127.0.0.1/topic?config-file={path}").close()
    said = capfd.readouterr().err
    assert f"{path} contains a secret and is readable by all users" in said
    assert "geheim" not in said


@pytest.mark.parametrize(
    "uri", ["kafka+tls://127.0.0.1/topic?ca-file=/nowhere", "mqtts://127.0.0.1/topic?ca-file=/nowhere"]
)
def test_missing_certificates(uri: str) -> None:
    """Detected at the start."""
    with pytest.raises(TracerError, match="/nowhere"):
        open_uri(uri)


def test_kafka_leaves_no_thread() -> None:
    """A sink that was opened with all privileges has no threads that would keep them."""
    before = set(Path("/proc/self/task").iterdir())
    sink = open_uri("kafka://127.0.0.1/topic")
    assert set(Path("/proc/self/task").iterdir()) <= before
    sink.close()


@pytest.mark.parametrize("scheme", ["kafka", "mqtt"])
def test_nobody_there(scheme: str) -> None:
    """Reported at once, not after the timeout; and again the next time."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        sink = open_uri(f"{scheme}://127.0.0.1:{taken.getsockname()[1]}/topic?timeout=60")
        begin_s = time.monotonic()
        for _ in range(2):
            with pytest.raises(OSError, match="refused"):
                sink.write([record(1)])
        assert time.monotonic() - begin_s < 20
        sink.close()


@pytest.mark.parametrize("scheme", ["kafka", "mqtt"])
def test_hangs_or_hangs_up(scheme: str) -> None:
    """A server that accepts and sends nothing, or garbage, is an error within the timeout."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        sink = open_uri(f"{scheme}://127.0.0.1:{server.getsockname()[1]}/topic?timeout=1")
        begin_s = time.monotonic()
        with pytest.raises(OSError, match=r"no answer|answered: nothing"):
            sink.write([record(1)])
        threading.Thread(target=_babble, args=(server,), daemon=True).start()
        with pytest.raises(OSError, match=r"\w"):
            sink.write([record(1)])
        assert time.monotonic() - begin_s < 20
        sink.close()


def test_too_large_for_kafka(tmp_path: Path) -> None:
    """A line that librdkafka cannot send is rejected: first by a batch that ends before it, then as the first line."""
    (tmp_path / "kafka").write_text("message.max.bytes=1000\n")
    sink = open_uri(f"kafka://127.0.0.1:1/topic?timeout=1&config-file={tmp_path}/kafka")
    with pytest.raises(RejectedError, match="too large"):
        sink.write([record(1, 5000), record(2)])
    sink.close()


def _babble(server: socket.socket) -> None:
    for _ in range(20):
        try:
            connected, _ = server.accept()
        except OSError:
            return
        with connected:
            connected.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n" * 20)
