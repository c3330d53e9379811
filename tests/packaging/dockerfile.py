# SPDX-License-Identifier: Apache-2.0
"""Makes the image of deploy/container/Dockerfile from the package, without a registry.

Its base image is made by mmdebstrap.
"""

import hashlib
import json
import re
import tempfile
from pathlib import Path

from tests.harness.environment import ROOT

from .debian import SUITES, bootstrap

DOCKERFILE = ROOT / "deploy/container/Dockerfile"
BASE = "debian:stable-slim"
RUN = re.compile(r"--mount=type=bind,source=dist,target=/dist\s+(.*)", re.DOTALL)


def instructions() -> list[tuple[str, str]]:
    """Keyword and arguments of each instruction, with continuation lines joined."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    text = "\n".join(lines).replace("\\\n", " ")
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in text.splitlines() if line.strip()]


def import_options() -> list[str]:
    """Options of ``docker import``."""
    kept = [(keyword, rest) for keyword, rest in instructions() if keyword in ("ENTRYPOINT", "CMD", "ENV")]
    assert {keyword for keyword, _ in instructions()} <= {"FROM", "RUN", "ENTRYPOINT", "CMD", "ENV"}
    assert isinstance(json.loads(dict(kept)["ENTRYPOINT"]), list), "not in a shell, which would not forward signals"
    return [f"--change={keyword} {rest}" for keyword, rest in kept]


def archive(deb: Path) -> Path:
    """The image's root file system, cached by package and Dockerfile."""
    made = ROOT / "build/container/image.tar"
    stamp = made.with_suffix(".stamp")
    digest = hashlib.sha256(deb.read_bytes() + DOCKERFILE.read_bytes()).hexdigest()
    if not made.exists() or not stamp.exists() or stamp.read_text() != digest:
        made.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=made.parent) as name:
            _build(deb, Path(name)).rename(made)
        stamp.write_text(digest)
    return made


def _build(deb: Path, folder: Path) -> Path:
    (base,) = (rest for keyword, rest in instructions() if keyword == "FROM")
    assert base == BASE
    (run,) = (rest for keyword, rest in instructions() if keyword == "RUN")
    found = RUN.fullmatch(run)
    assert found
    return bootstrap(SUITES["stable"], folder / "image.tar", deb, found[1])
