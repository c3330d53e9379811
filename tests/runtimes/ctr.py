# SPDX-License-Identifier: Apache-2.0
"""containerd's containers, made with ctr: the user chooses their ids."""

import json
from collections.abc import Sequence
from pathlib import Path

from . import image
from .containerd import Containerd
from .runtime import INIT, LIMIT_BYTES, Container, Description, Runtime, new_name

NAMESPACE = "default"


class Ctr(Runtime):
    kind = "containerd"
    programs = ("containerd", "ctr", "runc")

    def __init__(self, folder: Path, tree: Path, archive: Path, containerd: Containerd) -> None:
        super().__init__(folder, tree, archive)
        self._containerd = containerd

    def roots(self) -> dict[str, Path]:
        return {"containerd": self._containerd.state, "containerd-root": self._containerd.root}

    def start(self) -> None:
        self._containerd.start()

    def stop(self) -> None:
        """Nothing to stop: containerd is shared."""

    def ctr(self, *arguments: str | Path, check: bool = True) -> str:
        return self._containerd.ctr(NAMESPACE, *arguments, check=check)

    def run(self) -> Container:
        name = new_name("ctr")
        options = ("--detach", "--null-io", "--memory-limit", str(LIMIT_BYTES), "--label", "org.example.team=shop")
        self.ctr("run", *options, "--runc-root", self._containerd.state / "runc", image.REFERENCE, name, *INIT)
        tasks = {task: int(pid) for task, pid, _ in map(str.split, self.ctr("task", "list").splitlines()[1:])}
        return Container(name, name, tasks[name])

    def execute(self, container: Container, command: Sequence[str]) -> None:
        self.ctr("task", "exec", "--exec-id", new_name("exec"), container.id, *command, check=False)

    def describe(self, container: Container) -> Description:
        answer = json.loads(self.ctr("container", "info", container.id))
        assert answer["Labels"].items() > image.LABELS.items()
        return Description(
            {"id": answer["ID"], "name": answer["ID"], "image": answer["Image"], "labels": answer["Labels"]}
        )

    def remove(self, container: Container) -> None:
        self.ctr("task", "delete", "--force", container.id, check=False)
        self.ctr("container", "delete", container.id)
