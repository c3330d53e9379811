# SPDX-License-Identifier: Apache-2.0
"""Ten hostile containers do not delay the records of others."""

import json
import secrets
import time
from pathlib import Path

import pytest

from tests.harness.cgroups import Cgroup
from tests.harness.environment import IN_VM, TIMEOUT_SCALE, not_applicable, wait_until

from .conftest import Eat, MakeDaemon

HOSTILE = 10
LABELS = 60_000
"""840 KB of labels."""
KILLS = 12
LATE_S = 1.0 * TIMEOUT_SCALE


def create(docker: Path, cgroup: Cgroup, name: str, labels: int = 0) -> Cgroup:
    """Create a container that Docker reports as running."""
    container = secrets.token_hex(32)
    config = {"Image": "web:1", "Labels": {f"k{number:05}": "" for number in range(labels)}}
    file = docker / "containers" / container / "config.v2.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"Name": f"/{name}", "Config": config, "State": {"Running": True}}))
    return cgroup.child(container, 8)


@pytest.mark.parametrize("arguments", [[], ["--network"]])
def test_ten_hostile_containers(
    arguments: list[str], tmp_path: Path, cgroup: Cgroup, make_daemon: MakeDaemon, eat: Eat
) -> None:
    """Hostile containers have huge metadata and are killed all the time; records of other containers are on time."""
    if IN_VM:
        not_applicable("does not depend on the kernel's OOM path")
    docker, containers = tmp_path / "docker", cgroup.child("docker")
    daemon = make_daemon(arguments=["--runtime-root", f"docker={docker}", *arguments])
    daemon.wait_ready()
    hostile = [create(docker, containers, f"hostile-{number}", LABELS) for number in range(HOSTILE)]
    eaters = [eat(16, group, children=100_000, jobs=1, life=600, comm="hostile") for group in hostile]
    wait_until("kills in each hostile container", lambda: min(group.oom_kills() for group in hostile) > 3)
    late_s = []
    for number in range(KILLS):
        group, comm = create(docker, containers, f"honest-{number}"), f"honest-{number}"
        at = daemon.output.stat().st_size
        eat(16, group, comm=comm).die()
        ended_s = time.monotonic()
        # Without JSON: parsing the other records takes longer than writing them.
        wait_until("its record", lambda at=at, comm=comm: has_comm(daemon.output, at, comm), 30)  # type: ignore[misc]
        late_s.append(time.monotonic() - ended_s)
    for eater in eaters:
        eater.close()
    print(f"late by {max(late_s):.2f} s at most, {sorted(late_s)[KILLS // 2]:.2f} s in the median")
    assert max(late_s) < LATE_S, late_s
    kills = sum(group.oom_kills() for group in hostile) + KILLS
    wait_until("all records", lambda: daemon.output.read_bytes().count(b'"type":"oom_kill"') == kills, 60)
    records = daemon.records()
    assert not [record for record in records if record["type"] in ("lost", "gap")]
    honest = [record for record in records if record["type"] == "oom_kill" and record["victim"]["comm"] != "hostile"]
    assert [record["container"]["name"] for record in honest] == [f"honest-{number}" for number in range(KILLS)]


def has_comm(output: Path, at: int, comm: str) -> bool:
    with output.open("rb") as file:
        file.seek(at)
        return f'"comm":"{comm}"'.encode() in file.read()
