# SPDX-License-Identifier: Apache-2.0
"""TLS with openssl s_server: a server with a wrong certificate gets no record."""

from pathlib import Path

import pytest

from tracer.delivery.sinks.open import open_uri

from .certificates import Certificates
from .conftest import Start
from .program import Program, accepts, free_port

LINE = b'{"schema":1,"type":"stop","time":"2026-11-24T03:51:53Z"}\n'


class TlsServer:
    """openssl s_server, which prints what it receives."""

    def __init__(self, certificates: Certificates, start: Start) -> None:
        self.port = free_port()
        command: list[str | Path] = [
            "sh", "-c", 'sleep 600 | "$@"', "sh",  # it exits at the end of its standard input
            "openssl", "s_server", "-accept", f"127.0.0.1:{self.port}", "-quiet",
            "-Verify", "1", "-verify_return_error",
            "-cert", certificates.server, "-key", certificates.server_key, "-CAfile", certificates.authority,
        ]  # fmt: skip
        self.program: Program = start("openssl", command, accepts(self.port))


@pytest.fixture
def server(certificates: Certificates, start_program: Start) -> TlsServer:
    return TlsServer(certificates, start_program)


def uri(server: TlsServer, own: Certificates, host: str = "localhost", **options: object) -> str:
    given = {"ca-file": own.authority, "cert-file": own.client, "key-file": own.client_key, "timeout": 5}
    given |= {name.replace("_", "-"): value for name, value in options.items()}
    pairs = "&".join(f"{name}={value}" for name, value in given.items() if value is not None)
    return f"syslog+tls://{host}:{server.port}?{pairs}"


@pytest.mark.parametrize("options", [{}, {"host": "127.0.0.1"}, {"verify": "no", "ca_file": None}])
def test_right(server: TlsServer, certificates: Certificates, options: dict[str, str]) -> None:
    """Verified by name, by address, and not at all with verify=no."""
    sink = open_uri(uri(server, certificates, **options))
    assert sink.write([LINE]) == 1
    sink.close()
    server.program.wait_for(LINE.decode().strip())


def test_renewed(
    server: TlsServer, certificates: Certificates, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A replaced file is used for the next connection; an invalid one is reported and not used."""
    authority = tmp_path / "authority.pem"
    authority.write_bytes(certificates.stranger.read_bytes())
    sink = open_uri(uri(server, certificates, ca_file=authority))
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        sink.write([LINE])
    for content in (certificates.authority.read_bytes(), b"no certificate"):
        (tmp_path / "new").write_bytes(content)
        (tmp_path / "new").rename(authority)
        sink.reopen()
        sink.close()
        assert sink.write([LINE]) == 1
    sink.close()
    assert capfd.readouterr().err.count("the previous certificates remain in use") == 1


def test_wrong_authority(server: TlsServer, certificates: Certificates) -> None:
    """A server with a certificate of another authority."""
    refused(server, uri(server, certificates, ca_file=certificates.stranger), "CERTIFICATE_VERIFY_FAILED")


def test_wrong_name(server: TlsServer, certificates: Certificates) -> None:
    """A server with a certificate for another name."""
    refused(server, uri(server, certificates, server_name="logs.example"), "Hostname mismatch")


def test_without_own_certificate(server: TlsServer, certificates: Certificates) -> None:
    """A server that requires a client certificate: data sent before its alert does not count as delivered."""
    refused(server, uri(server, certificates, cert_file=None, key_file=None), "CERTIFICATE_REQUIRED|closed|reset")


def refused(server: TlsServer, output: str, reason: str) -> None:
    sink = open_uri(output)
    with pytest.raises(OSError, match=reason):
        sink.write([LINE])
    sink.close()
    assert '"stop"' not in server.program.output()
