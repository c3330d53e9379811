# SPDX-License-Identifier: Apache-2.0
"""containerd's database is read correctly while containerd holds its lock and writes it."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.harness.environment import IN_VM
from tracer.identity.containerd import fetch_from_database
from tracer.identity.runtime_metadata import ContainerMetadata
from tracer.linux.safe_files import UnreadableError

from . import image
from .ctr import Ctr
from .runtime import new_name
from .runtime_starter import RuntimeStarter

CONTAINERS = 10 if IN_VM else 100
"""100 do not fit on one page of the database."""
AT_ONCE = 4


@pytest.fixture
def ctr(running: RuntimeStarter) -> Ctr:
    runtime = running.start("ctr")
    assert isinstance(runtime, Ctr)
    return runtime


@contextmanager
def repeatedly(question: Callable[[], ContainerMetadata | None]) -> Iterator[list[ContainerMetadata | None]]:
    """Call a function until the block is left; its results, without those of UnreadableError."""
    answers: list[ContainerMetadata | None] = []
    over = threading.Event()

    def ask() -> None:
        while not over.wait(0.001):
            try:
                answers.append(question())
            except UnreadableError as error:
                if "changed repeatedly" not in str(error):
                    raise

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        try:
            yield answers
        finally:
            over.set()
    asking.result()


def test_written_meanwhile(ctr: Ctr) -> None:
    """The metadata of a container stays the same while others are made and removed."""
    root = str(ctr.roots()["containerd-root"])
    names = [new_name("stored") for _ in range(CONTAINERS)]

    def create(name: str) -> None:
        ctr.ctr("container", "create", "--label", f"org.example.name={name}", image.REFERENCE, name)

    def read(name: str) -> ContainerMetadata:
        answer = json.loads(ctr.ctr("container", "info", name))
        return {"runtime": "containerd", "name": name, "image": answer["Image"], "labels": answer["Labels"]}

    create(names[0])
    first = read(names[0])
    with ThreadPoolExecutor(AT_ONCE) as pool, repeatedly(lambda: fetch_from_database(root, names[0])) as answers:
        list(pool.map(create, names[1:]))
        for name in (names[1], names[-1]):
            assert read(name) == fetch_from_database(root, name)
        list(pool.map(lambda name: ctr.ctr("container", "delete", name), names[1:]))
    assert len(answers) > CONTAINERS
    assert [first] * len(answers) == answers
    ctr.ctr("container", "delete", names[0])
    assert fetch_from_database(root, names[0]) is None
