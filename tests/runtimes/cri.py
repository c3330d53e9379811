# SPDX-License-Identifier: Apache-2.0
"""Kubernetes pods on containerd, made through the CRI as by the kubelet, with log files and links to them."""

import contextlib
import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc

from tests.harness.environment import attempts

from . import image
from .commands import COMMAND_S
from .containerd import Containerd
from .cri_messages import Client
from .runtime import INIT, LIMIT_BYTES, SYSTEMD, Container, Description, Fields, Runtime, new_name

CONTAINER_NAMESPACE = 1
NAMESPACES = {"namespace_options": {"pid": CONTAINER_NAMESPACE}}
NAMESPACE = "shop"
CONTAINER = "app"


def cgroup_parent(uid: str, qos: str) -> str:
    """The pod's cgroup as the kubelet names it for its cgroup driver."""
    if not SYSTEMD:
        return f"/kubepods/pod{uid}" if qos == "guaranteed" else f"/kubepods/{qos}/pod{uid}"
    uid = uid.replace("-", "_")
    if qos == "guaranteed":
        return f"/kubepods.slice/kubepods-pod{uid}.slice"
    return f"/kubepods.slice/kubepods-{qos}.slice/kubepods-{qos}-pod{uid}.slice"


class Cri(Runtime):
    kind = "containerd"
    programs = ("containerd", "runc")
    keeps_verdicts = True

    def __init__(self, folder: Path, tree: Path, archive: Path, containerd: Containerd, qos: str) -> None:
        super().__init__(folder, tree, archive)
        self._containerd = containerd
        self._qos = qos
        self._logs = folder.parent / "log"
        self._client: Client | None = None

    def roots(self) -> dict[str, Path]:
        return {
            "containerd": self._containerd.state,
            "containerd-root": self._containerd.root,
            "container-logs": self._logs / "containers",
            "pod-logs": self._logs / "pods",
        }

    def start(self) -> None:
        self._containerd.start()
        (self._logs / "containers").mkdir(parents=True, exist_ok=True)
        self._client = Client(str(self._containerd.socket), COMMAND_S)

    def stop(self) -> None:
        if self._client:
            self._client.close()

    def call(self, method: str, **request: object) -> Any:
        assert self._client
        return self._client.call(method, **request)

    def run(self) -> Container:
        pod, uid = new_name(f"{self._qos}-pod"), str(uuid.uuid4())
        names = {"io.kubernetes.pod.name": pod, "io.kubernetes.pod.namespace": NAMESPACE, "io.kubernetes.pod.uid": uid}
        logs = self._logs / "pods" / f"{NAMESPACE}_{pod}_{uid}"
        (logs / CONTAINER).mkdir(parents=True)
        sandbox = {
            "metadata": {"name": pod, "uid": uid, "namespace": NAMESPACE},
            "hostname": pod,
            "log_directory": str(logs),
            "labels": {"app": "cart", **names},
            "annotations": {"kubernetes.io/config.source": "api"},
            "linux": {"cgroup_parent": cgroup_parent(uid, self._qos), "security_context": NAMESPACES},
        }
        sandbox_id = self.call("RunPodSandbox", config=sandbox)["pod_sandbox_id"]
        limits = {"memory_limit_in_bytes": LIMIT_BYTES, "memory_swap_limit_in_bytes": LIMIT_BYTES}
        container = {
            "metadata": {"name": CONTAINER},
            "image": {"image": image.REFERENCE},
            "command": INIT,
            "labels": {"io.kubernetes.container.name": CONTAINER, **names},
            "annotations": {"io.kubernetes.container.restartCount": "0"},
            "log_path": f"{CONTAINER}/0.log",
            "linux": {"resources": {**limits, "oom_score_adj": 900}, "security_context": NAMESPACES},
        }
        id_ = self.call("CreateContainer", pod_sandbox_id=sandbox_id, config=container, sandbox_config=sandbox)[
            "container_id"
        ]
        self.call("StartContainer", container_id=id_)
        link = self._logs / "containers" / f"{pod}_{NAMESPACE}_{CONTAINER}-{id_}.log"
        link.symlink_to(self._status(id_)["status"]["log_path"])
        return Container(id_, pod, json.loads(self._status(id_)["info"]["info"])["pid"], sandbox_id)

    def execute(self, container: Container, command: Sequence[str]) -> None:
        # For a killed command some versions return an answer, others an error.
        with contextlib.suppress(grpc.RpcError):
            self.call("ExecSync", container_id=container.id, cmd=list(command), timeout=int(COMMAND_S))

    def describe(self, container: Container) -> Description:
        status = self._status(container.id)["status"]
        pod = self.call("PodSandboxStatus", pod_sandbox_id=container.sandbox)["status"]
        return Description(
            {
                "id": status["id"],
                "name": status["metadata"]["name"],
                "image": status["image"]["image"],
                "labels": status["labels"],
                "ip_addresses": [pod["network"]["ip"]],
            },
            kubernetes={
                "pod_name": pod["metadata"]["name"],
                "namespace": pod["metadata"]["namespace"],
                "pod_uid": pod["metadata"]["uid"],
                "container_name": status["metadata"]["name"],
                "qos_class": self._qos.capitalize(),
            },
        )

    def verdict(self, container: Container) -> Fields:
        status = self._status(container.id)["status"]
        return {"oom_killed": status.get("reason") == "OOMKilled", "exit_code": status.get("exit_code", 0)}

    def remove(self, container: Container) -> None:
        # The kubelet retries, too: while containerd cleans up after a container that has just exited, its shim
        # does not answer ("ttrpc: closed", https://github.com/containerd/containerd/pull/12387).
        for left_s in attempts(COMMAND_S, pause=0.5):
            with contextlib.nullcontext() if left_s == 0 else contextlib.suppress(grpc.RpcError):
                self.call("StopPodSandbox", pod_sandbox_id=container.sandbox)
                break
        self.call("RemovePodSandbox", pod_sandbox_id=container.sandbox)

    def _status(self, id_: str) -> Any:
        return self.call("ContainerStatus", container_id=id_, verbose=True)
