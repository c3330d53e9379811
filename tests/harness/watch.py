# SPDX-License-Identifier: Apache-2.0
"""What happened during one test: the tracer's records, side by side with what the kernel says."""

from pathlib import Path

import pytest

from . import oracles, twins
from .daemon import Daemon
from .eater import Eater
from .environment import TIMEOUT_S, attempts
from .kernel_log import KernelLog, Kill
from .oracles import Record


class Watch:
    """Begins where a test begins.

    Other kills on this host may happen meanwhile: they are in the records, in the log and in the count alike.
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
        self._overruns_before = log.overruns  # tests that do not look at the log may have let it overflow

    @property
    def kprobes(self) -> bool:
        """Whether the tracer sees all hooks, or only the tracepoints of a kernel without kprobes."""
        return bool(self._tracer.wait_ready()["source"] == "bpf")

    def pace(self, reports: int) -> None:
        """Wait until the kernel would log so many reports in full."""
        self._log.pace(reports)

    def records(self, kind: str = "oom_kill") -> list[Record]:
        """The tracer's records of a type since the test began."""
        self._log.poll()  # a storm overwrites what is not read in time
        return [record for record in self._tracer.records()[self._records_before :] if record["type"] == kind]

    def logged(self) -> list[Kill]:
        """The kernel log's kills since the test began."""
        return self._log.poll()[self._kills_before :]

    def kill(self, victim: Eater | int) -> Record:
        """The record of this process's kill, checked against the kernel log."""
        pid = victim if isinstance(victim, int) else victim.pid
        return self.kills([pid])[0]

    def kills(self, pids: list[int], *, steady: bool = True, complete: bool = True) -> list[Record]:
        """The records of these processes' kills, one each, checked against the kernel log.

        Where others allocate in the same cgroup at the same time, its counters are not `steady`; where the kernel
        skips kprobes, what they tell of the incident is not `complete`.
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
        """The records that parse makes of the kernel's log since the test began, by the thread that was killed."""
        self._log.poll()
        return twins.parsed(self._log.raw, self._folder / "kmsg.txt")

    def logged_kill(self, record: Record) -> Kill:
        """The kernel log's line about the kill in the record."""
        for _ in attempts():
            for kill in self.logged():
                if kill.tid == record["victim"]["tid"]:
                    return kill
        pytest.fail(f"the kernel log has no kill of {record['victim']['tid']}")

    def exit_of(self, record: Record) -> Record:
        """The oom_exit record that follows a kill."""
        for _ in attempts():
            for gone in self.records("oom_exit"):
                if gone["id"] == record["id"]:
                    return gone
        pytest.fail(f"no oom_exit record of {record['victim']['pid']} within {TIMEOUT_S:.0f} s")

    def close(self) -> None:
        """Every kill that the kernel counted was logged, and has exactly one record; nothing else has one.

        And the record that parse makes of the log is the same.
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
        records = self.records()  # first: others may be killed meanwhile
        parsed, logs = self.parsed(), {kill.tid: kill for kill in self.logged()}
        for record in records:
            tid = record["victim"]["tid"]
            twins.check(record, parsed[tid], logs[tid], steady=tid in self._steady)
        assert parsed.keys() <= logs.keys(), "kills that parse made up"
