# SPDX-License-Identifier: Apache-2.0
"""``oomtrace why`` for Docker containers: killed by their limit, by another process, or not at all."""

import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.harness.daemon import Daemon
from tests.harness.environment import ROOT, TIMEOUT_S, attempts, wait_until

from .docker import NETWORK, Docker
from .runtime import LIMIT_BYTES, Container, new_name

Answer = dict[str, Any]
Why = Callable[..., tuple[Answer, str]]


@pytest.fixture
def container(docker: Docker) -> Iterator[Container]:
    """A running container limit_text init, or a child of it, gets OOM killed on a signal."""
    made = docker.run()
    yield made
    docker.remove(made)


@pytest.fixture
def why(docker: Docker, tracer: Daemon) -> Why:
    """Runs ``oomtrace why``: the answer as JSON and as text."""

    def ask(name: str, *arguments: str) -> tuple[Answer, str]:
        places = ("--records", str(tracer.output), "--runtime-root", f"docker={docker.roots()['docker']}")
        command = [sys.executable, "-m", "tracer", "why", name, *places, *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=10 * TIMEOUT_S, check=True)
        as_json = subprocess.run(
            [*command, "--json"], cwd=ROOT, capture_output=True, text=True, timeout=10 * TIMEOUT_S, check=True
        )
        return json.loads(as_json.stdout), done.stdout

    return ask


def killed(tracer: Daemon, container: Container) -> Answer:
    """Wait for the oom_kill record of the container and its oom_exit record; the former.

    Without Watch, which reads the kernel log: the commands here take long, and the log may overflow meanwhile.
    """
    for _ in attempts():
        gone = {record["id"] for record in tracer.of_type("oom_exit")}
        found = [record for record in tracer.of_type("oom_kill") if container.holds(record["victim"]["cgroup"])]
        if found and found[0]["id"] in gone:
            return found[0]
    pytest.fail(f"no kill in {container.cgroup}")


def follow(docker: Docker, answer: Answer, begin: str) -> str:
    """Run an advised command with the tests' Docker; its output."""
    commands = [command for advice in answer["advice"] for command in advice["commands"]]
    (command,) = [shlex.split(command) for command in commands if command.startswith(begin)]
    return docker.docker(*command[1:])


def ended(docker: Docker, name: str) -> Answer:
    """Wait for the container's exit; its state of ``docker inspect``."""
    state: Answer = {}

    def is_over() -> bool:
        nonlocal state
        state = json.loads(docker.docker("inspect", "--type", "container", name))[0]["State"]
        return not state["Running"]

    wait_until(f"{name} has ended", is_over)
    return state


def test_own_limit(docker: Docker, container: Container, tracer: Daemon, why: Why) -> None:
    """The init exceeded the container's limit: the answer is the same by name, by id and by pid."""
    container.eat_in_init()
    record = killed(tracer, container)
    state = ended(docker, container.id)
    own, limit = "by its own limit of 32.0 MiB", f"by the limit of its container {container.name}, 32.0 MiB"
    for name, kind, limit_text in (
        (container.name, "container", own),
        (container.id[:12], "container", own),
        (str(container.pid), "pid", limit),
    ):
        answer, words = why(name)
        verdict = answer["verdict"]
        assert (verdict["kind"], verdict["cause"], verdict["ended"]) == (kind, "own_limit", True)
        assert record["id"] == verdict["kill"]["id"]
        assert verdict["memory"]["limit_bytes"] == LIMIT_BYTES
        assert limit_text in words
        assert [each["id"] for each in answer["evidence"]] == [record["id"]], "the kernel log's kill is the same"
    answer, words = why(container.name)
    assert answer["verdict"]["kill"]["victim"]["pid"] == container.pid
    runtime = answer["verdict"]["runtime"]
    assert (runtime["oom_killed"], runtime["exit_code"]) == (state["OOMKilled"], state["ExitCode"]) == (True, 137)
    assert runtime["agrees"] is True
    assert "docker inspect says OOMKilled true and exit code 137, and is right." in words
    assert f"docker update --memory 40m --memory-swap 40m {container.name}" in words


def test_child(docker: Docker, container: Container, tracer: Daemon, why: Why) -> None:
    """A child was killed and the container runs on: the answer explains OOMKilled of docker inspect."""
    container.eat_in_child()
    killed(tracer, container)
    inspected = docker.verdict(container)["oom_killed"]
    answer, words = why(container.name)
    verdict = answer["verdict"]
    assert (verdict["cause"], verdict["ended"], verdict["running_now"]) == ("own_limit", False, True)
    assert "was not killed as a whole, but a process in it was OOM killed" in words
    assert "The container kept running." in words
    assert (verdict["runtime"]["oom_killed"], verdict["runtime"]["agrees"]) == (inspected, inspected)
    assert f"docker inspect says OOMKilled {str(inspected).lower()}" in words
    follow(docker, answer, "docker update")
    host = json.loads(docker.docker("inspect", "--type", "container", container.id))[0]["HostConfig"]
    assert host["Memory"] == host["MemorySwap"] == LIMIT_BYTES * 5 // 4


def test_exited_after_child(docker: Docker, why: Why) -> None:
    """A shell limit_text command was OOM killed exits with 137: the container itself was not killed."""
    name = new_name("why")
    script = "/bin/dd if=/dev/zero of=/dev/null bs=96M count=1; exit $?"
    id_ = docker.docker("run", "--detach", "--network", NETWORK, *docker.arguments(name), "/bin/sh", "-c", script)
    try:
        state = ended(docker, id_)
        assert state["ExitCode"] == 137
        for _ in attempts():
            answer, words = why(name)
            if answer["verdict"]["kill"] is not None and answer["evidence"][-1]["source"] != "kernel log":
                break
        verdict = answer["verdict"]
        assert (verdict["cause"], verdict["exited_after"], verdict["ended"]) == ("own_limit", True, True)
        assert "ended by itself, after a process in it was OOM killed" in words
        assert verdict["runtime"]["oom_killed"] == state["OOMKilled"]
    finally:
        docker.docker("rm", "--force", id_)


def test_not_killed(docker: Docker, why: Why) -> None:
    """A program that exits with 137 was not killed, which the records prove."""
    name = new_name("why")
    id_ = docker.docker("run", "--detach", "--network", NETWORK, *docker.arguments(name), "/bin/sh", "-c", "exit 137")
    try:
        state = ended(docker, id_)
        assert (state["ExitCode"], state["OOMKilled"]) == (137, False)
        answer, words = why(name)
        verdict = answer["verdict"]
        assert verdict["kill"] is None
        assert verdict["cause"] == ("exited" if verdict["sigkill_since"] else "not_oom")
        assert "and was not killed" in words or "and it was not the OOM killer" in words
        assert f"docker logs --tail 50 {name}" in words
        assert verdict["runtime"]["agrees"] is True
        answer, words = why(name, "--exit-code", "143")
        assert answer["verdict"]["cause"] == "exited"
        assert "exit code 143 is that of SIGTERM" in words
    finally:
        docker.docker("rm", "--force", id_)


def test_docker_kill(docker: Docker, container: Container, tracer: Daemon, why: Why) -> None:
    """A container killed by a signal: the answer names the sender, and agrees with docker inspect."""
    docker.docker("kill", container.id)
    state = ended(docker, container.id)
    for _ in attempts():
        sent = [record for record in tracer.of_type("sigkill") if record["victim"]["pid"] == container.pid]
        if sent:
            break
    assert (state["ExitCode"], state["OOMKilled"]) == (137, False)
    answer, words = why(container.name)
    verdict = answer["verdict"]
    assert (verdict["cause"], verdict["killer"], verdict["ended"]) == ("sigkill", "runtime", True)
    assert verdict["kill"]["sender"]["pid"] == sent[0]["sender"]["pid"]
    assert "and not by the OOM killer" in words
    assert "docker inspect says OOMKilled false and exit code 137, and is right." in words
    events = follow(docker, answer, "docker events")
    assert " container kill " in events
    assert "signal=9" in events
