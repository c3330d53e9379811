# SPDX-License-Identifier: Apache-2.0
"""A certificate authority for one test, and certificates of it for localhost."""

import subprocess
from pathlib import Path
from typing import NamedTuple


class Certificates(NamedTuple):
    """PEM files."""

    authority: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path
    stranger: Path
    """Certificate of another authority, which has signed none of these."""


def make(folder: Path) -> Certificates:
    authority, authority_key = _self_signed(folder, "authority")
    stranger, _ = _self_signed(folder, "stranger")
    server, server_key = _signed(folder, "server", authority, authority_key)
    client, client_key = _signed(folder, "client", authority, authority_key)
    return Certificates(authority, server, server_key, client, client_key, stranger)


def _self_signed(folder: Path, name: str) -> tuple[Path, Path]:
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    # Python 3.13 verifies strictly (RFC 5280) and requires keyUsage and the key identifiers.
    _openssl(
        "req", "-x509", *_new(name, key), "-addext", "keyUsage=critical,keyCertSign", "-days", "2", "-out", certificate
    )
    return certificate, key


def _signed(folder: Path, name: str, authority: Path, authority_key: Path) -> tuple[Path, Path]:
    certificate, key, request, names = (folder / f"{name}.{end}" for end in ("pem", "key", "csr", "names"))
    names.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nauthorityKeyIdentifier=keyid\n")
    _openssl("req", *_new(name, key), "-out", request)
    _openssl(
        "x509", "-req", "-in", request, "-CA", authority, "-CAkey", authority_key, "-CAcreateserial", "-days", "2",
        "-extfile", names, "-out", certificate,
    )  # fmt: skip
    return certificate, key


def _new(name: str, key: Path) -> list[str | Path]:
    return [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-subj",
        f"/CN={name}",
        "-keyout",
        key,
    ]


def _openssl(*arguments: str | Path) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
