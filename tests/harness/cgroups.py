# SPDX-License-Identifier: Apache-2.0
"""Temporary cgroups, version 1 or 2, made below the root of the hierarchy and removed after the test."""

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from .environment import attempts


def as_text(name: bytes) -> str:
    """Bytes of a name as they are written in records."""
    return name.decode("utf-8", "backslashreplace")


@dataclass(frozen=True)
class Hierarchy:
    """A mounted cgroup hierarchy with a controller."""

    version: int
    controller: str
    mount: Path

    @classmethod
    def find(cls, controller: str = "memory") -> "Hierarchy":
        """The hierarchy of a controller; version 1 first, because a controller is in one hierarchy only.

        Raises LookupError if it is not mounted.
        """
        unified = None
        for line in Path("/proc/self/mounts").read_text().splitlines():
            _, where, kind, options, *_ = line.split()
            if kind == "cgroup" and controller in options.split(","):
                return cls(1, controller, Path(where))
            if kind == "cgroup2" and controller in Path(where, "cgroup.controllers").read_text().split():
                unified = cls(2, controller, Path(where))
        if unified is None:
            raise LookupError(f"no cgroup hierarchy with the {controller} controller is mounted")
        return unified

    def make(self, name: str) -> "Cgroup":
        """Make a cgroup below the root, with the controller enabled."""
        if self.version == 2:
            (self.mount / "cgroup.subtree_control").write_text(f"+{self.controller}")
        group = Cgroup(self, self.mount / name)
        group.path.mkdir()
        if (group.path / "memory.use_hierarchy").exists():  # cgroup v1 before Linux 5.11: off in the root
            group.write("memory.use_hierarchy", 1)
        return group


class Cgroup:
    """One cgroup."""

    def __init__(self, hierarchy: Hierarchy, path: Path) -> None:
        self.hierarchy = hierarchy
        self.path = path
        self.children: list[Cgroup] = []

    @property
    def name(self) -> str:
        """Its path from the root of the hierarchy, as in records."""
        return as_text(b"/" + os.fsencode(self.path.relative_to(self.hierarchy.mount)))

    def child(self, name: str | bytes, mib: int | None = None, *, swap: bool = False) -> "Cgroup":
        """Make a child cgroup, with a memory limit if ``mib`` is given, and without swap unless ``swap``."""
        if self.hierarchy.version == 2:
            self.write("cgroup.subtree_control", f"+{self.hierarchy.controller}")
        group = Cgroup(self.hierarchy, self.path / os.fsdecode(name))
        group.path.mkdir()
        self.children.append(group)
        if mib is not None:
            group.limit(mib << 20, swap=swap)
        return group

    def limit(self, size: int, *, swap: bool = False) -> None:
        """Limit memory to ``size`` bytes, swap not counted; without ``swap`` nothing is swapped out."""
        if self.hierarchy.version == 2:
            self.write("memory.max", size)
            if not swap and (self.path / "memory.swap.max").exists():
                self.write("memory.swap.max", 0)
        else:
            self.write("memory.limit_in_bytes", size)
            if not swap:
                self.write("memory.swappiness", 0)

    def write(self, file: str, value: object) -> None:
        (self.path / file).write_text(f"{value}\n")

    def read(self, file: str) -> str:
        return (self.path / file).read_text().strip()

    def counters(self, file: str) -> dict[str, int]:
        """A file of ``name number`` lines, such as memory.events, memory.stat and version 1's memory.oom_control."""
        return {name: int(value) for name, value in (line.split() for line in self.read(file).splitlines())}

    def oom_kills(self) -> int:
        """The kernel's count of kills in this cgroup; version 2 includes its descendants."""
        return self.counters("memory.events" if self.hierarchy.version == 2 else "memory.oom_control")["oom_kill"]

    def usage(self) -> int:
        return int(self.read("memory.current" if self.hierarchy.version == 2 else "memory.usage_in_bytes"))

    def processes(self) -> list[int]:
        return [int(pid) for pid in self.read("cgroup.procs").split()]

    def remove(self) -> None:
        """Kill its processes, and remove this cgroup and its children."""
        for group in self.children:
            group.remove()
        for _ in attempts():
            for pid in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(OSError):  # EBUSY until the last process has exited
                self.path.rmdir()
                return
        self.path.rmdir()
