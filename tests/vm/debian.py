# SPDX-License-Identifier: Apache-2.0
"""Finds Debian mirrors in this machine's apt configuration, and runs a private apt for any Debian suite.

The suites needed here are mostly not those of this machine (which may be Ubuntu), so the system's apt
lists, preferences and package states must neither be read nor changed.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

BUILD = Path(__file__).resolve().parents[2] / "build" / "vm"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class LabError(Exception):
    """The lab cannot be built or used on this machine; the message has the reason."""


@cache
def mirrors() -> tuple[str, str]:
    """URIs of the archive and of the security archive.

    $OOMTRACE_DEBIAN_MIRROR has precedence, for machines that do not run Debian.
    """
    if chosen := os.environ.get("OOMTRACE_DEBIAN_MIRROR"):
        return chosen.rstrip("/"), chosen.rstrip("/") + "-security"
    listing = output(
        "apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages", "Origin: Debian"
    )
    archive, security = "", ""
    for uri, release in map(str.split, listing.splitlines()):
        if release.endswith("-security"):
            security = security or uri.rstrip("/")
        elif "-" not in release:
            archive = archive or uri.rstrip("/")
    if not archive:
        raise LabError(
            "apt knows no Debian mirror: run apt-get update, or set OOMTRACE_DEBIAN_MIRROR to the URI of one"
        )
    return archive, security or archive + "-security"


def sources(suites: Sequence[str], arch: str = "amd64") -> str:
    """Lines of a sources.list for these suites, signed with Debian's keys."""
    if not KEYRING.exists():
        raise LabError(f"{KEYRING} is missing: install debian-archive-keyring")
    archive, security = mirrors()
    return "".join(
        f"deb [arch={arch} signed-by={KEYRING}] {security if suite.endswith('-security') else archive} {suite} main\n"
        for suite in suites
    )


def output(*command: str | Path, cwd: Path | None = None, stdin: str = "") -> str:
    """Run a command; its standard output.

    Raises LabError with its stderr if it fails.
    """
    try:
        done = subprocess.run(command, cwd=cwd, input=stdin, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise LabError(f"{error.filename} is missing: see docs/testing.md for the packages needed") from error
    if done.returncode:
        raise LabError(f"{' '.join(map(str, command))}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def mmdebstrap(*arguments: str | Path, stdin: str) -> str:
    """Make a root file system.

    It mounts this machine's /proc, /sys and /dev in a mount namespace: after an interruption, copying or removing the
    directory does not reach into the machine.
    """
    return output("unshare", "--mount", "--propagation", "private", "mmdebstrap", *arguments, stdin=stdin)


class Apt:
    """apt-get and apt-cache with a separate root in a directory, where no package is installed."""

    def __init__(self, folder: Path, suites: Sequence[str], pins: str = "", arch: str = "amd64") -> None:
        for sub in ("state/lists/partial", "cache/archives/partial"):
            (folder / sub).mkdir(parents=True, exist_ok=True)
        (folder / "status").touch()
        self._archives = folder / "cache" / "archives"
        (folder / "sources.list").write_text(sources(suites, arch))
        (folder / "preferences").write_text(pins)
        self._options = [
            f"-oDir::State={folder}/state",
            f"-oDir::State::status={folder}/status",
            f"-oDir::Cache={folder}/cache",
            f"-oDir::Etc::sourcelist={folder}/sources.list",
            "-oDir::Etc::sourceparts=-",
            f"-oDir::Etc::preferences={folder}/preferences",
            "-oDir::Etc::preferencesparts=-",
            f"-oAPT::Architecture={arch}",
            f"-oAPT::Architectures={arch}",
            # The user _apt cannot write below a home directory, of which apt would warn.
            "-oAPT::Sandbox::User=root",
            "-oAPT::Update::Post-Invoke-Success=",
            "-oAcquire::Languages=none",
        ]
        output("apt-get", *self._options, "-qq", "update")

    def cache(self, *words: str) -> str:
        return output("apt-cache", *self._options, *words)

    def download(self, packages: Sequence[str], folder: Path) -> list[Path]:
        """Download the candidate versions of packages; apt verifies them against the signed index."""
        folder.mkdir(parents=True, exist_ok=True)
        output("apt-get", *self._options, "-qq", "download", *packages, cwd=folder)
        return sorted(folder.glob("*.deb"))

    def download_all(self, packages: Sequence[str]) -> list[Path]:
        """Download packages with all dependencies, as if nothing were installed."""
        options = ("-oAPT::Install-Recommends=false", "-oDebug::NoLocking=1")
        output("apt-get", *self._options, *options, "-qq", "--yes", "--download-only", "install", *packages)
        return sorted(self._archives.glob("*.deb"))
