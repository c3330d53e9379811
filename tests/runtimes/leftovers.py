# SPDX-License-Identifier: Apache-2.0
"""What runtimes leave behind: processes, mounts, cgroups and networks, found by this session's folder and names."""

import contextlib
import os
import signal
from pathlib import Path

from tests.harness.environment import attempts

from .commands import run

CGROUPS = Path("/sys/fs/cgroup")
PARENTS = (
    "docker",
    "libpod_parent",
    "conmon",
    "kubepods",
    "default",
    "k8s.io",
    "machine.slice",
    "lxc.pivot",
    "lxc.monitor.*",
    "lxc.payload.*",
)
"""Cgroups that the runtimes make at the root of a hierarchy, where no systemd keeps them."""
NETWORK_NAMESPACES = Path("/run/netns")
INTERFACES = Path("/sys/class/net")


def cgroups() -> set[Path]:
    """Those of PARENTS that exist."""
    roots = [CGROUPS, *(path for path in CGROUPS.iterdir() if path.is_dir() and (path / "cgroup.procs").exists())]
    return {path for root in roots for name in PARENTS for path in root.glob(name) if path.is_dir()}


def networks() -> set[Path]:
    """The network namespaces of pods, and the bridges of these tests."""
    return {*NETWORK_NAMESPACES.glob("cni-*"), *INTERFACES.glob("oomtrace-*")}


def remove_empty(parent: Path) -> None:
    """Remove a cgroup and those in it, as far as nobody is inside."""
    for folder, _, _ in os.walk(parent, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(folder)


def belongs(process: Path, folder: bytes) -> bool:
    """Whether the folder is in a process's command line or below its root directory, as that of a container is."""
    if folder in (process / "cmdline").read_bytes():
        return True
    lines = (process / "mountinfo").read_bytes().splitlines()
    return any(folder in line for line in lines if line.split()[4] == b"/")


def processes(folder: Path) -> dict[int, str]:
    """The processes that belong to the folder, and their names."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if belongs(entry, os.fsencode(folder)):
                    found[int(entry.name)] = (entry / "comm").read_text(errors="replace").strip()
    return found


def mounts(folder: Path) -> list[Path]:
    """Mount points below the folder, the innermost first."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    found = {Path(line.split()[1]) for line in lines}
    return sorted((path for path in found if path.is_relative_to(folder)), reverse=True)


class Leftovers:
    """Begins before the first runtime is started."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cgroups = cgroups()
        self._networks = networks()

    def find(self) -> list[str]:
        """What is there now that was not at the beginning; empty cgroups are removed first."""
        for parent in cgroups() - self._cgroups:
            remove_empty(parent)
        return [
            *(f"process {pid} {comm}" for pid, comm in processes(self._folder).items()),
            *(f"mount {path}" for path in mounts(self._folder)),
            *(f"cgroup {path}" for path in sorted(cgroups() - self._cgroups)),
            *(f"network {path}" for path in sorted(networks() - self._networks)),
        ]

    def clear(self) -> list[str]:
        """Give all of it a moment to go, then end and remove what is still there; that is returned."""
        left: list[str] = []
        for _ in attempts(5, pause=0.2):
            left = self.find()
            if not left:
                return []
        for pid in processes(self._folder):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for path in mounts(self._folder):
            run("umount", "--lazy", path, check=False)
        for path in networks() - self._networks:
            kind = "netns" if path.parent == NETWORK_NAMESPACES else "link"
            run("ip", kind, "delete", path.name, check=False)
        for _ in attempts(5, pause=0.2):
            if not self.find():
                break
        return left
