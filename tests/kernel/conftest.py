# SPDX-License-Identifier: Apache-2.0
"""Fixtures: the daemon, temporary cgroups, the memory eater, and the kernel's log and counters."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.harness.cgroups import Cgroup, Hierarchy
from tests.harness.daemon import Daemon, SharedDaemon
from tests.harness.eater import Eater, Option, Words
from tests.harness.environment import CPUS, ENGINE, HAS_BTF, IN_VM, KERNEL, KERNEL_VERSION, ROOT
from tests.harness.kernel_log import KernelLog
from tests.harness.oracles import Record
from tests.harness.watch import Watch

Eat = Callable[..., Eater]
MakeDaemon = Callable[..., Daemon]
Fence = Callable[[], Record]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "vm: may bring down the host or needs full root privileges, so it runs in a virtual machine only"
    )
    config.addinivalue_line("markers", "cpus(count): needs this many CPUs")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    unfit = [item for item in items if not _fits(item)]
    if unfit:
        config.hook.pytest_deselected(items=unfit)
        items[:] = [item for item in items if item not in unfit]


def _fits(item: pytest.Item) -> bool:
    """Whether this test can run on this machine."""
    needed = item.get_closest_marker("cpus")
    return (IN_VM or not item.get_closest_marker("vm")) and (needed is None or needed.args[0] <= CPUS)


@pytest.fixture(scope="session")
def hierarchy() -> Hierarchy:
    """The hierarchy of the memory controller."""
    return Hierarchy.find()


@pytest.fixture(scope="session", autouse=True)
def spared() -> None:
    """In a VM, where tests exhaust the host's memory, protect the tests and the daemon from the OOM killer."""
    assert os.geteuid() == 0, "these tests make OOM kills and load BPF programs: run them as root"
    if IN_VM:
        Path("/proc/self/oom_score_adj").write_text("-1000")


@pytest.fixture(scope="session")
def kernel_log() -> Iterator[KernelLog]:
    """The kernel log, read for the whole session."""
    log = KernelLog()
    yield log
    log.close()


@pytest.fixture(scope="session")
def early_eaters() -> Iterator[list[Eater]]:
    """The process that was started before the shared daemon, which knows its command line from /proc only."""
    eaters: list[Eater] = []
    yield eaters
    for eater in eaters:
        eater.close()


@pytest.fixture(scope="session")
def shared_daemon(
    tmp_path_factory: pytest.TempPathFactory,
    hierarchy: Hierarchy,
    early_eaters: list[Eater],
    record_testsuite_property: Callable[[str, object], None],
) -> Iterator[SharedDaemon]:
    """The daemon of the session; a test that needs none, or its own, stops it."""
    record_testsuite_property("kernel", KERNEL)
    record_testsuite_property("cgroup", hierarchy.version)
    record_testsuite_property("engine", ENGINE)
    sources: list[str] = []

    def make() -> Daemon:
        while early_eaters:
            early_eaters.pop().close()
        early_eaters.append(Eater(30, gate=True, life=3600, comm="early", extra=["early", "bird"]))
        early_eaters[0].start()
        daemon = Daemon(tmp_path_factory.mktemp("tracer"))
        daemon.spawn()
        return daemon

    def record_source(start: Record) -> None:
        if start["source"] not in sources[-1:]:
            sources.append(start["source"])
            record_testsuite_property("source", start["source"])

    shared = SharedDaemon(make, record_source)
    yield shared
    shared.stop()


@pytest.fixture
def tracer(shared_daemon: SharedDaemon) -> Daemon:
    """The daemon that tests share, attached."""
    return shared_daemon.get()


@pytest.fixture
def early_eater(tracer: Daemon, early_eaters: list[Eater]) -> Eater:
    """The eater that was started before the shared daemon."""
    return early_eaters[0]


@pytest.fixture
def make_daemon(shared_daemon: SharedDaemon, tmp_path: Path) -> Iterator[MakeDaemon]:
    """Starts daemons for one test; at most one daemon runs otherwise."""
    shared_daemon.stop()
    made: list[Daemon] = []

    def make(
        *outputs: Path,
        pins: Path | None = None,
        arguments: Sequence[str] = (),
        root: Path = ROOT,
        wrapper: Sequence[str] = (),
    ) -> Daemon:
        daemon = Daemon(tmp_path, *outputs, pins=pins)
        made.append(daemon)
        # Most tests want no records of kills before their daemon.
        daemon.spawn(*(["--no-backfill"] if pins else []), *arguments, wrapper=wrapper, root=root)
        return daemon

    yield make
    for daemon in made:
        if daemon.process.poll() is None:
            daemon.terminate()
        daemon.check_lines()


@pytest.fixture
def kprobes(tracer: Daemon) -> bool:
    """Whether kprobes are attached; a kernel without them has the tracepoints only."""
    return bool(tracer.wait_ready()["source"] == "bpf")


@pytest.fixture
def statistics(kprobes: bool) -> bool:
    """Whether ``limit.breakdown`` is known; without BTF bcc uses kernel headers, which lack it since Linux 5.13."""
    return kprobes and (HAS_BTF or KERNEL_VERSION < (5, 13))


@pytest.fixture
def cgroup(hierarchy: Hierarchy) -> Iterator[Cgroup]:
    """A cgroup without a limit, parent of a test's cgroups."""
    group = hierarchy.make(f"oomtrace-test-{os.getpid()}")
    yield group
    group.remove()


@pytest.fixture
def watch(tracer: Daemon, kernel_log: KernelLog, tmp_path: Path) -> Iterator[Watch]:
    """Records and kernel log of this test; at its end they must agree with the kernel's counters."""
    observer = Watch(tracer, kernel_log, tmp_path)
    yield observer
    observer.close()


@pytest.fixture
def eat(cgroup: Cgroup) -> Iterator[Eat]:
    """Starts eaters: ``eat(MIB, group, ..., option=value)``; they are killed before the cgroups are removed."""
    eaters: list[Eater] = []

    def start(
        mib: int,
        *groups: Cgroup,
        extra: Words = (),
        argv0: str | None = None,
        through: Words = (),
        **options: Option,
    ) -> Eater:
        eaters.append(Eater(mib, groups, extra=extra, argv0=argv0, through=through, **options))
        return eaters[-1]

    yield start
    for eater in eaters:
        eater.close()


@pytest.fixture
def fence(watch: Watch, cgroup: Cgroup, eat: Eat) -> Fence:
    """Makes a kill and waits for its record; earlier kills would have been recorded by then."""
    return lambda: watch.kill(eat(16, cgroup.child("fence", 8)).die())
