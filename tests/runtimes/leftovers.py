# SPDX-License-Identifier: Apache-2.0
"""What runtimes leave behind: processes, mounts and cgroups, found by the folder and the names of this session."""

import contextlib
import os
import signal
from pathlib import Path

from tests.kernel.environment import attempts

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


def own_parents() -> set[Path]:
    """Those that exist."""
    roots = [CGROUPS, *(path for path in CGROUPS.iterdir() if path.is_dir() and (path / "cgroup.procs").exists())]
    return {path for root in roots for name in PARENTS for path in root.glob(name) if path.is_dir()}


def remove_empty(parent: Path) -> None:
    """Remove a cgroup and those in it, as far as nobody is inside."""
    for folder, _, _ in os.walk(parent, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(folder)


def processes(folder: Path) -> list[tuple[int, str]]:
    """Processes whose command line names the folder, but for this one."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes()
                if os.fsencode(folder) in command:
                    found.append((int(entry.name), command.replace(b"\0", b" ").decode(errors="replace")))
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
        self._parents = own_parents()

    def find(self) -> list[str]:
        """What is there now that was not at the beginning; empty cgroups are removed first."""
        for parent in own_parents() - self._parents:
            remove_empty(parent)
        return [
            *(f"process {pid}: {command}" for pid, command in processes(self._folder)),
            *(f"mount {path}" for path in mounts(self._folder)),
            *(f"cgroup {path}" for path in sorted(own_parents() - self._parents)),
        ]

    def clear(self) -> list[str]:
        """Give all of it a moment to go, then end and unmount what is still there; that is returned."""
        left: list[str] = []
        for _ in attempts(5, pause=0.2):
            left = self.find()
            if not left:
                return []
        for pid, _ in processes(self._folder):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for path in mounts(self._folder):
            os.system(f"umount --lazy '{path}'")  # noqa: S605 - a path of ours
        self.find()
        return left
