# SPDX-License-Identifier: Apache-2.0
"""Fixtures: the runtimes, each started by the first test that uses it, and a daemon with their directories."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness.cgroups import Hierarchy
from tests.harness.daemon import Daemon, SharedDaemon
from tests.harness.environment import ENGINE, KERNEL
from tests.harness.watch import Watch
from tests.kernel.conftest import hierarchy, kernel_log, watch

from .containerd import Containerd
from .cri import Cri
from .ctr import Ctr
from .docker import Docker
from .image import make_archive, make_tree
from .leftovers import Leftovers
from .lxc import Lxc
from .nspawn import Nspawn
from .podman import Podman
from .runtime import SYSTEMD, Container, Runtime
from .runtime_starter import RuntimeStarter
from .victims import Victims

# Without `spared`: containers would inherit its oom_score_adj, and no process in them could be killed.
__all__ = ["hierarchy", "kernel_log", "watch"]

RUNTIMES = ("docker", "podman", "ctr", "cri-burstable", "cri-guaranteed", "lxc", "nspawn")

Start = Callable[[], Container]


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """The directory of all runtimes; its path is short because of the sockets in it."""
    path = Path(tempfile.mkdtemp(prefix="oomtrace-"))
    path.chmod(0o755)
    left_over = Leftovers(path)
    yield path
    left = left_over.clear()
    shutil.rmtree(path, ignore_errors=True)
    assert left == [], "left behind by the runtimes"


@pytest.fixture(scope="session")
def runtimes(folder: Path) -> Iterator[dict[str, Runtime]]:
    """All runtimes; none is started yet."""
    tree = make_tree(folder / "tree")
    archive = make_archive(tree, folder / "image.tar")
    containerd = Containerd(folder / "containerd", archive)
    made: dict[str, Runtime] = {
        "docker": Docker(folder / "docker", tree, archive, containerd),
        "podman": Podman(folder / "podman", tree, archive),
        "ctr": Ctr(folder / "ctr", tree, archive, containerd),
        "cri-burstable": Cri(folder / "cri", tree, archive, containerd, "burstable"),
        "cri-guaranteed": Cri(folder / "cri", tree, archive, containerd, "guaranteed"),
        "lxc": Lxc(folder / "lxc", tree, archive),
        "nspawn": Nspawn(folder / "nspawn", tree, archive),
    }
    yield made
    containerd.stop()


@pytest.fixture(scope="session")
def running(runtimes: dict[str, Runtime]) -> Iterator[RuntimeStarter]:
    """Starts runtimes, and stops them at the end of the session."""
    keeper = RuntimeStarter(runtimes)
    yield keeper
    keeper.stop()


@pytest.fixture(scope="session", params=RUNTIMES)
def runtime(request: pytest.FixtureRequest, running: RuntimeStarter) -> Runtime:
    """Each runtime in turn."""
    return running.start(request.param)


@pytest.fixture(scope="session")
def docker(running: RuntimeStarter) -> Docker:
    runtime = running.start("docker")
    assert isinstance(runtime, Docker)
    return runtime


@pytest.fixture(scope="session")
def podman(running: RuntimeStarter) -> Podman:
    runtime = running.start("podman")
    assert isinstance(runtime, Podman)
    return runtime


@pytest.fixture(scope="session")
def shared_daemon(
    tmp_path_factory: pytest.TempPathFactory,
    runtimes: dict[str, Runtime],
    record_testsuite_property: Callable[[str, object], None],
) -> Iterator[SharedDaemon]:
    """The daemon of the session; a test that needs none stops it."""
    for name, value in (("kernel", KERNEL), ("cgroup", Hierarchy.find().version), ("engine", ENGINE)):
        record_testsuite_property(name, value)
    record_testsuite_property("systemd", SYSTEMD)
    roots = {f"{name}={path}" for runtime in runtimes.values() for name, path in runtime.roots().items()}
    arguments = ["--network", *(argument for root in sorted(roots) for argument in ("--runtime-root", root))]

    def make() -> Daemon:
        daemon = Daemon(tmp_path_factory.mktemp("tracer"))
        daemon.spawn(*arguments)
        return daemon

    shared = SharedDaemon(make)
    yield shared
    shared.stop()


@pytest.fixture(scope="session", autouse=True)
def daemon_starts_first(shared_daemon: SharedDaemon) -> None:
    """The daemon is attached before the first runtime is started, as on a host that boots."""
    shared_daemon.get()


@pytest.fixture
def tracer(shared_daemon: SharedDaemon) -> Daemon:
    """The daemon that tests share, attached."""
    return shared_daemon.get()


@pytest.fixture
def start(runtime: Runtime) -> Iterator[Start]:
    """Starts containers; they are removed after the test."""
    containers: list[Container] = []

    def run() -> Container:
        containers.append(runtime.run())
        return containers[-1]

    yield run
    for container in containers:
        runtime.remove(container)


@pytest.fixture
def victims(watch: Watch) -> Victims:
    """The victims of this test."""
    return Victims(watch)
