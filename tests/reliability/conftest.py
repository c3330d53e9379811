# SPDX-License-Identifier: Apache-2.0
"""Fixtures: runs of the tracer, storms, and their account."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.cgroups import Cgroup
from tests.harness.daemon import BPFFS, Daemon
from tests.harness.eater import Eater
from tests.harness.environment import attempts
from tests.harness.oracles import vmstat_oom_kills
from tests.kernel.conftest import Eat, cgroup, eat, hierarchy, pytest_configure

from .tally import Tally

__all__ = ["cgroup", "eat", "hierarchy", "pytest_configure"]


@pytest.fixture
def fresh_daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon as on its first start since boot: it has no ledger, so no kill before it is accounted for."""
    made = Daemon(
        tmp_path,
        tmp_path / "records.jsonl",
        pins=BPFFS / f"oomtrace-test-{os.getpid()}",
        state=tmp_path / "state",
    )
    yield made
    made.close()


@pytest.fixture
def daemon(fresh_daemon: Daemon) -> Daemon:
    """A daemon whose ledger accounts for all kills so far."""
    fresh_daemon.account_for_past_kills()
    return fresh_daemon


class Storm:
    """Processes that are killed, in one cgroup or several, and the kernel's count of them since the beginning."""

    def __init__(self, cgroup: Cgroup, eat: Eat) -> None:
        self._cgroup, self._eat = cgroup, eat
        self._before = vmstat_oom_kills()
        self._groups: list[Cgroup] = []
        self._eaters: list[Eater] = []

    def brew(self, kills: int, *, pause_ms: int = 0, jobs: int = 2) -> Eater:
        """Begin: so many kills, one after the other, in a cgroup of its own."""
        group = self._cgroup.child(f"storm{len(self._groups)}", 8)
        self._groups.append(group)
        self._eaters.append(self._eat(16, group, children=kills, jobs=jobs, wait_ms=pause_ms or None, life=600))
        return self._eaters[-1]

    def keep_up(self, eater: Eater, kills: int, *, pause_ms: int) -> Eater:
        """Begin another one where this one is over: how long a tracer takes to start depends on the machine."""
        return self.brew(kills, pause_ms=pause_ms) if eater.ended() else eater

    def end(self, *eaters: Eater) -> None:
        """Wait until all is over."""
        for eater in eaters:
            for _ in attempts(300):
                if eater.ended():
                    break

    def kills(self) -> int:
        """As /proc/vmstat counts them; the cgroups' own counts agree, as nothing else was killed."""
        counted = vmstat_oom_kills() - self._before
        assert counted == sum(group.oom_kills() for group in self._groups), "something else was killed meanwhile"
        return counted

    def victims(self) -> set[int]:
        """Their pids, as their parents saw them."""
        return {pid for eater in self._eaters for pid in eater.children()}

    def tally(self, fault: str, times: int, daemon: Daemon) -> Tally:
        """The account; written down for the documentation."""
        return Tally.of(fault, times, self.kills(), daemon.records()).write()


@pytest.fixture
def storm(cgroup: Cgroup, eat: Eat) -> Storm:
    """Nothing is killed yet."""
    return Storm(cgroup, eat)
