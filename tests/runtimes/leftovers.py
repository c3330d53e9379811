# SPDX-License-Identifier: Apache-2.0
"""Finds what runtimes leave behind: processes, mounts, cgroups and networks of this session's directory."""

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
"""Cgroups that the runtimes make at the root of a hierarchy without systemd."""
NETWORK_NAMESPACES = Path("/run/netns")
INTERFACES = Path("/sys/class/net")


def cgroups() -> set[Path]:
    """The existing cgroups of PARENTS."""
    roots = [CGROUPS, *(path for path in CGROUPS.iterdir() if path.is_dir() and (path / "cgroup.procs").exists())]
    return {path for root in roots for name in PARENTS for path in root.glob(name) if path.is_dir()}


def networks() -> set[Path]:
    """Network namespaces of pods, and bridges of these tests."""
    return {*NETWORK_NAMESPACES.glob("cni-*"), *INTERFACES.glob("oomtrace-*")}


def remove_empty(parent: Path) -> None:
    """Remove a cgroup and its children, as far as they have no processes."""
    for folder, _, _ in os.walk(parent, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(folder)


def belongs(process: Path, folder: bytes) -> bool:
    """Whether a process has the directory in its command line, or its root directory below it."""
    if folder in (process / "cmdline").read_bytes():
        return True
    lines = (process / "mountinfo").read_bytes().splitlines()
    return any(folder in line for line in lines if line.split()[4] == b"/")


def processes(folder: Path) -> dict[int, str]:
    """Pid -> comm of the processes that use the directory."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if belongs(entry, os.fsencode(folder)):
                    found[int(entry.name)] = (entry / "comm").read_text(errors="replace").strip()
    return found


def mounts(folder: Path) -> list[Path]:
    """Mount points below the directory, the innermost first."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    found = {Path(line.split()[1]) for line in lines}
    return sorted((path for path in found if path.is_relative_to(folder)), reverse=True)


class Leftovers:
    """Compares the host with its state before the first runtime is started."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cgroups = cgroups()
        self._networks = networks()

    def find(self) -> list[str]:
        """What exists now and did not at the beginning, after removal of empty cgroups."""
        for parent in cgroups() - self._cgroups:
            remove_empty(parent)
        return [
            *(f"process {pid} {comm}" for pid, comm in processes(self._folder).items()),
            *(f"mount {path}" for path in mounts(self._folder)),
            *(f"cgroup {path}" for path in sorted(cgroups() - self._cgroups)),
            *(f"network {path}" for path in sorted(networks() - self._networks)),
        ]

    def clear(self) -> list[str]:
        """Wait briefly, then kill and remove what is left; what that was."""
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
