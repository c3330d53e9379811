# SPDX-License-Identifier: Apache-2.0
"""LXC: a container has a name and a configuration file."""

from collections.abc import Sequence
from pathlib import Path

from tests.harness.cgroups import Hierarchy

from .commands import run
from .runtime import INIT, LIMIT_BYTES, Container, Description, Runtime, new_name

CONFIG = """
lxc.uts.name = {name}
lxc.rootfs.path = dir:{tree}
lxc.net.0.type = empty
lxc.apparmor.profile = unconfined
lxc.mount.auto = proc:mixed sys:ro
{limit}
"""
LIMITS = {1: "lxc.cgroup.memory.limit_in_bytes", 2: "lxc.cgroup2.memory.max"}


class Lxc(Runtime):
    kind = "lxc"
    programs = ("lxc-start", "lxc-attach", "lxc-info", "lxc-stop")

    def start(self) -> None:
        self.folder.mkdir()

    def stop(self) -> None:
        """Nothing to stop: LXC has no daemon."""

    def _lxc(self, verb: str, name: str, *arguments: str | Path, check: bool = True) -> str:
        return run(f"lxc-{verb}", "--lxcpath", self.folder, "--name", name, *arguments, check=check)

    def run(self) -> Container:
        name = new_name("lxc")
        config = self.folder / name / "config"
        config.parent.mkdir()
        limit = f"{LIMITS[Hierarchy.find().version]} = {LIMIT_BYTES}"
        config.write_text(CONFIG.format(name=name, tree=self.tree, limit=limit))
        self._lxc("start", name, "--daemon", "--logfile", config.with_name("log"), "--", *INIT)
        return Container(name, name, int(self._lxc("info", name, "--pid", "--no-humanize")))

    def execute(self, container: Container, command: Sequence[str]) -> None:
        self._lxc("attach", container.name, "--", *command, check=False)

    def describe(self, container: Container) -> Description:
        named = dict(line.split(":", 1) for line in self._lxc("info", container.name).splitlines() if ":" in line)
        name = named["Name"].strip()
        return Description({"id": name, "name": name, "image": None, "labels": None})

    def remove(self, container: Container) -> None:
        self._lxc("stop", container.name, "--kill", check=False)
