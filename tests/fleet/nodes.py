# SPDX-License-Identifier: Apache-2.0
"""Records of real kills, changed as if from the nodes of a cluster: hosts, boots, pods, limits and times."""

import random
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from tests.harness.oracles import Record
from tracer.base.clock import format_rfc3339

MIB = 1 << 20
SAFE = "bcdfghjklmnpqrstvwxz2456789"
"""Alphabet of Kubernetes' generated names."""


class Deployment(NamedTuple):
    namespace: str
    name: str
    limit_bytes: int
    weight: int
    """Relative frequency of its kills."""


DEPLOYMENTS = (
    Deployment("shop", "checkout", 512 * MIB, 2),
    Deployment("shop", "cart", 256 * MIB, 12),
    Deployment("shop", "search", 2048 * MIB, 7),
    Deployment("media", "thumbnailer", 128 * MIB, 20),
    Deployment("media", "transcoder", 4096 * MIB, 5),
    Deployment("data", "spark-executor", 8192 * MIB, 9),
    Deployment("data", "ingest", 1024 * MIB, 3),
    Deployment("platform", "node-agent", 64 * MIB, 4),
)
BURSTS = DEPLOYMENTS[0]
"""The deployment whose new release leaks, on all nodes at once."""
HOST_SHARE = 0.02
"""Share of kills because the node itself is out of memory."""
ODD_CLOCKS = 0.01
"""Share of nodes whose clock is wrong by up to 30 s; that of the others is wrong by some 20 ms."""


class Node:
    """One node, determined by its number."""

    def __init__(self, number: int, templates: Sequence[Sequence[Record]]) -> None:
        """``templates`` are incidents: pairs of an oom_kill record and its oom_exit record."""
        self.name = f"node-{number:06d}"
        self._random = random.Random(number)
        self._boot_id = str(uuid.UUID(int=self._random.getrandbits(128), version=4))
        odd = self._random.random() < ODD_CLOCKS
        self._skew_ns = int(self._random.uniform(-30e9, 30e9) if odd else self._random.gauss(0, 20e6))
        self._templates = templates
        self._seq = 0

    def incident(self, deployment: Deployment | None = None) -> Iterator[Record]:
        """The records of a kill now, in this deployment or a random one."""
        chance = self._random
        if deployment is None:
            deployment = chance.choices(DEPLOYMENTS, [each.weight for each in DEPLOYMENTS])[0]
        kill, exit_ = chance.choice(self._templates)
        now_ns = time.time_ns() + self._skew_ns
        incident_id = f"{self._boot_id[:8]}-{chance.getrandbits(40):010x}"
        pid = chance.randrange(1000, 4 << 20)
        host = {**kill["host"], "name": self.name, "boot_id": self._boot_id}
        common = {"host": host, "id": f"{incident_id}-{pid}"}
        yield self._numbered(
            {**kill, **common, "time": format_rfc3339(now_ns), **self._kill(kill, deployment, pid, incident_id)}
        )
        after_ns = exit_["after_ns"]
        yield self._numbered(
            {**exit_, **common, "time": format_rfc3339(now_ns + after_ns), "incident_id": incident_id, "pid": pid}
        )

    def _numbered(self, record: Record) -> Record:
        self._seq += 1
        return {**record, "seq": self._seq}

    def _kill(self, kill: Record, deployment: Deployment, pid: int, incident_id: str) -> Record:
        pod_uid = str(uuid.UUID(int=self._random.getrandbits(128), version=4))
        container = f"{self._random.getrandbits(256):064x}"
        slices = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{pod_uid.replace('-', '_')}.slice"
        cgroup = f"{slices}/cri-containerd-{container}.scope"
        scale = deployment.limit_bytes / kill["limit"]["limit_bytes"]
        is_host = self._random.random() < HOST_SHARE
        victim = {**kill["victim"], "pid": pid, "tid": pid, "comm": deployment.name[:15], "cgroup": cgroup}
        for name in ("rss_bytes", "anon_rss_bytes", "total_vm_bytes", "peak_rss_bytes"):
            if victim[name] is not None:
                victim[name] = int(victim[name] * scale * self._random.uniform(0.9, 1))
        pod = f"{deployment.name}-{self._word(9)}-{self._word(5)}"
        changed: dict[str, Any] = {
            "victim": victim,
            "incident": {**kill["incident"], "id": incident_id, "scope": "host" if is_host else "memcg"},
            "limit": None
            if is_host
            else {**kill["limit"], "cgroup": cgroup, "level": "container", "limit_bytes": deployment.limit_bytes},
            "container": {
                "id": container, "runtime": "containerd", "name": deployment.name,
                "image": f"registry.example.com/{deployment.namespace}/{deployment.name}:1.4", "labels": {},
                "node_container_id": None, "ip_addresses": None,
            },
            "kubernetes": {
                "pod_name": pod, "namespace": deployment.namespace, "pod_uid": pod_uid,
                "container_name": deployment.name, "qos_class": "Burstable",
            },
            "systemd": {"unit": f"cri-containerd-{container}.scope", "slice": slices.rpartition("/")[2]},
        }  # fmt: skip
        return changed

    def _word(self, length: int) -> str:
        return "".join(self._random.choices(SAFE, k=length))
