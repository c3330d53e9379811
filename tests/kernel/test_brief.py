# SPDX-License-Identifier: Apache-2.0
"""Kills that find the ring buffer full are kept as brief events: their records are correct, missing fields null."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness.cgroups import Cgroup
from tests.harness.daemon import Daemon
from tests.harness.environment import IN_VM, TIMEOUT_S, not_applicable, wait_until
from tests.harness.oracles import Record

from .conftest import Eat, MakeDaemon
from .test_pins import other_version

RING_BYTES = 4096
"""The minimum size: room for one kill and its incident."""
Starve = Callable[..., Daemon]


def small_rings(folder: Path, *rings: str) -> Path:
    """A copy of the source tree whose ring buffers of these names have the minimum size."""
    sizes = f"if name in {rings!r}:\n        return {RING_BYTES}\n    if name == "
    return other_version(folder, "tracer/capture/programs.py", "if name == ", sizes)


@pytest.fixture
def starve(make_daemon: MakeDaemon, tmp_path: Path) -> Starve:
    """Starts a daemon whose ring buffers of these names have the minimum size, and waits until it is attached."""

    def make(*rings: str) -> Daemon:
        daemon = make_daemon(root=small_rings(tmp_path, *rings))
        daemon.wait_ready()
        return daemon

    return make


def kills(daemon: Daemon, count: int) -> list[Record]:
    """Continue the daemon, and wait for this many oom_kill records and their oom_exit records."""
    daemon.process.send_signal(signal.SIGCONT)
    for kind in ("oom_kill", "oom_exit"):
        wait_until(f"{count} {kind} records", lambda: len(daemon.of_type(kind)) >= count, 2 * TIMEOUT_S)  # noqa: B023
    assert daemon.stop()["lost"] == 0
    found = daemon.of_type("oom_kill")
    assert {record["id"] for record in found} == {record["id"] for record in daemon.of_type("oom_exit")}
    return found


def test_essentials(starve: Starve, cgroup: Cgroup, eat: Eat) -> None:
    """Reduced records have victim, time, sizes, cgroup (although removed) and limit, in the order of the kills."""
    daemon = starve("events")
    limited = cgroup.child("limited", 8)
    groups = [limited.child(f"inner{number}") for number in range(8)]
    names = [group.name for group in groups]
    daemon.process.send_signal(signal.SIGSTOP)
    eaters = [eat(16, group, comm=f"eater{number}").die() for number, group in enumerate(groups)]
    for group in groups:
        wait_until("the cgroup is empty", lambda: not group.processes())  # noqa: B023
        group.remove()
        limited.children.remove(group)
    records = kills(daemon, len(groups))
    assert [eater.pid for eater in eaters] == [record["victim"]["pid"] for record in records]
    assert [record["time"] for record in records] == sorted(record["time"] for record in records)
    assert [record["reduced"] for record in records[4:]] == [True] * 4
    for number, record in enumerate(records[4:], 4):
        victim = record["victim"]
        assert (victim["comm"], victim["uid"], victim["oom_score_adj"]) == (f"eater{number}", 0, 0)
        assert (victim["cgroup"], record["limit"]["cgroup"]) == (names[number], limited.name)
        assert record["incident"]["scope"] == "memcg"
        assert (record["incident"]["group_kill"], record["incident"]["victims"]) == (False, 1)
        assert 4 << 20 < victim["anon_rss_bytes"] <= victim["rss_bytes"] < victim["total_vm_bytes"]
        assert victim["started_at"] < record["time"]
        assert (record["candidates"], record["network"], victim["ppid"], victim["ancestors"]) == (None,) * 4
        assert record["limit"]["limit_bytes"] is None


def test_shared_mm(starve: Starve, cgroup: Cgroup, eat: Eat) -> None:
    """A process that shares a brief victim's memory was killed by the OOM killer, too: it has no sigkill record."""
    daemon = starve("events")
    group = cgroup.child(f"docker-{'0123456789abcdef' * 4}.scope", 8)
    daemon.process.send_signal(signal.SIGSTOP)
    for _ in range(4):
        eat(16, group).die()
    sharing = eat(16, group, share_mm=True)
    sharing.die()
    daemon.process.send_signal(signal.SIGCONT)
    wait_until("the kills", lambda: len(daemon.of_type("oom_kill")) >= 5, 2 * TIMEOUT_S)
    time.sleep(1.2)  # a SIGKILL sent by the kernel is held back for a second
    assert daemon.stop()["lost"] == 0
    assert daemon.of_type("sigkill") == []
    assert daemon.of_type("oom_kill")[-1]["reduced"] is True


def test_group_kill(starve: Starve, cgroup: Cgroup, eat: Eat) -> None:
    """All members of a group kill have the same incident, with their number."""
    if cgroup.hierarchy.version == 1:
        not_applicable("cgroup v1 has no memory.oom.group")
    daemon = starve("events")
    plain, group = cgroup.child("plain", 8), cgroup.child("group", 24)
    group.write("memory.oom.group", 1)
    daemon.process.send_signal(signal.SIGSTOP)
    for _ in range(2):
        eat(16, plain).die()
    members = [eat(1, group, hold=True).full() for _ in range(3)]
    members.append(eat(48, group))
    pids = {member.die().pid for member in members}
    eat(16, plain).die()
    records = [record for record in kills(daemon, 7) if record["victim"]["pid"] in pids]
    assert pids == {record["victim"]["pid"] for record in records}
    assert len({record["incident"]["id"] for record in records}) == 1
    assert {record["incident"]["victims"] for record in records} == {4}
    assert {record["incident"]["group_kill"] for record in records} == {
        True if daemon.wait_ready()["source"] == "bpf" else None
    }
    assert {record["limit"]["cgroup"] for record in records} == {group.name}


def test_many_cgroups(starve: Starve, cgroup: Cgroup, eat: Eat) -> None:
    """Each record has its cgroup's path, also when cgroups recur; released paths make room for others."""
    daemon = starve("events")
    groups = [cgroup.child(f"group{number}-{'x' * 200}", 8) for number in range(4 if IN_VM else 12)]
    expected: list[str] = []
    for _ in range(2):
        daemon.process.send_signal(signal.SIGSTOP)
        for group in [*groups, *groups]:
            eat(16, group).die()
        expected += [group.name for group in [*groups, *groups]]
        daemon.process.send_signal(signal.SIGCONT)
        wait_until("the records", lambda: len(daemon.of_type("oom_kill")) == len(expected), 2 * TIMEOUT_S)  # noqa: B023
    assert expected == [record["victim"]["cgroup"] for record in kills(daemon, len(expected))]


def test_no_room_at_all(starve: Starve, cgroup: Cgroup, eat: Eat) -> None:
    """Kills that fit into neither ring buffer are counted as lost."""
    daemon = starve("events", "briefs")
    group, count = cgroup.child("group", 8), 60
    daemon.process.send_signal(signal.SIGSTOP)
    eater = eat(16, group, children=count, jobs=1, life=600)
    wait_until("the kills", lambda: group.oom_kills() == count, 10 * TIMEOUT_S)
    eater.close()
    daemon.process.send_signal(signal.SIGCONT)
    lost = daemon.wait_for("lost")
    assert (lost["stage"], lost["count"] > 0) == ("ring_buffer", True)
    daemon.stop()
    bpf = [record for record in daemon.of_type("oom_kill") if record["source"] != "kernel_log"]
    kept = len([record for record in bpf if record["reduced"]])
    assert RING_BYTES // 200 - 2 <= kept <= RING_BYTES // 112
