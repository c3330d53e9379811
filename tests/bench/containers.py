# SPDX-License-Identifier: Apache-2.0
"""Cost of names on a host with many containers: directories as Docker's, and a cgroup for each."""

import json
import os
import secrets
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.harness.cgroups import Cgroup, Hierarchy
from tracer.identity.metadata_cache import FRESH_S, MetadataCache
from tracer.identity.runtimes import Runtimes

from . import process
from .kills import LIMIT_BYTES, Marks
from .measure import SETTLE_S, latencies_ms, percentile
from .running import RunningTool, listen
from .tools import CORE, Tool

COUNT = 1000
ASKED = 200
"""Containers whose names are read, one after the other."""
ROUNDS = 3


class Containers(NamedTuple):
    root: Path
    """Docker's data root."""
    ids: list[str]
    groups: list[Cgroup]


class NameCost(NamedTuple):
    label: str
    value: float
    digits: int


@contextmanager
def containers(count: int) -> Iterator[Containers]:
    """Make this many containers, which do not run."""
    root = Path(tempfile.mkdtemp(prefix="oomtrace-bench-"))
    top = Hierarchy.find().make(f"oomtrace-bench-{count}-containers-{os.getpid()}")
    try:
        docker = top.child("docker")
        ids = [secrets.token_hex(32) for _ in range(count)]
        for container_id in ids:
            folder = root / "containers" / container_id
            folder.mkdir(parents=True)
            (folder / "config.v2.json").write_text(json.dumps(_config(container_id)))
        yield Containers(root, ids, [docker.child(container_id) for container_id in ids])
    finally:
        top.remove()
        shutil.rmtree(root)


def _config(container_id: str) -> dict[str, object]:
    """A configuration as large as that of a real container: 5 KiB, most of it unused."""
    labels = {f"com.example.{key}": f"{key}-{container_id[:8]}" for key in ("team", "service", "release", "owner")}
    return {
        "StreamConfig": {},
        "State": {"Running": True, "OOMKilled": False, "ExitCode": 0, "Pid": 1, "StartedAt": "2026-01-01T00:00:00Z"},
        "ID": container_id,
        "Name": f"/service-{container_id[:12]}",
        "Config": {
            "Hostname": container_id[:12],
            "Env": [f"VARIABLE_{number}={container_id}" for number in range(40)],
            "Image": f"registry.example.com/team/service:{container_id[:7]}",
            "Labels": labels,
        },
        "MountPoints": {},
        "NetworkSettings": {"Bridge": "", "Networks": {}},
    }


def tool(root: Path) -> Tool:
    return CORE._replace(command=(*CORE.command, "--runtime-root", f"docker={root}"))


def measure(marks: Marks, kills: int) -> list[NameCost]:
    """Start time, size and latency with COUNT containers, and cost of a name."""
    rows = []
    with ExitStack() as stack:
        few, many = (stack.enter_context(containers(count)) for count in (1, COUNT))
        for there, label in ((few, "1 container"), (many, f"{COUNT} containers")):
            print(f"bench: {label}", file=sys.stderr, flush=True)
            there.groups[0].limit(LIMIT_BYTES)
            ready_s, rss_mb, latency_ms = [], [], []
            for _ in range(ROUNDS):
                with RunningTool(tool(there.root)) as running:
                    ready_s.append(running.wait_ready())
                    listen([running], SETTLE_S + 2.0)
                    rss_mb.append(process.memory_mb(running.pid, "VmRSS"))
                    latency_ms += latencies_ms([running], there.groups[0], marks, kills)[0]
            rows += [
                NameCost(f"{label}: start to ready, s", statistics.median(ready_s), 3),
                NameCost(f"{label}: RSS, MB", statistics.median(rss_mb), 1),
                NameCost(f"{label}: kill in a container to named line, median, ms", statistics.median(latency_ms), 2),
                NameCost(f"{label}: the same, p99, ms", percentile(latency_ms, 99) or 0, 2),
            ]
        rows += _name_costs(many)
    return rows


def _name_costs(there: Containers) -> list[NameCost]:
    names = MetadataCache(Runtimes([("docker", str(there.root))]))
    asked = there.ids[:ASKED]

    def ask() -> list[float]:
        times = []
        for container_id in asked:
            began = time.perf_counter()
            found = names.fetch_metadata(container_id, "docker", None)
            times.append((time.perf_counter() - began) * 1e6)
            assert found["name"] == f"service-{container_id[:12]}"
        return times

    first, from_memory = ask(), ask()
    time.sleep(FRESH_S)
    return [
        NameCost("a name, from its file, median, µs", statistics.median(first), 0),
        NameCost("a name, from memory, median, µs", statistics.median(from_memory), 0),
        NameCost("a name, from its file again, median, µs", statistics.median(ask()), 0),
    ]
