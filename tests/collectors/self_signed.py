# SPDX-License-Identifier: Apache-2.0
"""A certificate of 127.0.0.1 that is its own authority."""

import subprocess
from pathlib import Path
from typing import NamedTuple


class SelfSigned(NamedTuple):
    certificate: Path
    key: Path


def self_signed(folder: Path, name: str) -> SelfSigned:
    """Made by openssl in ``folder``, valid for two days."""
    made = SelfSigned(folder / f"{name}.crt", folder / f"{name}.key")
    what = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    whose = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", *what, *whose, "-keyout", str(made.key), "-out", str(made.certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return made
