# SPDX-License-Identifier: Apache-2.0
"""Fixtures: the tracer, temporary cgroups, the memory eater, and the kernel's own account."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.harness.cgroups import Cgroup, Hierarchy
from tests.harness.daemon import Daemon
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
        "markers", "vm: endangers the whole host, or needs all of root's rights, so it runs in a virtual machine only"
    )
    config.addinivalue_line("markers", "cpus(count): needs so many CPUs")


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
    """In a VM, where tests let the whole host run out of memory, these tests and the tracer are not to die of it."""
    assert os.geteuid() == 0, "these tests make OOM kills and load BPF programs: run them as root"
    if IN_VM:
        Path("/proc/self/oom_score_adj").write_text("-1000")


@pytest.fixture(scope="session")
def kernel_log() -> Iterator[KernelLog]:
    """The kernel log, followed through the whole session."""
    log = KernelLog()
    yield log
    log.close()


class Tracers:
    """At most one tracer runs at a time: that which most tests share, or one that a test makes for itself."""

    def __init__(self, folder: Callable[[], Path], announce: Callable[[str, object], None]) -> None:
        self._folder = folder
        self._announce = announce
        self._shared: Daemon | None = None
        self._source: object = None
        self._broken = False

    def shared(self) -> Daemon:
        """The tracer that tests share, started when it is not running."""
        assert not self._broken, "the tracer did not start, see above"
        if self._shared is not None and self._shared.process.poll() is not None:
            died, self._shared = self._shared, None
            died.end()
            pytest.fail(f"the tracer died: {died.errors.read_text()[-4000:]}")
        if self._shared is None:
            self._broken = True  # until it is attached: not every test should wait for that
            self._shared = Daemon(self._folder())
            source = self._shared.start()["source"]
            self._broken = False
            if source != self._source:
                self._announce("source", source)
            self._source = source
        return self._shared

    def stop(self) -> None:
        """End the shared tracer and check its account of itself."""
        tracer, self._shared = self._shared, None
        if tracer is None:
            return
        if self._broken:
            tracer.process.kill()
            tracer.end()
            return
        stop = tracer.stop()
        assert len(tracer.of_type("oom_kill")) == stop["records"]
        assert stop["lost"] == 0
        assert list(range(len(tracer.records))) == [record["seq"] for record in tracer.records]


@pytest.fixture(scope="session")
def tracers(
    tmp_path_factory: pytest.TempPathFactory,
    hierarchy: Hierarchy,
    record_testsuite_property: Callable[[str, object], None],
) -> Iterator[Tracers]:
    """Keeps the shared tracer."""
    record_testsuite_property("kernel", KERNEL)
    record_testsuite_property("cgroup", hierarchy.version)
    record_testsuite_property("engine", ENGINE)
    keeper = Tracers(lambda: tmp_path_factory.mktemp("tracer"), record_testsuite_property)
    yield keeper
    keeper.stop()


@pytest.fixture
def tracer(tracers: Tracers) -> Daemon:
    """The tracer that tests share."""
    return tracers.shared()


@pytest.fixture
def make_daemon(tracers: Tracers, tmp_path: Path) -> Iterator[MakeDaemon]:
    """Makes tracers for this test alone."""
    tracers.stop()
    made: list[Daemon] = []

    def make(*outputs: Path, arguments: Sequence[str] = (), root: Path = ROOT, by: Sequence[str] = ()) -> Daemon:
        made.append(Daemon(tmp_path, *outputs, arguments=arguments, root=root, by=by))
        return made[-1]

    yield make
    for daemon in made:
        if daemon.process.poll() is None:
            daemon.process.terminate()
        daemon.end()


@pytest.fixture
def kprobes(tracer: Daemon) -> bool:
    """Whether the tracer sees all hooks; a kernel without kprobes leaves it the tracepoints."""
    return bool(tracer.start()["source"] == "bpf")


@pytest.fixture
def statistics(kprobes: bool) -> bool:
    """Whether the breakdown can be read: the headers that bcc takes where there is no BTF hide it since 5.13."""
    return kprobes and (HAS_BTF or KERNEL_VERSION < (5, 13))


@pytest.fixture
def cgroup(hierarchy: Hierarchy) -> Iterator[Cgroup]:
    """A cgroup without a limit, to make others in."""
    group = hierarchy.make(f"oomtrace-test-{os.getpid()}")
    yield group
    group.remove()


@pytest.fixture
def watch(tracer: Daemon, kernel_log: KernelLog, tmp_path: Path) -> Iterator[Watch]:
    """What happens during this test; at its end the records and the kernel's account must agree."""
    observer = Watch(tracer, kernel_log, tmp_path)
    yield observer
    observer.close()


@pytest.fixture
def eat(cgroup: Cgroup) -> Iterator[Eat]:
    """Starts eaters: `eat(MIB, group, ..., option=value)`; they are gone before the cgroups are."""
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
    """Makes a kill and waits for its record: records of what came before would have come by then."""
    return lambda: watch.kill(eat(16, cgroup.child("fence", 8)).die())
