# SPDX-License-Identifier: Apache-2.0
"""One containerd for docker, ctr and CRI pods, as on most hosts."""

import json
from pathlib import Path

from . import image
from .commands import Service, run
from .runtime import SYSTEMD

BRIDGE = "oomtrace-cni"
SUBNET = "198.51.100.128/25"

CONFIG = """
version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
                    "io.containerd.snapshotter.v1.devmapper", "io.containerd.nri.v1.nri"]
[grpc]
  address = "{folder}/socket"
[ttrpc]
  address = "{folder}/socket.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"
  restrict_oom_score_adj = true
  disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "{folder}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  Root = "{folder}/runc"
  SystemdCgroup = {systemd}
"""

NETWORK = {
    "cniVersion": "0.4.0",
    "name": "oomtrace",
    "plugins": [
        {
            "type": "bridge",
            "bridge": BRIDGE,
            "ipMasq": False,
            "isGateway": False,
            "ipam": {"type": "host-local", "subnet": SUBNET},
        }
    ],
}


class Containerd:
    """Start it unless it runs."""

    def __init__(self, folder: Path, archive: Path) -> None:
        self._folder = folder
        self._archive = archive
        self._service: Service | None = None
        self.state = folder / "state"
        self.root = folder / "root"
        self.socket = folder / "socket"

    def start(self) -> None:
        if self._service:
            return
        (self._folder / "cni").mkdir(parents=True)
        ipam = {**NETWORK["plugins"][0]["ipam"], "dataDir": str(self._folder / "addresses")}  # type: ignore[index]
        bridge = {**NETWORK["plugins"][0], "ipam": ipam}  # type: ignore[dict-item]
        (self._folder / "cni/oomtrace.conflist").write_text(json.dumps({**NETWORK, "plugins": [bridge]}))
        config = self._folder / "config.toml"
        config.write_text(
            CONFIG.format(folder=self._folder, image=image.REFERENCE, systemd="true" if SYSTEMD else "false")
        )
        self._service = Service(
            ["containerd", "--config", config], self._folder / "log", lambda: self.ctr("default", "version")
        )
        for namespace in ("default", "k8s.io"):
            self.ctr(namespace, "image", "import", self._archive)

    def ctr(self, namespace: str, *arguments: str | Path, check: bool = True) -> str:
        """The answer of ctr, containerd's client."""
        return run("ctr", "--address", self.socket, "--namespace", namespace, *arguments, check=check)

    def stop(self) -> None:
        if self._service:
            self._service.stop()
            run("ip", "link", "delete", BRIDGE, check=False)
