# SPDX-License-Identifier: Apache-2.0
"""systemd-nspawn: registered with systemd-machined if it runs, else in a memory cgroup of the same name."""

import contextlib
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.harness.cgroups import Cgroup, Hierarchy
from tests.harness.environment import attempts, wait_until

from .commands import ENVIRONMENT, READY_S, run
from .runtime import INIT, LIMIT_BYTES, SYSTEMD, Container, Description, Runtime, new_name


class Nspawn(Runtime):
    kind = "systemd-nspawn"
    programs = ("systemd-nspawn", "nsenter")

    def __init__(self, folder: Path, tree: Path, archive: Path) -> None:
        super().__init__(folder, tree, archive)
        self._hierarchy = Hierarchy.find()
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        self.folder.mkdir()

    def stop(self) -> None:
        """Kill containers that did not start; there is no daemon."""
        for process in self._running.values():
            process.kill()
            process.wait()

    def _cgroup(self, name: str) -> Cgroup:
        escaped = name.replace("-", "\\x2d")
        return Cgroup(self._hierarchy, self._hierarchy.mount / f"machine.slice/machine-{escaped}.scope/payload")

    def run(self) -> Container:
        name = new_name("nspawn")
        command: list[str | Path] = ["systemd-nspawn", "--quiet", "--read-only", "--directory", self.tree]
        command += ["--machine", name, "--private-network"]
        if SYSTEMD:
            command += [f"--property=MemoryMax={LIMIT_BYTES}", "--property=MemorySwapMax=0"]
        else:
            group = self._cgroup(name)
            group.path.mkdir(parents=True)
            group.limit(LIMIT_BYTES)
            command = [
                *("sh", "-c", 'echo $$ > "$0/cgroup.procs"; exec "$@"', group.path),
                *(*command, "--register=no", "--keep-unit"),
            ]
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [*command, "--", *INIT], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=ENVIRONMENT
            )
        self._running[name] = process
        wait_until(f"the init of {name}", lambda: self._init(process.pid), READY_S)
        return Container(name, name, self._init(process.pid))

    @staticmethod
    def _init(pid: int) -> int:
        """Pid of nspawn's child that is PID 1 of the container, once it runs INIT; 0 before."""
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            with contextlib.suppress(OSError):  # nspawn's short-lived children
                if Path(f"/proc/{child}/cmdline").read_bytes().startswith(INIT[0].encode()):
                    return int(child)
        return 0

    def execute(self, container: Container, command: Sequence[str]) -> None:
        inside = ("nsenter", "--target", str(container.pid), "--mount", "--uts", "--ipc", "--net", "--pid", *command)
        group = self._hierarchy.mount / container.cgroup.lstrip("/")
        run("sh", "-c", 'echo $$ > "$0/cgroup.procs"; exec "$@"', group, *inside, check=False)

    def describe(self, container: Container) -> Description:
        name = container.name
        if SYSTEMD:
            name = run("machinectl", "show", container.name, "--property=Name", "--value")
        # Its id is the name, as spelled in the cgroup.
        return Description({"name": name, "image": None, "labels": None})

    def remove(self, container: Container) -> None:
        process = self._running.pop(container.name)
        process.kill()
        process.wait()
        if SYSTEMD:
            run("machinectl", "terminate", container.name, check=False)
            return
        group = self._cgroup(container.name)
        group.remove()
        for folder in (group.path.parent, group.path.parent.parent):
            for _ in attempts(1):
                try:
                    folder.rmdir()
                    break
                except OSError:
                    continue
