# SPDX-License-Identifier: Apache-2.0
"""Fixtures: a daemon with a test's outputs, real kills, and the collectors that take the records."""

import itertools
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.harness.cgroups import Cgroup
from tests.harness.daemon import Daemon
from tests.harness.environment import wait_until
from tests.harness.mounts import mount_missing
from tests.kernel.conftest import Eat, cgroup, eat, hierarchy, pytest_configure
from tests.reliability.conftest import daemon, fresh_daemon

from .certificates import Certificates
from .certificates import make as make_certificates
from .program import Program

__all__ = ["cgroup", "daemon", "eat", "fresh_daemon", "hierarchy", "pytest_configure"]

Kill = Callable[..., set[int]]
Start = Callable[..., Program]


@pytest.fixture(scope="session", autouse=True)
def mounts() -> None:
    """Mount the file systems that the daemon needs."""
    mount_missing()


@pytest.fixture
def kill(cgroup: Cgroup, eat: Eat) -> Kill:
    """``kill(COUNT, pause_ms=0)``: make OOM kills by the limit of a new cgroup; the victims' pids.

    The pids come from the victims' parent, because the daemon records other kills, too.
    """
    numbers = itertools.count()

    def make(count: int, pause_ms: int = 0) -> set[int]:
        group = cgroup.child(f"kill{next(numbers)}", 8)
        eater = eat(16, group, children=count, wait_ms=pause_ms or None, life=600)
        pids = set(eater.children(count))
        wait_until("all are killed", eater.ended, 60 + count * pause_ms / 1000)
        assert group.oom_kills() == count, "the kernel's count"
        return pids

    return make


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority, and certificates of it for localhost."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def start_program(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Start]:
    """``start_program(NAME, COMMAND, ready, environment)`` starts a program, which is killed after the test."""
    started: list[Program] = request.node.stash.setdefault(PROGRAMS, [])

    def start(
        name: str,
        command: Sequence[str | Path],
        ready: Callable[[], object],
        environment: Mapping[str, str] | None = None,
    ) -> Program:
        started.append(Program(name, command, tmp_path, ready, environment))
        return started[-1].start()

    yield start
    for program in started:
        program.close()


PROGRAMS: pytest.StashKey[list[Program]] = pytest.StashKey()
DAEMON: pytest.StashKey[Daemon] = pytest.StashKey()


@pytest.fixture(autouse=True)
def remember_daemon(request: pytest.FixtureRequest) -> None:
    """Remember the daemon for the report of a test that fails."""
    if "daemon" in request.fixturenames:
        request.node.stash[DAEMON] = request.getfixturevalue("daemon")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the output of programs and daemon to the report of a failed test."""
    report = yield
    if report.failed and call.when == "call":
        for program in item.stash.get(PROGRAMS, []):
            report.sections.append((f"output of {program.name}", program.output()))
        if started := item.stash.get(DAEMON, None):
            report.sections.append(("stderr of the daemon", started.stderr()[-8192:]))
    return report
