# SPDX-License-Identifier: Apache-2.0
"""Exit code 137 without an OOM kill: ``docker kill``, the timeout of ``docker stop``, and the sender of SIGKILL."""

import time

import pytest

from tests.harness.daemon import Daemon
from tests.harness.environment import wait_until
from tests.harness.oracles import Record

from .docker import Docker

SENDERS = {"dockerd", "containerd", "containerd-shim", "containerd-shim-runc-v2"[:15], "runc"}
"""Docker sends signals through containerd, whose shim starts runc."""
HOLD_S = 1.2
"""Delay of records of SIGKILLs sent by the kernel."""


@pytest.mark.parametrize("command", [("kill",), ("stop", "--time", "1"), ("rm", "--force")], ids=lambda each: each[0])
def test_docker(docker: Docker, tracer: Daemon, command: tuple[str, ...]) -> None:
    """The container's init has a sigkill record, no other process of the container has; there is no OOM kill."""
    container = docker.run()
    description = docker.describe(container)
    docker.docker("exec", "--detach", container.id, "/bin/sleep", "600")
    docker.docker(*command, container.id)
    if command[0] != "rm":
        assert docker.verdict(container) == {"oom_killed": False, "exit_code": 137}
    wait_until("a record", lambda: of(tracer, "sigkill", container.id))
    time.sleep(HOLD_S)
    (record,) = of(tracer, "sigkill", container.id)
    victim, sender = record["victim"], record["sender"]
    assert (victim["pid"], victim["comm"], victim["is_container_init"]) == (container.pid, "sh", True)
    assert victim["cgroup"] == container.cgroup
    assert sender["comm"] in SENDERS
    assert sender["container"] is None
    expected = {key: value for key, value in description.container.items() if key != "ip_addresses"}
    assert expected == {key: record["container"][key] for key in expected}
    assert of(tracer, "oom_kill", container.id) == []
    if command[0] != "rm":
        docker.remove(container)


def of(tracer: Daemon, kind: str, container_id: str) -> list[Record]:
    records = (record for record in tracer.of_type(kind) if record["container"] is not None)
    return [record for record in records if record["container"]["id"] == container_id]
