# SPDX-License-Identifier: Apache-2.0
"""Runs programs of Debian packages without installing them; some conflict with the machine's, or each other."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.environment import ROOT

FOLDER = ROOT / "build" / "collectors"
MERGED = ("bin", "sbin", "lib", "lib64")
"""Symbolic links into /usr; packages may still contain files there."""
RUN = """
for part in usr etc; do
    if [ -d "$0/$part" ]; then mount -t overlay -o "ro,lowerdir=$0/$part:/$part" overlay "/$part" || exit 125; fi
done
exec "$@"
"""


def unpacked(name: str, *packages: str) -> list[str]:
    """A command prefix that executes a command with these packages' files in /usr and /etc, in a mount namespace.

    The packages and their missing dependencies are downloaded once, into build/collectors/NAME.
    """
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / "packages"
        if not done.exists() or done.read_text() != " ".join(packages):
            _unpack(folder, packages)
            done.write_text(" ".join(packages))
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", RUN, str(folder / "root")]


def _unpack(folder: Path, packages: tuple[str, ...]) -> None:
    archives, root = folder / "archives", folder / "root"
    (archives / "partial").mkdir(parents=True, exist_ok=True)
    command = [
        "apt-get", "install", "-qq", "--yes", "--download-only", "--no-install-recommends",
        "-o", f"Dir::Cache::archives={archives}", "-o", "APT::Sandbox::User=root",
        "-o", "Debug::NoLocking=1", *packages,
    ]  # fmt: skip
    environment = {**os.environ, "LC_ALL": "C"}
    got = subprocess.run(command, capture_output=True, text=True, env=environment)
    if got.returncode:  # the package lists may be outdated
        subprocess.run(["apt-get", "update", "-qq"], capture_output=True, env=environment)
        got = subprocess.run(command, capture_output=True, text=True, env=environment)
    if got.returncode:
        pytest.fail(f"cannot download {' '.join(packages)}: {got.stderr or got.stdout}")
    for part in MERGED:
        (root / "usr" / part).mkdir(parents=True, exist_ok=True)
        if not (root / part).is_symlink():
            (root / part).symlink_to(f"usr/{part}")
    for archive in sorted(archives.glob("*.deb")):
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", archive], stdout=subprocess.PIPE) as files:
            subprocess.run(["tar", "-x", "--keep-directory-symlink", "-C", root], stdin=files.stdout, check=True)
        assert files.returncode == 0, archive


if __name__ == "__main__":
    name, *packages = sys.argv[1:]
    print(*unpacked(name, *packages))
