# SPDX-License-Identifier: Apache-2.0
"""Names from a runtime's files: in time, although the files are removed, hostile, or on a disk that hangs."""

import ctypes
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.harness.cgroups import Cgroup
from tests.harness.daemon import Daemon
from tests.harness.environment import IN_VM, TIMEOUT_SCALE, attempts, not_applicable, require, wait_until
from tests.harness.oracles import Record
from tests.harness.reads import ReadWatch

from .conftest import Eat, MakeDaemon

IN_TIME_S = TIMEOUT_SCALE * (10.0 if IN_VM else 1.0)
"""Upper bound for a record after its kill, whatever the files contain."""
SECRETS = ["--password=hunter2", "--user=me", "postgres://me:hunter2@db/shop", "order-4711"]
_LIBC = ctypes.CDLL(None, use_errno=True)


class DockerDirectory:
    """A directory as Docker's, and a daemon that reads it."""

    def __init__(self, root: Path, cgroup: Cgroup, make_daemon: MakeDaemon) -> None:
        self.root = root
        root.mkdir(exist_ok=True)
        self._cgroup = cgroup.child("docker")
        self._make_daemon = make_daemon
        self.daemon: Daemon | None = None

    def start(self) -> Daemon:
        self.daemon = self._make_daemon(arguments=["--runtime-root", f"docker={self.root}"])
        self.daemon.wait_ready()
        return self.daemon

    def create(self, name: str = "web", *, is_watched: bool = False) -> tuple[Path, Cgroup]:
        """Create a container: its file, then its cgroup, in Docker's order.

        With ``is_watched``, ``reads`` notices reads of the file from before the cgroup is made.
        """
        container_id = secrets.token_hex(32)
        file = self.root / "containers" / container_id / "config.v2.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"Name": f"/{name}", "Config": {"Image": f"{name}:1", "Labels": {"of": name}}}))
        if is_watched:
            self.reads = ReadWatch(file)
        return file, self._cgroup.child(container_id, 8)


@pytest.fixture
def docker(tmp_path: Path, cgroup: Cgroup, make_daemon: MakeDaemon) -> DockerDirectory:
    return DockerDirectory(tmp_path / "docker", cgroup, make_daemon)


def kill(daemon: Daemon, eat: Eat, group: Cgroup, extra: Sequence[str] = ()) -> tuple[Record, float]:
    """The record of a kill in this cgroup, and its delay after the victim's exit, in seconds."""
    eater = eat(16, group, extra=extra).die()
    ended = time.monotonic()
    for _ in attempts():
        for record in daemon.of_type("oom_kill"):
            if record["victim"]["pid"] == eater.pid:
                return record, time.monotonic() - ended
    pytest.fail("no record")


def test_read_when_the_cgroup_is_made(docker: DockerDirectory, eat: Eat) -> None:
    """Files removed before the kill have been read, when the container's cgroup was made."""
    daemon = docker.start()
    for number in range(5 if IN_VM else 20):
        file, group = docker.create(f"web-{number}", is_watched=True)
        docker.reads.wait()
        shutil.rmtree(file.parent)
        container = kill(daemon, eat, group)[0]["container"]
        assert (container["runtime"], container["name"]) == ("docker", f"web-{number}")
        assert (container["image"], container["labels"]) == (f"web-{number}:1", {"of": f"web-{number}"})


def test_read_at_start(docker: DockerDirectory, eat: Eat) -> None:
    """Files of containers older than the daemon have been read at its start."""
    file, group = docker.create(is_watched=True)
    daemon = docker.start()
    docker.reads.wait()
    shutil.rmtree(file.parent)
    assert kill(daemon, eat, group)[0]["container"]["name"] == "web"
    assert daemon.stop()["metadata_errors"] == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["--password=[redacted]", "--user=me", "postgres://me:[redacted]@db/shop", "order-4711"]),
        (["--redact", r"order-(\d+)", "--no-redact-defaults"], [*SECRETS[:3], "order-[redacted]"]),
        (["--no-cmdline"], None),
    ],
)
def test_secrets(
    arguments: list[str], expected: list[str] | None, make_daemon: MakeDaemon, cgroup: Cgroup, eat: Eat
) -> None:
    """Passwords, and matches of the operator's expressions, are redacted."""
    daemon = make_daemon(arguments=arguments)
    daemon.wait_ready()
    record, _ = kill(daemon, eat, cgroup.child("limit", 8), SECRETS)
    cmdline = record["victim"]["cmdline"]
    assert expected == (cmdline and cmdline[-len(SECRETS) :])


def huge(file: Path) -> None:
    with file.open("wb") as opened:
        opened.truncate(100 << 20)


def fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def link(file: Path) -> None:
    stolen = file.parents[3] / "stolen.json"
    file.replace(stolen)
    file.symlink_to(stolen)


def wrong(file: Path) -> None:
    file.write_text('{"Name": 1, "Config": [[[[')


def test_hostile_files(docker: DockerDirectory, eat: Eat) -> None:
    """The record lacks the name, the error is counted, and nothing is delayed."""
    daemon = docker.start()
    groups = []
    for spoil in (huge, fifo, link, wrong):
        file, group = docker.create()
        spoil(file)
        groups.append(group)
    time.sleep(2.1)  # until the metadata read before the damage expires
    for group in groups:
        record, late_s = kill(daemon, eat, group)
        assert record["container"]["id"] == group.path.name
        assert late_s < IN_TIME_S
    assert daemon.stop()["metadata_errors"] >= len(groups)


def test_folder_replaced(docker: DockerDirectory, eat: Eat) -> None:
    """After the directory is replaced, the new one is read."""
    daemon = docker.start()
    file, group = docker.create()
    shutil.move(docker.root, docker.root.parent / "old")
    file.parent.mkdir(parents=True)
    file.write_text('{"Name": "/other"}')
    time.sleep(2.1)
    assert kill(daemon, eat, group)[0]["container"]["name"] == "other"


@pytest.fixture
def dead_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system whose server never answers requests."""
    if IN_VM:
        not_applicable("the guests lack the FUSE module")
    require(os.path.exists("/dev/fuse"), "/dev/fuse")
    where = tmp_path / "docker"
    where.mkdir()
    server = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0"
    if _LIBC.mount(b"dead", os.fsencode(where), b"fuse", 0, options.encode()):
        raise OSError(ctypes.get_errno(), "mount")
    yield where
    os.close(server)  # waiting readers get an error now
    _LIBC.umount2(os.fsencode(where), 2)  # MNT_DETACH


def test_disk_that_hangs(dead_disk: Path, tmp_path: Path, cgroup: Cgroup, make_daemon: MakeDaemon, eat: Eat) -> None:
    """Records wait briefly for the hung disk, later not at all; the daemon stops cleanly."""
    daemon = make_daemon(arguments=["--runtime-root", f"docker={dead_disk}"])
    daemon.wait_ready()
    group = cgroup.child("docker").child(secrets.token_hex(32), 8)
    for _ in range(7):
        record, late_s = kill(daemon, eat, group)
        assert record["container"]["name"] is None
        assert late_s < IN_TIME_S
    assert late_s < TIMEOUT_SCALE * 0.25
    wait_until("the exits", lambda: len(daemon.of_type("oom_exit")) == 7)
    assert daemon.stop()["metadata_errors"] > 0
