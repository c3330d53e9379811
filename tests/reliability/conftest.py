# SPDX-License-Identifier: Apache-2.0
"""Fixtures: a daemon with pins and state, storms of kills, and their tally."""

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
    """Storms of kills, each in its own cgroup, and the kernel's count of them."""

    def __init__(self, cgroup: Cgroup, eat: Eat) -> None:
        self._cgroup, self._eat = cgroup, eat
        self._before = vmstat_oom_kills()
        self._groups: list[Cgroup] = []
        self._eaters: list[Eater] = []

    def brew(self, kills: int, *, pause_ms: int = 0, jobs: int = 2) -> Eater:
        """Start a storm of this many kills in a new cgroup."""
        group = self._cgroup.child(f"storm{len(self._groups)}", 8)
        self._groups.append(group)
        self._eaters.append(self._eat(16, group, children=kills, jobs=jobs, wait_ms=pause_ms or None, life=600))
        return self._eaters[-1]

    def keep_up(self, eater: Eater, kills: int, *, pause_ms: int) -> Eater:
        """Start another storm if this one is over; the time that a daemon takes to start depends on the machine."""
        return self.brew(kills, pause_ms=pause_ms) if eater.ended() else eater

    def end(self, *eaters: Eater) -> None:
        """Wait until the storms are over."""
        for eater in eaters:
            for _ in attempts(300):
                if eater.ended():
                    break

    def kills(self) -> int:
        """Kills counted by /proc/vmstat; the cgroups' counts must agree, because nothing else may be killed."""
        counted = vmstat_oom_kills() - self._before
        assert counted == sum(group.oom_kills() for group in self._groups), "other processes were killed"
        return counted

    def victims(self) -> set[int]:
        """Pids of the victims, from their parents."""
        return {pid for eater in self._eaters for pid in eater.children()}

    def tally(self, fault: str, times: int, daemon: Daemon) -> Tally:
        """The tally of a fault, stored for the documentation."""
        return Tally.of(fault, times, self.kills(), daemon.records()).write()


@pytest.fixture
def storm(cgroup: Cgroup, eat: Eat) -> Storm:
    """A storm without kills so far."""
    return Storm(cgroup, eat)
