# SPDX-License-Identifier: Apache-2.0
"""tests/vm/debian.py: making a Debian leaves no mount of this machine's /proc in the build directory."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.environment import ROOT, require, wait_until

MOUNTS = """#!/bin/sh
mkdir -p "$1/proc" && mount --bind /proc "$1/proc" && grep -q " $1/proc " /proc/self/mounts && touch "$1/mounted"
exec sleep 600
"""
"""Replaces mmdebstrap during a package's script."""
MAKE = "import sys; from tests.vm.debian import mmdebstrap; mmdebstrap(sys.argv[1], stdin='')"


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGKILL])
def test_mounts_of_a_bootstrap(tmp_path: Path, by: signal.Signals) -> None:
    """When it is interrupted, its mounts were never visible here."""
    require(os.geteuid() == 0 and shutil.which("unshare"), "root, unshare")
    program = tmp_path / "mmdebstrap"
    program.write_text(MOUNTS)
    program.chmod(0o755)
    root = tmp_path / "root"
    root.mkdir()
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with subprocess.Popen(
        [sys.executable, "-c", MAKE, str(root)], cwd=ROOT, env=environment, start_new_session=True
    ) as process:
        wait_until("/proc is mounted", (root / "mounted").exists, 60)
        seen = str(tmp_path) in Path("/proc/self/mounts").read_text()
        process.send_signal(by)
        process.wait(60)
        os.killpg(process.pid, signal.SIGKILL)
    assert not seen
    shutil.rmtree(root)


def test_every_bootstrap() -> None:
    """mmdebstrap is started there only."""
    files = [*ROOT.glob("tests/**/*.py"), *ROOT.glob("vagrant/*.sh")]
    lines = [line for file in files if file != Path(__file__) for line in file.read_text().splitlines()]
    started = [line.strip() for line in lines if '"mmdebstrap"' in line or re.search(r"\bmmdebstrap --", line)]
    assert len(started) == 2
    assert all("unshare" in line for line in started), started
