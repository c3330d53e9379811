# SPDX-License-Identifier: Apache-2.0
"""Records and kernel log during one test, compared with each other."""

from pathlib import Path

import pytest

from . import oracles, twins
from .daemon import Daemon
from .eater import Eater
from .environment import TIMEOUT_S, attempts
from .kernel_log import KernelLog, Kill
from .oracles import Record


class Watch:
    """Starts with a test.

    Other kills on this host may happen meanwhile; they are in records, log and counters alike.
    """

    def __init__(self, tracer: Daemon, log: KernelLog, folder: Path) -> None:
        self._tracer = tracer
        self._log = log
        self._folder = folder
        self._steady: set[int] = set()
        log.pace(2)
        for _ in attempts(1):
            self._kills_before = len(log.poll())
            log.raw.clear()
            self._count_before = oracles.vmstat_oom_kills()
            if self._kills_before == len(log.poll()):
                break
        self._records_before = len(tracer.records())
        self._overruns_before = log.overruns  # earlier tests that do not read the log may have let it overflow

    @property
    def kprobes(self) -> bool:
        """Whether kprobes are attached, or only the tracepoints of a kernel without them."""
        return bool(self._tracer.wait_ready()["source"] == "bpf")

    def pace(self, reports: int) -> None:
        """Wait until the kernel logs this many reports in full."""
        self._log.pace(reports)

    def records(self, kind: str = "oom_kill") -> list[Record]:
        """Records of a type since the test started."""
        self._log.poll()  # a storm overwrites what is not read
        return [record for record in self._tracer.records()[self._records_before :] if record["type"] == kind]

    def logged(self) -> list[Kill]:
        """Kills in the kernel log since the test started."""
        return self._log.poll()[self._kills_before :]

    def kill(self, victim: Eater | int) -> Record:
        """Wait for the record of this process's kill, and check it against the kernel log."""
        pid = victim if isinstance(victim, int) else victim.pid
        return self.kills([pid])[0]

    def kills(self, pids: list[int], *, steady: bool = True, complete: bool = True) -> list[Record]:
        """Wait for one record of each of these processes' kills, and check them against the kernel log.

        Counters are not ``steady`` if other processes allocate in the cgroup at the same time; the incident is not
        ``complete`` if the kernel skips kprobes.
        """
        found: dict[int, list[Record]] = {}
        for _ in attempts():
            records = self.records()
            found = {pid: [record for record in records if record["victim"]["pid"] == pid] for pid in pids}
            if all(found.values()):
                break
        assert dict.fromkeys(pids, 1) == {pid: len(found[pid]) for pid in pids}, "records of each victim"
        for pid in pids:
            logged = self.logged_kill(found[pid][0])
            oracles.check_victim(found[pid][0], logged)
            if complete and logged.report is not None:
                oracles.check_report(found[pid][0], logged.report, self.kprobes, steady)
        if steady and complete:
            self._steady.update(found[pid][0]["victim"]["tid"] for pid in pids)
        return [found[pid][0] for pid in pids]

    def parsed(self) -> dict[int, Record]:
        """Victim's tid -> record that parse makes from the kernel log since the test started."""
        self._log.poll()
        return twins.parsed(self._log.raw, self._folder / "kmsg.txt")

    def logged_kill(self, record: Record) -> Kill:
        """Wait for the kernel log's line about the kill of a record."""
        for _ in attempts():
            for kill in self.logged():
                if kill.tid == record["victim"]["tid"]:
                    return kill
        pytest.fail(f"the kernel log has no kill of {record['victim']['tid']}")

    def exit_of(self, record: Record) -> Record:
        """Wait for the oom_exit record of a kill."""
        for _ in attempts():
            for gone in self.records("oom_exit"):
                if gone["id"] == record["id"]:
                    return gone
        pytest.fail(f"no oom_exit record of {record['victim']['pid']} within {TIMEOUT_S:.0f} s")

    def close(self) -> None:
        """Check that every kill counted by the kernel is logged and has one record, and that no other record exists.

        The record that parse makes from the log must agree.
        """
        expected: object = None
        actual: object = None
        for _ in attempts():
            counted = oracles.vmstat_oom_kills() - self._count_before
            logged = [kill.tid for kill in self.logged()]
            traced = [record["victim"]["tid"] for record in self.records()]
            expected = counted, sorted(set(logged))
            actual = len(logged), sorted(traced)
            if expected == actual:
                break
        assert self._log.overruns == self._overruns_before, "the kernel log was overwritten before it was read"
        assert expected == actual, "(kernel's count, victims in the kernel log) == (kills logged, victims traced)"
        assert self.records("lost") == []
        records = self.records()  # before parsing: other processes may be killed meanwhile
        parsed, logs = self.parsed(), {kill.tid: kill for kill in self.logged()}
        for record in records:
            tid = record["victim"]["tid"]
            twins.check(record, parsed[tid], logs[tid], steady=tid in self._steady)
        assert parsed.keys() <= logs.keys(), "parse has records without a kill"
