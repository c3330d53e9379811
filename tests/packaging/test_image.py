# SPDX-License-Identifier: Apache-2.0
"""The container image, run by Docker with the capabilities, mounts and limits of the DaemonSet only."""

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.harness.cgroups import Cgroup, Hierarchy
from tests.harness.eater import Eater, binary
from tests.harness.environment import IN_VM, KERNEL_VERSION, MIB, ROOT, START_TIMEOUT_S, TIMEOUT_S, attempts, require
from tests.harness.oracles import Record
from tests.harness.schema import check_line
from tests.runtimes.commands import run
from tests.runtimes.containerd import Containerd
from tests.runtimes.cri import Cri
from tests.runtimes.docker import Docker
from tests.runtimes.image import make_archive, make_tree
from tests.runtimes.leftovers import Leftovers
from tests.runtimes.runtime import LIMIT_BYTES, Container, Runtime
from tests.runtimes.runtime_starter import RuntimeStarter
from tests.runtimes.victims import check_names, check_verdict
from tracer import __version__
from tracer.capture.pins import detach_captures
from tracer.identity.runtimes import ROOTS

from . import dockerfile
from .daemonset import container, docker_options

NODE = "node-under-test"
NAME = "oomtrace-daemonset"
NOBODY = 65534


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Docker's directory, on a shared mount as systemd makes the root."""
    path = Path(tempfile.mkdtemp(prefix="oomtrace-"))
    path.chmod(0o755)
    left_over = Leftovers(path)
    subprocess.run(["mount", "--bind", path, path], check=True)
    subprocess.run(["mount", "--make-shared", path], check=True)
    yield path
    subprocess.run(["umount", path], check=True)
    left = left_over.clear()
    shutil.rmtree(path, ignore_errors=True)
    assert left == [], "left behind by Docker"


@pytest.fixture(scope="module")
def runtimes(folder: Path) -> Iterator[dict[str, Runtime]]:
    """Docker, which also runs the DaemonSet's container, and pods made as by a kubelet."""
    tree = make_tree(folder / "tree")
    archive = make_archive(tree, folder / "victim.tar")
    containerd = Containerd(folder / "containerd", archive)
    made: dict[str, Runtime] = {
        "docker": Docker(folder / "docker", tree, archive, containerd),
        "cri": Cri(folder / "cri", tree, archive, containerd, "burstable"),
    }
    running = RuntimeStarter(made)
    for name in made:
        running.start(name)
    yield made
    running.stop()
    containerd.stop()


@pytest.fixture(scope="module")
def docker(runtimes: dict[str, Runtime]) -> Docker:
    found = runtimes["docker"]
    assert isinstance(found, Docker)
    return found


@pytest.fixture(params=["docker", "cri"])
def runtime(request: pytest.FixtureRequest, runtimes: dict[str, Runtime]) -> Runtime:
    return runtimes[request.param]


class Neighbour(NamedTuple):
    """A process outside of containers that fills most of its cgroup's limit."""

    process: Eater
    cgroup: Cgroup


class Image(NamedTuple):
    name: str
    options: tuple[str, ...] = ()
    """More options of ``docker run``."""


@pytest.fixture(scope="module")
def image(docker: Docker, folder: Path) -> Iterator[Image]:
    """The image, with its name in the DaemonSet."""
    name = str(container()["image"])
    options = dockerfile.import_options()
    deb = Path(os.environ.get("OOMTRACE_DEB", ROOT / f"dist/oomtrace_{__version__}_all.deb"))
    require(deb.exists(), f"{deb}: make deb")
    if not IN_VM:
        docker.docker("import", *options, dockerfile.archive(deb), name)
        yield Image(name)
        return
    # Without a mirror: the guest's /usr, which has the package's dependencies, with the package unpacked over it.
    root, package, usr = folder / "image", folder / "package", folder / "usr"
    for each in (*(root / each for each in ("usr", "etc", "proc", "sys", "dev", "tmp", "run", "var")), package, usr):
        each.mkdir(parents=True)
    for link in ("bin", "sbin", "lib", "lib64"):
        (root / link).symlink_to(f"usr/{link}")
    with tarfile.open(folder / "image.tar", "w") as tar:
        tar.add(root, ".")
    docker.docker("import", *options, folder / "image.tar", name)
    run("dpkg-deb", "--extract", deb, package)
    run("mount", "-t", "overlay", "-o", f"lowerdir={package}/usr:/usr", "overlay", usr)
    yield Image(name, (f"--volume={usr}:/usr:ro",))
    run("umount", usr)


def knows_bpf(docker: Docker, image: Image) -> bool:
    """Replace BPF and PERFMON by SYS_ADMIN, of which they are parts, for Debian 12's Docker, which lacks them."""
    created = subprocess.run(
        docker.command("create", "--name=capable", "--cap-add=BPF", image.name), capture_output=True, text=True
    )
    docker.docker("rm", "capable", check=False)
    assert created.returncode == 0 or "unknown capability" in created.stderr, created.stderr
    return created.returncode == 0


class Pod:
    """The DaemonSet's container on this node."""

    def __init__(self, docker: Docker, image: Image, place: Callable[[str], Path]) -> None:
        self._docker = docker
        options = docker_options({"spec.nodeName": NODE}, place)
        if not knows_bpf(docker, image):
            options = [option for option in options if option not in ("--cap-add=BPF", "--cap-add=PERFMON")]
        options += [*image.options, image.name, *container()["args"]]
        docker.docker("run", "--detach", f"--name={NAME}", "--network=none", *options)

    def records(self) -> list[Record]:
        lines = self._docker.docker("logs", NAME).splitlines()
        for line in lines:
            check_line(line.encode())
        return [json.loads(line) for line in lines]

    def wait_for(self, what: str, matches: Callable[[Record], bool], seconds: float = TIMEOUT_S) -> Record:
        """Wait for a record that matches; the first one."""
        for _ in attempts(seconds, pause=0.1):
            if found := [record for record in self.records() if matches(record)]:
                return found[0]
        command = self._docker.command("logs", NAME)
        pytest.fail(f"no {what}: {subprocess.run(command, capture_output=True, text=True, check=False)}")

    def kill_of(self, pid: int) -> Record:
        return self.wait_for(
            f"kill of {pid}", lambda record: record["type"] == "oom_kill" and record["victim"]["pid"] == pid
        )

    def stop(self) -> None:
        self._docker.docker("stop", NAME)
        code = self._docker.docker("inspect", "--format={{.State.ExitCode}}", NAME)
        last = self.records()[-1]
        self._docker.docker("rm", "--force", NAME)
        assert (code, last["type"]) == ("0", "stop")
        assert last["metadata_errors"] == 0 or IN_VM  # where reading a file may exceed the deadline for names


@pytest.fixture(scope="module")
def early(runtimes: dict[str, Runtime]) -> Iterator[dict[Runtime, Container]]:
    """A container of each runtime, started before the DaemonSet."""
    containers = {runtime: runtime.run() for runtime in runtimes.values()}
    yield containers
    for runtime, victim in containers.items():
        runtime.remove(victim)


@pytest.fixture(scope="module")
def neighbours() -> Iterator[list[Neighbour]]:
    """Processes of another user, started before the DaemonSet."""
    found: list[Neighbour] = []
    for number in range(5):
        group = Hierarchy.find().make(f"oomtrace-test-{os.getpid()}-{number}")
        group.limit(48 * MIB)
        found.append(Neighbour(Eater(32, [group], hold=True, uid=NOBODY, life=3600).full(), group))
    yield found
    for process, group in found:
        process.close()
        group.remove()


@pytest.fixture(scope="module")
def pod(
    docker: Docker,
    image: Image,
    runtimes: dict[str, Runtime],
    early: dict[Runtime, Container],
    neighbours: list[Neighbour],
    folder: Path,
) -> Iterator[Pod]:
    own = {name: path for runtime in runtimes.values() for name, path in runtime.roots().items()}
    roots = {usual: path for name, path in own.items() for usual in ROOTS[name]}

    def place(path: str) -> Path:
        """The path on this host: the tests' runtimes have their own directories, those of others are empty."""
        if path == "/sys/fs/bpf":
            return pins
        if path.startswith("/sys/"):
            return Path(path)
        found = folder / "empty" / path.lstrip("/")
        for root, its in roots.items():
            if f"{path}/".startswith(f"{root}/"):
                found = its / path.removeprefix(root).lstrip("/")
        found.mkdir(parents=True, exist_ok=True)  # as by a kubelet
        return found

    pins = Path("/sys/fs/bpf", f"oomtrace-test-{os.getpid()}")
    pins.mkdir()
    running = Pod(docker, image, place)
    start = running.wait_for("start", lambda record: record["type"] == "start", START_TIMEOUT_S)
    assert start["pinned"] or KERNEL_VERSION < (5, 15)
    yield running
    running.stop()
    detach_captures(f"{pins}/oomtrace")
    pins.rmdir()


def check_victim(record: Record, runtime: Runtime, container: Container) -> None:
    """Check that the record has the runtime's names, and the host's pids and paths."""
    description = runtime.describe(container)
    del description.container["ip_addresses"]  # only with --network
    check_names(container, description, runtime, record)
    assert record["host"]["name"] == NODE
    assert record["victim"]["cgroup"] == container.cgroup
    assert (record["limit"]["level"], record["limit"]["limit_bytes"]) == ("container", LIMIT_BYTES)
    assert "GFP_KERNEL" in record["incident"]["gfp_flags"]
    if record["source"] == "bpf":
        assert record["victim"]["points"] > 0
        assert None not in record["limit"]["breakdown"].values()


def test_start(pod: Pod) -> None:
    """All hooks of this kernel are attached."""
    start = pod.wait_for("start", lambda record: record["type"] == "start")
    kprobes = Path("/sys/bus/event_source/devices/kprobe").exists()
    assert (start["source"], start["engine"]) == ("bpf" if kprobes else "bpf_tracepoints", "core")


def test_container(pod: Pod, runtime: Runtime) -> None:
    """The init of another container is killed: names, limit and verdict are recorded."""
    victim = runtime.run()
    victim.eat_in_init()
    record = pod.kill_of(victim.pid)
    check_victim(record, runtime, victim)
    gone = pod.wait_for("exit", lambda gone: gone["type"] == "oom_exit" and gone["id"] == record["id"])
    assert gone["container_init_died"] is True
    # Under emulation Docker may write the verdict later than the record waits for it.
    check_verdict(runtime.verdict(victim), gone, required=not IN_VM)
    runtime.remove(victim)


def test_container_that_was_there(pod: Pod, runtime: Runtime, early: dict[Runtime, Container]) -> None:
    """A container older than the DaemonSet is named."""
    victim = early[runtime]
    victim.eat_in_init()
    check_victim(pod.kill_of(victim.pid), runtime, victim)


def test_process_of_another_user(pod: Pod, neighbours: list[Neighbour]) -> None:
    """Another user's process older than the DaemonSet is killed when a second one allocates: it has cmdline and exe.

    It exits while they are read, so one of five at least must have them.
    """
    for process, group in neighbours:
        asker = Eater(24, [group])
        record = pod.kill_of(process.pid)
        asker.close()
        victim = record["victim"]
        assert (victim["uid"], record["trigger"]["pid"]) == (NOBODY, asker.pid)
        if victim["cmdline"] is not None:
            break
    assert (victim["cmdline"], victim["exe"]) == (process.command_line, str(binary()))
