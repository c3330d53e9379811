# SPDX-License-Identifier: Apache-2.0
"""Ten hostile containers do not delay the records of others."""

import json
import secrets
import time
from pathlib import Path

import pytest

from tests.harness.cgroups import Cgroup
from tests.harness.daemon import Daemon
from tests.harness.eater import Option
from tests.harness.environment import IN_VM, TIMEOUT_S, not_applicable, wait_until
from tests.harness.oracles import Record

from .conftest import Eat, MakeDaemon

HOSTILE = 10
LABELS = 60_000
"""840 KB of labels."""
KILLS = 4 if IN_VM else 12
LATE_S = TIMEOUT_S / 10
"""One second; more in a virtual machine."""


def create(docker: Path, cgroup: Cgroup, name: str, labels: int = 0, mib: int = 8) -> Cgroup:
    """Create a container that Docker reports as running."""
    container = secrets.token_hex(32)
    config = {"Image": "web:1", "Labels": {f"k{number:05}": "" for number in range(labels)}}
    file = docker / "containers" / container / "config.v2.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"Name": f"/{name}", "Config": config, "State": {"Running": True}}))
    return cgroup.child(container, mib)


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
    late_s = kill_honest(daemon, docker, containers, eat)
    for eater in eaters:
        eater.close()
    check_late(late_s)
    kills = sum(group.oom_kills() for group in hostile) + KILLS
    wait_until("all records", lambda: daemon.output.read_bytes().count(b'"type":"oom_kill"') == kills, 60)
    records = daemon.records()
    assert not [record for record in records if record["type"] in ("lost", "gap")]
    check_honest(records)


@pytest.mark.parametrize(
    ("storm", "arguments"),
    [
        pytest.param({"execs": True}, [], id="execs"),
        pytest.param({"kills": 1_000_000_000}, ["--sigkill", "containers"], id="sigkills"),
        pytest.param({"networks": True}, ["--network"], id="networks"),
    ],
)
def test_ten_storms(
    storm: dict[str, Option],
    arguments: list[str],
    tmp_path: Path,
    cgroup: Cgroup,
    make_daemon: MakeDaemon,
    eat: Eat,
) -> None:
    """Their processes do nothing but execute programs, send SIGKILL or create network namespaces."""
    docker, containers = tmp_path / "docker", cgroup.child("docker")
    daemon = make_daemon(arguments=["--runtime-root", f"docker={docker}", *arguments])
    daemon.wait_ready()
    hostile = [create(docker, containers, f"hostile-{number}", mib=64) for number in range(HOSTILE)]
    # As children: what their limit costs one of them, of kernel memory, the next one takes up again.
    eaters = [eat(0, group, children=1000, comm="hostile", extra=["x" * 900], life=600, **storm) for group in hostile]
    for eater in eaters:
        eater.start()
    late_s = kill_honest(daemon, docker, containers, eat)
    running = [eater for eater in eaters if eater.process.poll() is None]
    assert len(running) > HOSTILE // 2
    for eater in eaters:
        eater.close()
    check_late(late_s)
    records = daemon.records()
    counted = {"sigkill"} if "kills" in storm else set()  # the records of SIGKILLs are rate-limited
    assert {record["stage"] for record in records if record["type"] == "lost"} <= counted
    assert not [record for record in records if record["type"] == "gap"]
    check_honest(records)


def kill_honest(daemon: Daemon, docker: Path, containers: Cgroup, eat: Eat) -> list[float]:
    """Kill a process in each of KILLS containers; the delay of each record in seconds."""
    late_s = []
    for number in range(KILLS):
        group, comm = create(docker, containers, f"honest-{number}"), f"honest-{number}"
        at = daemon.output.stat().st_size
        eat(16, group, comm=comm).die()
        ended_s = time.monotonic()
        # Without JSON: parsing the other records takes longer than writing them.
        wait_until("its record", lambda at=at, comm=comm: has_comm(daemon.output, at, comm), 30)  # type: ignore[misc]
        late_s.append(time.monotonic() - ended_s)
        assert group.oom_kills() == 1
    return late_s


def check_late(late_s: list[float]) -> None:
    """Print and check the delays."""
    print(f"late by {max(late_s):.2f} s at most, {sorted(late_s)[KILLS // 2]:.2f} s in the median")
    assert max(late_s) < LATE_S, late_s


def check_honest(records: list[Record]) -> None:
    """Each kill of kill_honest() has one record, with the container's name and the command line."""
    kills = [record for record in records if record["type"] == "oom_kill"]
    honest = [record for record in kills if record["victim"]["comm"].startswith("honest-")]
    assert [record["container"]["name"] for record in honest] == [f"honest-{number}" for number in range(KILLS)]
    assert all(record["victim"]["comm"] in record["victim"]["cmdline"] for record in honest)


def has_comm(output: Path, at: int, comm: str) -> bool:
    with output.open("rb") as file:
        file.seek(at)
        return f'"comm":"{comm}"'.encode() in file.read()
