# SPDX-License-Identifier: Apache-2.0
"""In: the lists of packages below.  Out: build/vm/root.ext4, a small Debian 12 that every guest boots into.

python3 -m tests.vm.root                    build it, unless it is there and these lists are the same

Python packages that Debian 12 lacks, or has too old, lie in /opt/site of the image (build/vm/site here).
Needs root: mmdebstrap unpacks files of many owners.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from .debian import BUILD, LabError, output, sources
from .disks import write_ext4

IMAGE = BUILD / "root.ext4"
SITE = BUILD / "site"
SUITES = ["bookworm", "bookworm-updates", "bookworm-security"]
PYTHON = "3.11"
DEBIAN_PACKAGES = [
    "python3",
    "python3-bpfcc",
    "bpfcc-tools",
    "libbpf-tools",
    "bpftrace",
    "bpftool",
    "libbpf1",
    "procps",
    "kmod",
    "util-linux",
    "iproute2",
]
# typing_extensions: pip judges dependencies by the Python that runs it, and a newer one does not need it.
SITE_PACKAGES = ["typing_extensions", "orjson", "typer", "pyroute2", "pytest", "jsonschema", "hypothesis"]


def build() -> None:
    """Make the image, unless there is one made from the same lists; LabError when a tool or a mirror fails."""
    stamp = BUILD / "root.stamp"
    wanted = hashlib.sha256(json.dumps([SUITES, PYTHON, DEBIAN_PACKAGES, SITE_PACKAGES]).encode()).hexdigest()
    if IMAGE.exists() and stamp.exists() and stamp.read_text() == wanted:
        return
    if os.geteuid() != 0:
        raise LabError("building the guests' Debian needs root")
    BUILD.mkdir(parents=True, exist_ok=True)
    _install_site()
    with tempfile.TemporaryDirectory(dir=BUILD, prefix=".root-") as name:
        folder = Path(name) / "root"
        output(
            "mmdebstrap",
            "--variant=minbase",
            '--aptopt=APT::Install-Recommends "false"',
            *(f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("doc", "man", "locale", "info")),
            f"--include={','.join(DEBIAN_PACKAGES)}",
            f"--customize-hook=copy-in '{SITE}' /opt",
            # Byte code is made here once: guests forget what they compile.
            '--customize-hook=chroot "$1" python3 -m compileall -q -j0 /opt/site',
            SUITES[0],
            folder,
            stdin=sources(SUITES),
        )
        write_ext4(folder, IMAGE)
    stamp.write_text(wanted)


def _install_site() -> None:
    """Fill build/vm/site with wheels for the guest's Python, whatever Python runs here."""
    shutil.rmtree(SITE, ignore_errors=True)
    tags = ["--python-version", PYTHON, "--implementation", "cp", "--only-binary=:all:"]
    for glibc in ("manylinux2014", "manylinux_2_28"):
        tags += ["--platform", f"{glibc}_x86_64"]
    output(sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--target", SITE, *tags, *SITE_PACKAGES)


def main() -> int:
    try:
        build()
    except LabError as error:
        print(f"root: {error}", file=sys.stderr)
        return 1
    print(IMAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
