# SPDX-License-Identifier: Apache-2.0
"""`run --rm`: the container and everything about it is gone moments after its death, and is named all the same."""

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
    """Run these containers to their end, a few at once."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures = [pool.submit(run, *command(name), check=False, cwd=cwd) for name in names]
        while not all(future.done() for future in futures):
            watch.logged()  # so many reports overwrite the kernel log unless it is read meanwhile
            time.sleep(0.05)
        for future in futures:
            future.result()


def kills(watch: Watch, count: int) -> list[Record]:
    """The kills of this test, as soon as there are so many."""
    found: list[Record] = []
    for _ in attempts():
        found = [record for record in watch.records() if (record["container"] or {}).get("id")]
        if len(found) >= count:
            break
    return found


def named(records: list[Record], *fields: str) -> dict[str, Names]:
    """What the records say, by the containers' ids."""
    return {record["container"]["id"]: {field: record["container"][field] for field in fields} for record in records}


def test_docker(docker: Docker, watch: Watch, tmp_path: Path) -> None:
    """All have the name, image and labels that docker's own events tell."""
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
        wait_until("docker tells of all", lambda: events.read_bytes().count(b"\n") >= DOCKER_CONTAINERS)
    told = docker.created(events.read_text())
    assert sorted(names) == sorted(container["name"] for container in told.values()), "docker's events are complete"
    assert told == named(records, "name", "image", "labels")
    assert {True} == {record["victim"]["is_container_init"] for record in records}


def test_podman(podman: Podman, watch: Watch, tmp_path: Path) -> None:
    """All have the name and image that podman's own events tell."""
    names = [new_name("podman-rm") for _ in range(PODMAN_CONTAINERS)]
    run_all(lambda name: podman.command("run", "--rm", *podman.arguments(name), *SHORT_LIVED), names, watch, tmp_path)
    records = kills(watch, PODMAN_CONTAINERS)
    told = {id_: container for id_, container in podman.created().items() if container["name"] in names}
    assert sorted(names) == sorted(container["name"] for container in told.values()), "podman's events are complete"
    assert told == named(records, "name", "image")
