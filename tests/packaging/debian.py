# SPDX-License-Identifier: Apache-2.0
"""Makes a root file system of a Debian release, in which a command has run with the package."""

import shutil
import tempfile
from pathlib import Path

from tests.vm.debian import mmdebstrap, sources

SUITES = {
    "12": ("bookworm", "bookworm-updates", "bookworm-security"),
    "stable": ("stable",),
}
UNWANTED = ("doc", "man", "locale", "info")
"""Directories below /usr/share that Debian's slim images lack."""


def bootstrap(suites: tuple[str, ...], target: Path, deb: Path, command: str) -> Path:
    """A minimal Debian as a directory or an archive, after a shell command with the package in /dist.

    Raises LabError where that fails.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "dist").mkdir()
        shutil.copy(deb, folder / "dist" / deb.name)
        (folder / "command").write_text(command)
        mmdebstrap(
            "--variant=minbase",
            *(f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in UNWANTED),
            f"--customize-hook=copy-in '{folder}/dist' /",
            f"--customize-hook=chroot \"$1\" sh -eu <'{folder}/command'",
            '--customize-hook=rm -r "$1/dist"',
            suites[0],
            target,
            "-",  # reads the apt sources from standard input
            stdin=sources(suites),
        )
    return target
