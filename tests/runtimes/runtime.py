# SPDX-License-Identifier: Apache-2.0
"""What the tests ask of a container runtime, whichever it is."""

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
"""Enough for runc's own start; what EAT asks for is three times as much."""

EAT = ("/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=96M", "count=1")
EATER = "dd"

_eat = " ".join(EAT)
INIT = ("/bin/sh", "-c", f"trap 'exec {_eat}' USR1; trap '{_eat}' USR2; while :; do read _ <>/{NEVER}; done")
"""A container's PID 1: on SIGUSR1 it eats itself, on SIGUSR2 a child of it does.

It waits without a child: if it forked while what a victim had is not yet free, the kernel would kill it, too.
"""

SHORT_LIVED = ("/bin/sh", "-c", f"/bin/sleep 0.2; exec {_eat}")
"""A container's PID 1 that is killed by itself, right after the start."""

SYSTEMD = Path("/run/systemd/system").is_dir()
"""Whether systemd manages this host."""

Facts = dict[str, Any]

_numbers = itertools.count(1)


def new_name(kind: str) -> str:
    """A name that no other container on this host has."""
    return f"oomtrace-{kind}-{os.getpid()}-{next(_numbers)}"


def unit_of(pid: int) -> str | None:
    """The systemd unit of a process, as systemd's own library tells ps."""
    unit = run("ps", "-o", "unit:256=", "-p", str(pid)) if SYSTEMD else "-"
    return None if unit == "-" else unit


@dataclass(frozen=True)
class Told:
    """What a runtime says of a container, under the names that records use."""

    container: Facts
    kubernetes: Facts | None = None


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
        wait_until(f"the init of {self.name} catches signals", self._is_ready)

    def _is_ready(self) -> bool:
        # Until it executes INIT it may still be the runtime's own program, which catches all signals.
        if Path(f"/proc/{self.pid}/cmdline").read_bytes().split(b"\0")[:-1] != [word.encode() for word in INIT]:
            return False
        status = Path(f"/proc/{self.pid}/status").read_text()
        caught = int(re.findall(r"^SigCgt:\s*(\w+)$", status, re.MULTILINE)[0], 16)
        return bool(caught >> (signal.SIGUSR2 - 1) & 1)

    def holds(self, cgroup: str) -> bool:
        """Whether a memory cgroup is the container's; its processes may be deeper down (LXC, podman with crun)."""
        return f"{self.cgroup}/".startswith(f"{cgroup}/") or cgroup.startswith(f"{self.cgroup}/")

    def eat_in_init(self) -> None:
        """Let the container's PID 1 be killed."""
        os.kill(self.pid, signal.SIGUSR1)

    def eat_in_child(self) -> None:
        """Let a child of the container's PID 1 be killed."""
        os.kill(self.pid, signal.SIGUSR2)

    def lives(self) -> bool:
        return Path(f"/proc/{self.pid}").exists()

    def group_kill(self, hierarchy: Hierarchy) -> None:
        """Let the kernel kill all of it at once; cgroup v2 only."""
        group = hierarchy.mount / self.cgroup.lstrip("/")
        while (group / "memory.max").read_text().strip() == "max":
            group = group.parent
        (group / "memory.oom.group").write_text("1")


class Runtime(ABC):
    """A container runtime with state of its own below `folder`."""

    kind: str
    """How records name it."""

    programs: tuple[str, ...] = ()
    """Programs without which it cannot be tested."""

    keeps_verdicts = False
    """Whether its files tell how a container ended, in all of its versions."""

    def __init__(self, folder: Path, tree: Path, archive: Path) -> None:
        self.folder = folder
        self.tree = tree
        self.archive = archive

    def roots(self) -> dict[str, Path]:
        """Where it keeps its files, by the names of `--runtime-root`."""
        return {}

    @abstractmethod
    def start(self) -> None:
        """Start what it needs, and load the image."""

    @abstractmethod
    def stop(self) -> None:
        """Stop it; its containers are gone."""

    @abstractmethod
    def run(self) -> Container:
        """A new container with LIMIT_BYTES of memory."""

    @abstractmethod
    def execute(self, container: Container, command: Sequence[str]) -> None:
        """Run a command in the container until it ends, as a user of this runtime does."""

    @abstractmethod
    def told(self, container: Container) -> Told:
        """What the runtime says while the container runs."""

    def verdict(self, container: Container) -> Facts | None:
        """`oom_killed` and `exit_code`, where the runtime judges that."""
        return None

    @abstractmethod
    def remove(self, container: Container) -> None:
        """Remove it, dead or alive."""
