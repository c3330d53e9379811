# SPDX-License-Identifier: Apache-2.0
"""``run --rm``: the container and its files are removed right after its exit, but the record names it."""

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.harness.environment import IN_VM, attempts, wait_until
from tests.harness.oracles import Record
from tests.harness.watch import Watch

from .commands import ENVIRONMENT, run
from .docker import Docker
from .podman import Podman
from .runtime import SHORT_LIVED, new_name

DOCKER_CONTAINERS = 10 if IN_VM else 50
PODMAN_CONTAINERS = 10
AT_ONCE = 4

Names = dict[str, object]


@contextmanager
def followed(command: list[str | Path], output: Path) -> Iterator[None]:
    """Write a command's output to a file until the block is left."""
    with output.open("wb") as file:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, env=ENVIRONMENT)
        try:
            yield
        finally:
            process.terminate()
            process.wait()


def run_all(command: Callable[[str], list[str | Path]], names: Sequence[str], watch: Watch, cwd: Path) -> None:
    """Run these containers until they exit, several at once."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures = [pool.submit(run, *command(name), check=False, cwd=cwd) for name in names]
        while not all(future.done() for future in futures):
            watch.logged()  # the kernel overwrites what is not read in time
            time.sleep(0.05)
        for future in futures:
            future.result()


def kills(watch: Watch, count: int) -> list[Record]:
    """Wait for this many kills of this test."""
    found: list[Record] = []
    for _ in attempts():
        found = [record for record in watch.records() if (record["container"] or {}).get("id")]
        if len(found) >= count:
            break
    return found


def named(records: list[Record], *fields: str) -> dict[str, Names]:
    """Fields of the records' containers, by their ids."""
    return {record["container"]["id"]: {field: record["container"][field] for field in fields} for record in records}


def test_docker(docker: Docker, watch: Watch, tmp_path: Path) -> None:
    """All records have the name, image and labels of docker's events."""
    names = [new_name("docker-rm") for _ in range(DOCKER_CONTAINERS)]
    events = tmp_path / "events"
    follow = docker.command(
        "events", "--since", f"{time.time():.9f}", "--filter", "event=create", "--format={{json .}}"
    )
    with followed(follow, events):
        run_all(
            lambda name: docker.command("run", "--rm", "--network", "none", *docker.arguments(name), *SHORT_LIVED),
            names,
            watch,
            tmp_path,
        )
        records = kills(watch, DOCKER_CONTAINERS)
        wait_until("docker's events", lambda: events.read_bytes().count(b"\n") >= DOCKER_CONTAINERS)
    created = docker.created(events.read_text())
    assert sorted(names) == sorted(container["name"] for container in created.values()), "docker's events"
    assert created == named(records, "name", "image", "labels")
    assert {True} == {record["victim"]["is_container_init"] for record in records}


def test_podman(podman: Podman, watch: Watch, tmp_path: Path) -> None:
    """All records have the name and image of podman's events."""
    names = [new_name("podman-rm") for _ in range(PODMAN_CONTAINERS)]
    run_all(lambda name: podman.command("run", "--rm", *podman.arguments(name), *SHORT_LIVED), names, watch, tmp_path)
    records = kills(watch, PODMAN_CONTAINERS)
    created = {id_: container for id_, container in podman.created().items() if container["name"] in names}
    assert sorted(names) == sorted(container["name"] for container in created.values()), "podman's events"
    assert created == named(records, "name", "image")
