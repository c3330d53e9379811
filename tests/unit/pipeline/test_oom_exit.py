# SPDX-License-Identifier: Apache-2.0
"""oom_exit.py: the state of a victim's container."""

import json
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.harness import events
from tests.harness.records import RECORDS, complete
from tests.harness.schema import validate
from tracer.capture import wire
from tracer.identity.metadata_cache import MetadataCache
from tracer.identity.runtime_metadata import ContainerState
from tracer.identity.runtimes import ROOTS, Runtimes
from tracer.linux import procfs
from tracer.pipeline.oom_exit import DUE_MAX, POLL_NS, VERDICT_DELAY_NS, VERDICT_TIMEOUT_NS, VICTIMS_MAX, PendingExits
from tracer.records.model import OomExit

ID = "5aaf9eb7648eeb1459d86eaa0ace8bcfa93089642e5c3113a14250dae3238aaf"


@pytest.fixture
def exits(tmp_path: Path) -> PendingExits:
    return PendingExits(MetadataCache(Runtimes([(name, str(tmp_path / name)) for name in ROOTS])))


def gone(pid: int = events.NOBODY) -> OomExit:
    header = events.header(wire.EXIT, time_ns=events.KILL_NS + 1)
    return RECORDS.oom_exit(wire.ExitEvent(header, killed_ns=events.KILL_NS, pid=pid))


def kill(
    exits: PendingExits, init_pid: int, init_started_ns: int = 0, cgroup: bytes = b"/docker/" + ID.encode(), **how: Any
) -> None:
    victim = events.victim(cgroup=events.path(cgroup), **how)
    exits.add_victim(complete(events.kill(victim)), init_pid, init_started_ns)


def write(tmp_path: Path, **state: Any) -> None:
    folder = tmp_path / f"docker/containers/{ID}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.v2.json").write_text(json.dumps({"Name": "/web", "State": state}))


def due(exits: PendingExits, now_ns: int) -> list[OomExit]:
    """The records due then, or shortly later when the runtime's files were read."""
    told = exits.take_due(now_ns)
    for _, request in exits._requests.values():
        assert request.answered.wait(10)
    return [record for record, _ in told + exits.take_due(now_ns + POLL_NS)]


def test_host(exits: PendingExits) -> None:
    """The exit of a process outside containers is complete at once."""
    kill(exits, 0, cgroup=b"/system.slice/hog.service")
    ((record, _),) = exits.add_exit(gone(), 0)
    validate(record)
    assert (record["container_init_died"], record["runtime_verdict"]) == (None, None)
    assert exits.deadline_ns() is None


def test_unknown_victim(exits: PendingExits) -> None:
    """An exit without a kill is complete at once."""
    record = gone()
    assert exits.add_exit(record, 0) == [(record, ())]


def test_init_lives(exits: PendingExits, tmp_path: Path) -> None:
    """A child was killed and the container runs on: the record waits for the runtime's verdict."""
    own = os.getpid()
    start_ns = procfs.read_start_ns(own)
    assert start_ns is not None
    write(tmp_path, Running=True, OOMKilled=True)
    kill(exits, own, start_ns)
    assert exits.add_exit(gone(), 10) == []
    assert exits.deadline_ns() == 10 + VERDICT_DELAY_NS
    assert exits.take_due(9 + VERDICT_DELAY_NS) == []
    (record,) = due(exits, 10 + VERDICT_DELAY_NS)
    validate(record)
    assert record["container_init_died"] is False
    assert record["runtime_verdict"] == {"oom_killed": True, "exit_code": None}


def test_init_died(exits: PendingExits, tmp_path: Path) -> None:
    """A runtime that has not noted the container's end yet is read again."""
    write(tmp_path, Running=True)
    kill(exits, events.NOBODY)
    assert exits.add_exit(gone(), 0) == []
    assert due(exits, VERDICT_DELAY_NS) == []
    write(tmp_path, Running=False, OOMKilled=True, ExitCode=137)
    (record,) = due(exits, 2 * VERDICT_DELAY_NS)
    assert record["container_init_died"] is True
    assert record["runtime_verdict"] == {"oom_killed": True, "exit_code": 137}


def test_runtime_never_notices(exits: PendingExits, tmp_path: Path) -> None:
    """But only until the timeout."""
    write(tmp_path, Running=True)
    kill(exits, events.NOBODY)
    exits.add_exit(gone(), 0)
    now_ns = 0
    told: list[OomExit] = []
    while not told and now_ns < 2 * VERDICT_TIMEOUT_NS:
        now_ns += VERDICT_DELAY_NS
        told = due(exits, now_ns)
    assert now_ns == VERDICT_TIMEOUT_NS
    assert told[0]["container_init_died"] is True


def test_zombie_init(exits: PendingExits) -> None:
    """A zombie init counts as dead."""
    with subprocess.Popen(["true"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        start_ns = procfs.read_start_ns(child.pid)
        assert start_ns is not None
        kill(exits, child.pid, start_ns)
        exits.add_exit(gone(), 0)
        (record,) = due(exits, VERDICT_DELAY_NS)
    assert record["container_init_died"] is True


def test_stop_waits_for_nothing(exits: PendingExits, tmp_path: Path) -> None:
    """At the stop all records are complete, with what is known."""
    write(tmp_path, Running=True)
    for pid in (1, 2):
        kill(exits, events.NOBODY, pid=pid)
        exits.add_exit(gone(pid), 0)
    assert [record["pid"] for record, _ in exits.take_all()] == [1, 2]
    assert exits.deadline_ns() is None


def test_another_id(exits: PendingExits) -> None:
    """The exit of a kill that two captures saw is found under the newer capture's id."""
    kill(exits, 1)
    exits.rename_victim(RECORDS.kill_id(events.INCIDENT_NS, events.NOBODY), "new")
    exits.rename_victim("never heard of", "other")
    record = gone()
    record["id"] = "new"
    assert exits.add_exit(record, 0) == []
    assert exits.take_all() == [(record, ())]


def test_bounded(exits: PendingExits) -> None:
    """Victims without an exit do not accumulate."""
    for pid in range(1, VICTIMS_MAX + 10):
        kill(exits, 0, pid=pid, cgroup=b"/a")
    assert len(exits._victims) == VICTIMS_MAX


def test_container_in_a_container(exits: PendingExits, tmp_path: Path) -> None:
    """A cgroup named like a container inside another container gets no verdict of the host's runtime."""
    write(tmp_path, Running=False, OOMKilled=True, ExitCode=137)
    kill(exits, 1, cgroup=f"/docker/{'f' * 64}/docker/{ID}".encode())
    assert exits.add_exit(gone(), 0) == []
    (record,) = due(exits, VERDICT_TIMEOUT_NS)
    assert record["runtime_verdict"] is None


def test_one_question_for_all_exits_of_a_container(tmp_path: Path) -> None:
    """A container's files are read at most twice a second, and no record waits for that."""
    asked: list[int] = []
    may_answer = threading.Event()

    class Slow(Runtimes):
        def fetch_state(self, container_id: str, runtime: str, user: int | None = None) -> ContainerState | None:
            assert may_answer.wait(60), "somebody waits for the answer"
            asked.append(now_ns)
            return {"running": True, "oom_killed": None, "exit_code": None}

    now_ns, told = 0, []
    exits = PendingExits(MetadataCache(Slow()))
    for step in range(300):
        may_answer.clear()
        now_ns = step * POLL_NS
        kill(exits, events.NOBODY, pid=step + 1)
        exits.add_exit(gone(step + 1), now_ns)
        told += [record for record, _ in exits.take_due(now_ns)]
        may_answer.set()
        for _, request in exits._requests.values():
            assert request.answered.wait(60)
    assert len(asked) <= now_ns // VERDICT_DELAY_NS
    assert len(told) > 100
    assert {record["container_init_died"] for record in told} == {True}


def test_many_exits_wait(exits: PendingExits, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound exits are complete at once; due records come in parts, so that kills are read in between."""
    monkeypatch.setattr("tracer.pipeline.oom_exit.WAITING_MAX", 100)
    told = []
    for pid in range(1, 151):
        kill(exits, events.NOBODY, pid=pid)
        told += [exits.add_exit(gone(pid), 0)]
    assert [built == [] for built in told] == [True] * 100 + [False] * 50
    parts = [len(due(exits, VERDICT_DELAY_NS + step * POLL_NS)) for step in range(20)]
    assert sum(parts) == 100
    assert max(parts) <= 2 * DUE_MAX
