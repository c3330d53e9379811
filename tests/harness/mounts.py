# SPDX-License-Identifier: Apache-2.0
"""Mounts file systems that a minimal system may lack: ``python -m tests.harness.mounts``, as root."""

import subprocess
from pathlib import Path

NEEDED = {"tracefs": "/sys/kernel/tracing", "bpf": "/sys/fs/bpf"}


def mount_missing() -> None:
    """Mount each file system of NEEDED unless it is mounted."""
    mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for kind, where in NEEDED.items():
        if [where, kind] not in mounts:
            subprocess.run(["mount", "-t", kind, kind, where], check=True)


if __name__ == "__main__":
    mount_missing()
