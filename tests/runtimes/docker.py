# SPDX-License-Identifier: Apache-2.0
"""Docker: dockerd on a shared containerd."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import image
from .commands import Service, ask, run
from .containerd import Containerd
from .runtime import INIT, LIMIT_BYTES, Container, Description, Fields, Runtime, new_name

NETWORK = "oomtrace"
BRIDGE = "oomtrace-docker"
SUBNET = "198.51.100.0/25"


class Docker(Runtime):
    kind = "docker"
    programs = ("docker", "dockerd", "containerd", "runc")
    keeps_verdicts = True

    def __init__(self, folder: Path, tree: Path, archive: Path, containerd: Containerd) -> None:
        super().__init__(folder, tree, archive)
        self._containerd = containerd
        self._service: Service | None = None
        self._host = f"unix://{folder}/docker.socket"

    def roots(self) -> dict[str, Path]:
        return {"docker": self.folder / "data"}

    def start(self) -> None:
        self._containerd.start()
        self.folder.mkdir()
        (self.folder / "daemon.json").write_text("{}")
        self._service = Service(
            [
                *("dockerd", "--host", self._host, "--containerd", self._containerd.socket),
                *("--data-root", self.folder / "data", "--exec-root", self.folder / "exec"),
                *("--pidfile", self.folder / "pid", "--config-file", self.folder / "daemon.json"),
                *("--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"),
            ],
            self.folder / "log",
            lambda: self.docker("version"),
        )
        self.docker("load", "--input", self.archive)
        bridge = f"com.docker.network.bridge.name={BRIDGE}"
        self.docker("network", "create", "--subnet", SUBNET, "--opt", bridge, NETWORK)

    def stop(self) -> None:
        if self._service:
            self.docker("network", "rm", NETWORK, check=False)
            self._service.stop()

    def docker(self, *arguments: str | Path, check: bool = True) -> str:
        return run(*self.command(*arguments), check=check)

    def command(self, *arguments: str | Path) -> list[str | Path]:
        return ["docker", "--host", self._host, *arguments]

    def arguments(self, name: str) -> list[str | Path]:
        """Arguments of ``docker run`` before the command."""
        limit = ("--memory", str(LIMIT_BYTES), "--memory-swap", str(LIMIT_BYTES))
        labels = ("--label", f"org.example.name={name}", "--label", "com.docker.compose.service=cart")
        return ["--name", name, *labels, *limit, image.REFERENCE]

    def run(self) -> Container:
        name = new_name("docker")
        id_ = self.docker("run", "--detach", "--network", NETWORK, *self.arguments(name), *INIT)
        return Container(id_, name, int(self._inspect(id_)["State"]["Pid"]))

    def execute(self, container: Container, command: Sequence[str]) -> None:
        self.docker("exec", container.id, *command, check=False)

    def describe(self, container: Container) -> Description:
        answer = self._inspect(container.id)
        networks = answer["NetworkSettings"]["Networks"].values()
        return Description(
            {
                "id": answer["Id"],
                "name": answer["Name"].removeprefix("/"),
                "image": answer["Config"]["Image"],
                "labels": answer["Config"]["Labels"],
                "ip_addresses": [network["IPAddress"] for network in networks],
            },
        )

    def verdict(self, container: Container) -> Fields:
        state = self._inspect(container.id)["State"]
        return {"oom_killed": state["OOMKilled"], "exit_code": state["ExitCode"]}

    def remove(self, container: Container) -> None:
        self.docker("rm", "--force", container.id)

    def _inspect(self, id_: str) -> Any:
        return ask(*self.command("inspect", "--type", "container", id_))[0]

    def created(self, events: str) -> dict[str, Fields]:
        """Id -> fields of the containers, from docker's ``create`` events, one JSON object per line."""
        containers: dict[str, Fields] = {}
        for actor in (json.loads(line)["Actor"] for line in events.splitlines()):
            labels = dict(actor["Attributes"])
            containers[actor["ID"]] = {"name": labels.pop("name"), "image": labels.pop("image"), "labels": labels}
        return containers
