# SPDX-License-Identifier: Apache-2.0
"""At the limits of tasks and of descriptors no record is lost, one warning is printed, and the daemon recovers."""

import json
import os
import resource
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.cgroups import Cgroup, Hierarchy
from tests.harness.daemon import Daemon
from tests.harness.environment import IN_VM, TIMEOUT_SCALE, not_applicable, wait_until

from .conftest import Eat, MakeDaemon
from .test_metadata import dead_disk

__all__ = ["dead_disk"]

IN_TIME_S = 3.0 * TIMEOUT_SCALE
KILLS = 12


@pytest.fixture(autouse=True)
def _here() -> None:
    if IN_VM:
        not_applicable("does not depend on the kernel's OOM path")


class LimitedDaemon:
    """A daemon with two roots for Docker, of which one may hang, and an output with rotation."""

    def __init__(self, folder: Path, cgroup: Cgroup, make_daemon: MakeDaemon, eat: Eat, *arguments: str) -> None:
        self.folder, self.output = folder / "out", folder / "out" / "records.json"
        self.folder.mkdir()
        self._docker, self._cgroup, self._eat = folder / "good", cgroup, eat
        self._containers = cgroup.child("docker")
        roots = ["--runtime-root", f"docker={self._docker}", *arguments]
        rotated = f"file:{self.output}?rotate-bytes=6K&keep=3&compress=gzip"
        plain = folder / "plain.json"
        self.daemon: Daemon = make_daemon(plain, arguments=[*roots, "--output", rotated])
        self.daemon.wait_ready()
        self.made = 0

    def kill(self) -> float:
        """Make a kill in a new container; the delay of its record, in seconds."""
        container = secrets.token_hex(32)
        file = self._docker / "containers" / container / "config.v2.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"Name": f"/web-{self.made}", "Config": {"Image": "web:1", "Labels": {}}}))
        self._eat(16, self._containers.child(container, 8)).die()
        self.made += 1
        ended = time.monotonic()
        wait_until("its record", lambda: len(self.daemon.of_type("oom_kill")) == self.made)
        return time.monotonic() - ended

    def name(self) -> str | None:
        """Name of the container of the last kill."""
        name: str | None = self.daemon.of_type("oom_kill")[-1]["container"]["name"]
        return name

    def parts(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir() if not path.name.startswith("."))

    def check_works_again(self) -> None:
        """Check that names are read, rotated files are compressed and removed, and nothing was lost."""
        for _ in range(KILLS):
            assert self.kill() < IN_TIME_S
        wait_until("the names", lambda: self.kill() < IN_TIME_S and self.name() == f"web-{self.made - 1}")
        wait_until("the rotated files", lambda: len(self.parts()) <= 4 and self.parts()[1].endswith(".gz"))
        stop = self.daemon.stop()
        assert (stop["records"], stop["lost"]) == (self.made, 0)
        assert not [record for record in self.daemon.records() if record["type"] in ("lost", "gap")]
        assert "Traceback" not in self.daemon.stderr()


@pytest.fixture
def tasks() -> Iterator[Cgroup]:
    """A cgroup of the pids controller, as for a unit with TasksMax."""
    group = Hierarchy.find("pids").make(f"oomtrace-tasks-{os.getpid()}")
    yield group
    group.remove()


def test_tasks(
    dead_disk: Path, tasks: Cgroup, tmp_path: Path, cgroup: Cgroup, make_daemon: MakeDaemon, eat: Eat
) -> None:
    """While no thread can be started, names and rotated files wait, also with a hung disk."""
    host = LimitedDaemon(tmp_path, cgroup, make_daemon, eat, "--runtime-root", f"docker={dead_disk}")
    pid = host.daemon.process.pid
    tasks.write("cgroup.procs", pid)
    tasks.write("pids.max", len(os.listdir(f"/proc/{pid}/task")))
    for _ in range(KILLS):
        assert host.kill() < IN_TIME_S
    assert host.daemon.stderr().count("cannot start a thread") == 1
    assert len(host.parts()) > 4
    tasks.write("pids.max", "max")
    host.check_works_again()


def test_descriptors(tmp_path: Path, cgroup: Cgroup, make_daemon: MakeDaemon, eat: Eat) -> None:
    """While no file can be opened, rotation waits."""
    host = LimitedDaemon(tmp_path, cgroup, make_daemon, eat)
    assert host.kill() < IN_TIME_S
    assert host.name() == "web-0"
    pid = host.daemon.process.pid
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, limits[1]))  # open descriptors stay open
    for _ in range(KILLS):
        assert host.kill() < IN_TIME_S
    assert len(host.parts()) == 1
    assert host.daemon.stderr().count("cannot rotate") == 1
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    host.check_works_again()
