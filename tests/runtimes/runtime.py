# SPDX-License-Identifier: Apache-2.0
"""The interface of all container runtimes for the tests."""

import itertools
import os
import re
import signal
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.harness.cgroups import Hierarchy
from tests.harness.environment import MIB, wait_until
from tracer.identity.cgroup_path import parse_proc_cgroup

from .commands import run
from .image import NEVER

LIMIT_BYTES = 32 * MIB
"""Enough for runc to start; EAT allocates three times as much."""

EAT = ("/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=96M", "count=1")
EATER = "dd"

_eat = " ".join(EAT)
INIT = ("/bin/sh", "-c", f"trap 'exec {_eat}' USR1; trap '{_eat}' USR2; while :; do read _ <>/{NEVER}; done")
"""A container's PID 1: on SIGUSR1 it allocates itself, on SIGUSR2 in a child.

It waits without a child process: forking before a victim's memory is freed, it would be killed, too.
"""

SHORT_LIVED = ("/bin/sh", "-c", f"/bin/sleep 0.2; exec {_eat}")
"""A container's PID 1 that allocates and is OOM killed right after its start."""

SYSTEMD = Path("/run/systemd/system").is_dir()
"""Whether systemd manages this host."""

Fields = dict[str, Any]

_numbers = itertools.count(1)


def new_name(kind: str) -> str:
    """A container name that is unique on this host."""
    return f"oomtrace-{kind}-{os.getpid()}-{next(_numbers)}"


def unit_of(pid: int) -> str | None:
    """The systemd unit of a process, from ps, which uses libsystemd."""
    unit = run("ps", "-o", "unit:256=", "-p", str(pid)) if SYSTEMD else "-"
    return None if unit == "-" else unit


@dataclass(frozen=True)
class Description:
    """A runtime's description of a container, with the fields of records."""

    container: Fields
    kubernetes: Fields | None = None


@dataclass
class Container:
    """A running container whose PID 1 runs INIT."""

    id: str
    name: str
    pid: int
    sandbox: str | None = None

    def __post_init__(self) -> None:
        cgroup = parse_proc_cgroup(Path(f"/proc/{self.pid}/cgroup").read_text())
        assert cgroup is not None
        self.cgroup = cgroup
        self.unit = unit_of(self.pid)
        wait_until(f"the signal handlers of {self.name}", self._is_ready)

    def _is_ready(self) -> bool:
        # Until it executes INIT it may still be the runtime's program, which catches all signals.
        if Path(f"/proc/{self.pid}/cmdline").read_bytes().split(b"\0")[:-1] != [word.encode() for word in INIT]:
            return False
        status = Path(f"/proc/{self.pid}/status").read_text()
        caught = int(re.findall(r"^SigCgt:\s*(\w+)$", status, re.MULTILINE)[0], 16)
        return bool(caught >> (signal.SIGUSR2 - 1) & 1)

    def holds(self, cgroup: str) -> bool:
        """Whether a memory cgroup is the container's or a child of it (LXC, podman with crun)."""
        return f"{self.cgroup}/".startswith(f"{cgroup}/") or cgroup.startswith(f"{self.cgroup}/")

    def eat_in_init(self) -> None:
        """Get the container's PID 1 OOM killed."""
        os.kill(self.pid, signal.SIGUSR1)

    def eat_in_child(self) -> None:
        """Get a child of the container's PID 1 OOM killed."""
        os.kill(self.pid, signal.SIGUSR2)

    def lives(self) -> bool:
        return Path(f"/proc/{self.pid}").exists()

    def group_kill(self, hierarchy: Hierarchy) -> None:
        """Set memory.oom.group; cgroup v2 only."""
        group = hierarchy.mount / self.cgroup.lstrip("/")
        while (group / "memory.max").read_text().strip() == "max":
            group = group.parent
        (group / "memory.oom.group").write_text("1")


class Runtime(ABC):
    """A container runtime with its state below ``folder``."""

    kind: str
    """Its name in records."""

    programs: tuple[str, ...] = ()
    """Programs that it needs."""

    keeps_verdicts = False
    """Whether all versions keep the verdict of an exited container in files."""

    def __init__(self, folder: Path, tree: Path, archive: Path) -> None:
        self.folder = folder
        self.tree = tree
        self.archive = archive

    def roots(self) -> dict[str, Path]:
        """Its directories, by the names of ``--runtime-root``."""
        return {}

    @abstractmethod
    def start(self) -> None:
        """Start its daemons, and load the image."""

    @abstractmethod
    def stop(self) -> None:
        """Stop its daemons; its containers are removed before."""

    @abstractmethod
    def run(self) -> Container:
        """Start a container with a limit of LIMIT_BYTES."""

    @abstractmethod
    def execute(self, container: Container, command: Sequence[str]) -> None:
        """Run a command in the container with the runtime's exec, and wait."""

    @abstractmethod
    def describe(self, container: Container) -> Description:
        """The runtime's description of a running container."""

    def verdict(self, container: Container) -> Fields | None:
        """``oom_killed`` and ``exit_code``, if the runtime has a verdict."""
        return None

    @abstractmethod
    def remove(self, container: Container) -> None:
        """Remove it, running or not."""
