# SPDX-License-Identifier: Apache-2.0
"""metrics_access.py: clients without certificate or token read nothing; with real clients, curl and openssl."""

import contextlib
import hmac
import os
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.collectors.certificates import Certificates
from tests.collectors.certificates import make as make_certificates
from tracer.base.errors import EXIT_USAGE, TracerError
from tracer.commands.config import check
from tracer.delivery.metrics import Endpoint, Metrics, parse_endpoint
from tracer.delivery.metrics_server import Request

METRIC = "oomtrace_build_info"
TOKEN = "geheim-5aaf"  # noqa: S105
TIMEOUT_S = 20.0


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    path.chmod(0o600)
    return path


def serve(options: str) -> int:
    """A port of 127.0.0.1 with these options."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    Metrics(lambda: 7, list, "bpf").publish([parse_endpoint(f"{port}?{options}")])
    return port


def curl(port: int, *arguments: str, scheme: str = "http") -> tuple[int, str]:
    """The exit status and output of curl: body and status of the response."""
    url = f"{scheme}://localhost:{port}/metrics"
    command = ["curl", "-sS", "-4", "--max-time", str(TIMEOUT_S), "-w", "\n%{http_code}", *arguments, url]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    return finished.returncode, finished.stdout + finished.stderr


def test_token(token: Path) -> None:
    """A bearer token as Prometheus sends it is accepted, anything else refused; a new token is valid at once."""
    port = serve(f"token-file={token}")
    for given in ((), ("-H", "Authorization: Bearer wrong"), ("-H", f"Authorization: {TOKEN}"), ("-u", f"x:{TOKEN}")):
        _, said = curl(port, *given)
        assert said.endswith("401"), given
        assert METRIC not in said
    for scheme in ("Bearer", "bearer"):
        _, said = curl(port, "-H", f"Authorization: {scheme} {TOKEN}")
        assert METRIC in said
        assert said.endswith("200")
    token.write_text("another")
    assert curl(port, "-H", f"Authorization: Bearer {TOKEN}")[1].endswith("401")
    assert curl(port, "-H", "Authorization: Bearer another")[1].endswith("200")


def test_token_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The token may be in an environment variable."""
    monkeypatch.setenv("SCRAPER", TOKEN)
    port = serve("token-env=SCRAPER")
    assert curl(port, "-H", f"Authorization: Bearer {TOKEN}")[1].endswith("200")
    assert curl(port)[1].endswith("401")


def test_user(token: Path) -> None:
    """Basic authentication."""
    port = serve(f"user=prometheus&password-file={token}")
    assert curl(port, "-u", f"prometheus:{TOKEN}")[1].endswith("200")
    for given in ((), ("-u", f"other:{TOKEN}"), ("-u", "prometheus:"), ("-H", "Authorization: Basic !!!")):
        assert curl(port, *given)[1].endswith("401"), given
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=TIMEOUT_S)
    assert caught.value.headers["WWW-Authenticate"] == 'Basic realm="oomtrace"'
    caught.value.close()


def test_unreadable(token: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A missing or empty token grants no access; it is reported once."""
    port = serve(f"token-file={token}")
    for gone in (token.unlink, lambda: token.write_text("\n")):
        gone()
        for given in ((), ("-H", "Authorization: Bearer"), ("-H", "Authorization: Bearer ")):
            assert curl(port, *given)[1].endswith("500")
    said = capfd.readouterr().err
    assert said.count(f"cannot read {token}") == 1
    assert said.count("is empty") == 1
    with pytest.raises(TracerError, match="is empty"):
        serve(f"token-file={token}")


def test_tls(certificates: Certificates, token: Path) -> None:
    """With a certificate the port accepts only TLS, also with a token."""
    options = f"cert-file={certificates.server}&key-file={certificates.server_key}&token-file={token}"
    port = serve(options)
    bearer = ("-H", f"Authorization: Bearer {TOKEN}")
    trusting = ("--cacert", str(certificates.authority))
    assert curl(port, *bearer)[0] != 0, "without TLS"
    assert curl(port, *bearer, scheme="https")[0] != 0, "who trusts nobody"
    status, said = curl(port, *trusting, *bearer, scheme="https")
    assert (status, METRIC in said) == (0, True)
    assert curl(port, *trusting, scheme="https")[1].endswith("401")
    for version, is_spoken in (("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)):
        command = [
            "openssl",
            "s_client",
            "-brief",
            version,
            "-CAfile",
            str(certificates.authority),
            "-verify_return_error",
        ]
        finished = subprocess.run(
            [*command, "-connect", f"127.0.0.1:{port}"], input=b"", capture_output=True, check=False, timeout=TIMEOUT_S
        )
        assert (finished.returncode == 0) == is_spoken, version


def test_client_certificate(certificates: Certificates) -> None:
    """A client without a certificate of the right authority reads nothing."""
    options = f"cert-file={certificates.server}&key-file={certificates.server_key}"
    port = serve(f"{options}&client-ca-file={certificates.authority}")
    trusting = ("--cacert", str(certificates.authority))
    shown = ("--cert", str(certificates.client), "--key", str(certificates.client_key))
    assert METRIC not in curl(port, *trusting, scheme="https")[1]
    status, said = curl(port, *trusting, *shown, scheme="https")
    assert (status, METRIC in said) == (0, True)


def test_idle_clients_of_tls(certificates: Certificates) -> None:
    """Incomplete and invalid handshakes do not block a scrape."""
    port = serve(f"cert-file={certificates.server}&key-file={certificates.server_key}")
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(40)]
    for number, client in enumerate(clients):
        with contextlib.suppress(ConnectionError):
            client.sendall((b"\x16\x03\x01\x02", b"GET / HTTP/1.1\r\n\r\n", b"")[number % 3])
    context = ssl.create_default_context(cafile=str(certificates.authority))
    with urllib.request.urlopen(f"https://localhost:{port}/metrics", timeout=TIMEOUT_S, context=context) as answer:
        assert METRIC.encode() in answer.read()
    for client in clients:
        client.close()


def test_renewed(certificates: Certificates, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The next client sees a renewed certificate; a damaged one is reported, and the old one remains in use."""
    certificate, key = tmp_path / "certificate", tmp_path / "key"
    certificate.write_bytes(certificates.server.read_bytes())
    key.write_bytes(certificates.server_key.read_bytes())
    port = serve(f"cert-file={certificate}&key-file={key}")
    before = ssl.get_server_certificate(("127.0.0.1", port))
    (tmp_path / "renewed").mkdir()
    renewed = make_certificates(tmp_path / "renewed")
    certificate.write_text("nothing")
    assert ssl.get_server_certificate(("127.0.0.1", port)) == before
    assert "the previous certificates remain in use" in capfd.readouterr().err
    key.write_bytes(renewed.server_key.read_bytes())
    certificate.write_bytes(renewed.server.read_bytes())
    os.utime(certificate, (1, 1))
    after = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", port)))
    assert after == ssl.PEM_cert_to_DER_cert(renewed.server.read_text())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("token=geheim", "token must not be in the address"),
        ("password=geheim", "password must not be in the address"),
        ("cert-file=/a", "cert-file requires key-file"),
        ("key-file=/a", "key-file requires cert-file"),
        ("client-ca-file=/a", "client-ca-file requires cert-file"),
        ("user=a", "user requires password-file"),
        ("password-file=/a", "password requires user"),
        ("user=a:b&password-file=/a", "must not contain a colon"),
        ("cert-file=a&key-file=/b", "not an absolute path"),
        ("token-file=", "token-file is empty"),
        ("token-env=", "token-env is empty"),
        ("geheim", "an option has no value"),
        ("tokn-file=/a", "unknown option 'tokn-file'"),
        ("token-file=/a%00", "not text"),
        ("token-file=/a%ff", "not text"),
    ],
)
def test_wrong_options(options: str, said: str) -> None:
    """Contradicting options are refused, and messages contain no secrets."""
    with pytest.raises(TracerError) as caught:
        parse_endpoint(f"127.0.0.1:9814?{options}")
    assert said in str(caught.value)
    assert "geheim" not in str(caught.value)
    assert caught.value.exit_code == EXIT_USAGE


def test_port_alone() -> None:
    """A port without a host is on loopback; a configured host is used."""
    found = [parse_endpoint(text) for text in ("9814", ":9814", "0.0.0.0:9814", "[::]:9814", "[::1]:9814")]
    assert [place.host for place in found] == ["127.0.0.1", "127.0.0.1", "0.0.0.0", "::", "::1"]  # noqa: S104
    assert {place.port for place in found} == {9814}
    for wrong in ("0", "65536", "x", "", "٣", "127.0.0.1:"):
        with pytest.raises(TracerError):
            parse_endpoint(wrong)


@pytest.mark.parametrize(
    ("text", "is_reported"),
    [
        ("0.0.0.0:9814?token-env=A", True),
        ("[::]:9814?user=a&password-env=A", True),
        ("9814?token-env=A", False),
        ("[::1]:9814?token-env=A", False),
        ("localhost:9814?token-env=A", False),
        ("0.0.0.0:9814?token-env=A&cert-file=/a&key-file=/b", False),
        ("0.0.0.0:9814", False),
    ],
)
def test_secret_in_the_clear(text: str, is_reported: bool) -> None:
    """A secret that is sent unencrypted is reported."""
    access = parse_endpoint(text).access
    assert access is not None
    assert access.sends_secret_unencrypted is is_reported


def test_config_check(certificates: Certificates, token: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`config check` reads the files, and shows what clients need, never the secret."""
    config = token.with_name("config.toml")
    options = f"cert-file={certificates.server}&key-file={certificates.server_key}&token-file={token}"
    config.write_text(f'metrics = ["0.0.0.0:9814?{options}", "file:/x.prom"]\n')
    check(str(config))
    said = capsys.readouterr().out
    assert said.endswith("; metrics: 0.0.0.0:9814 (TLS, token), file:/x.prom\n")
    assert TOKEN not in said
    token.unlink()
    with pytest.raises(TracerError, match=f"cannot read {token}"):
        check(str(config))
    config.write_text(f'metrics = ["9814?cert-file={token}&key-file={token}"]\n')
    with pytest.raises(TracerError, match=f"cannot use {token}"):
        check(str(config))


def test_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every secret is compared, in constant time."""
    seen = []
    compare = hmac.compare_digest

    def compared(one: bytes, other: bytes) -> bool:
        seen.append(other)
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compared)
    monkeypatch.setenv("A", "x")
    access = parse_endpoint("9814?token-env=A&user=u&password-env=A").access
    assert access is not None
    for authorization in ("", "Bearer x", "Basic dTp4"):
        access.refusal(Request("GET", "/metrics", "", {"authorization": authorization}))
    assert seen == [b"bearer x", b"basic u:x"] * 3


def test_told() -> None:
    """Without options there is no authentication, and the description says so."""
    place: Endpoint = parse_endpoint("127.0.0.1:9814")
    assert place.description == "127.0.0.1:9814 (no authentication)"
