# SPDX-License-Identifier: Apache-2.0
"""podman: without a daemon, but with a conmon per container."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.harness.cgroups import Hierarchy
from tests.harness.environment import wait_until

from . import image
from .commands import COMMAND_S, ask, run
from .leftovers import processes
from .runtime import INIT, LIMIT_BYTES, SYSTEMD, Container, Description, Fields, Runtime, new_name


class Podman(Runtime):
    kind = "podman"
    programs = ("podman", "conmon")
    keeps_verdicts = True

    def __init__(self, folder: Path, tree: Path, archive: Path) -> None:
        super().__init__(folder, tree, archive)
        # crun rejects hosts with controllers in both cgroup v1 and v2.
        self._oci_runtime = "crun" if Hierarchy.find().version == 2 else "runc"

    def roots(self) -> dict[str, Path]:
        return {"containers-storage": self.folder / "root"}

    def start(self) -> None:
        self.folder.mkdir()
        self.podman("load", "--input", self.archive)

    def stop(self) -> None:
        """Unmount the storage, which conmon's cleanup may leave mounted; there is no daemon."""
        wait_until("conmon's cleanups have ended", lambda: not processes(self.folder), COMMAND_S)
        self.podman("ps", "--all")

    def podman(self, *arguments: str | Path, check: bool = True) -> str:
        # Old conmons create an empty file `oom` in the working directory.
        return run(*self.command(*arguments), check=check, cwd=self.folder)

    def command(self, *arguments: str | Path) -> list[str | Path]:
        return [
            *("podman", "--root", self.folder / "root", "--runroot", self.folder / "run"),
            *("--tmpdir", self.folder / "tmp", "--storage-driver", "overlay"),
            *("--runtime", self._oci_runtime, "--runtime-flag", f"root={self.folder}/oci"),
            *("--cgroup-manager", "systemd" if SYSTEMD else "cgroupfs", "--events-backend", "file"),
            *arguments,
        ]

    def arguments(self, name: str) -> list[str | Path]:
        """Arguments of ``podman run`` before the command."""
        limit = ("--memory", str(LIMIT_BYTES), "--memory-swap", str(LIMIT_BYTES))
        # podman raises these limits, which needs CAP_SYS_RESOURCE.
        ulimits = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096")
        label = ("--label", f"org.example.name={name}")
        return ["--name", name, "--network", "none", *label, *limit, *ulimits, image.REFERENCE]

    def run(self) -> Container:
        name = new_name("podman")
        id_ = self.podman("run", "--detach", *self.arguments(name), *INIT)
        return Container(id_, name, int(self._inspect(id_)["State"]["Pid"]))

    def execute(self, container: Container, command: Sequence[str]) -> None:
        self.podman("exec", container.id, *command, check=False)

    def describe(self, container: Container) -> Description:
        answer = self._inspect(container.id)
        return Description(
            {
                "id": answer["Id"],
                "name": answer["Name"],
                "image": answer["ImageName"],
                "labels": answer["Config"]["Labels"],
            },
        )

    def verdict(self, container: Container) -> Fields:
        state = self._inspect(container.id)["State"]
        return {"oom_killed": state["OOMKilled"], "exit_code": state["ExitCode"]}

    def remove(self, container: Container) -> None:
        self.podman("rm", "--force", "--time", "0", container.id)

    def _inspect(self, id_: str) -> Any:
        return ask(*self.command("inspect", "--type", "container", id_), cwd=self.folder)[0]

    def created(self) -> dict[str, Fields]:
        """Id -> fields of all containers, from podman's ``create`` events."""
        lines = self.podman("events", "--stream=false", "--filter", "event=create", "--format", "json").splitlines()
        return {event["ID"]: {"name": event["Name"], "image": event["Image"]} for event in map(json.loads, lines)}
