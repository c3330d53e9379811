# SPDX-License-Identifier: Apache-2.0
"""sinks/http_client.py with TLS: which servers are trusted."""

import ssl
import subprocess
from pathlib import Path

import pytest

from tests.harness.http_peer import serving
from tests.harness.lines import record
from tracer.delivery.sinks.open import open_uri

LINES = [record(number) for number in range(3)]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of a server called log.example, and its key."""
    folder = tmp_path_factory.mktemp("certificate")
    certificate, key = folder / "certificate", folder / "key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-subj", "/CN=log.example", "-addext", "subjectAltName=DNS:log.example", "-days", "2"]
    subprocess.run([*command, "-out", certificate, "-keyout", key], check=True, capture_output=True, timeout=60)
    return certificate, key


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("ca-file={ca}&server-name=log.example", None),
        ("verify=no", None),
        ("server-name=log.example", "self-signed certificate"),
        ("ca-file={ca}", "certificate is not valid for '127.0.0.1'"),
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_trust(options: str, said: str | None, certificate: tuple[Path, Path]) -> None:
    """A server with another certificate gets nothing; a working connection is kept."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with serving(context) as peer:
        sink = open_uri(f"https://127.0.0.1:{peer.port}?" + options.format(ca=certificate[0]))
        if said is None:
            assert sink.write(LINES) == sink.write(LINES) == 3
            assert len({asked.client for asked in peer.asked}) == 1
        else:
            with pytest.raises(OSError, match=said):
                sink.write(LINES)
            assert not peer.asked
        sink.close()
