# SPDX-License-Identifier: Apache-2.0
"""Entries of processes in the BPF maps, and when they are removed."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.harness import bpf_maps
from tests.harness.cgroups import Cgroup
from tests.harness.daemon import Daemon
from tests.harness.dying import stopped_in_exit
from tests.harness.environment import IN_VM, attempts, wait_until
from tracer.linux import libbpf

from .conftest import Eat, MakeDaemon

BPF_MAP_TYPE_LRU_HASH = 9
LOCAL_FREE_TARGET = 128
"""Of kernel/bpf/bpf_lru_list.c: free entries of an LRU map that each CPU reserves."""
EMPTIED_BY_EXIT = ("awaiting_exit", "cmdlines")
EMPTIED_LATER = ("awaiting_mark", "victim_by_tid", "sigkilled")
"""Removed in RCU callbacks; some kernels do not run the programs there."""
MAPS = (*EMPTIED_BY_EXIT, *(EMPTIED_LATER if IN_VM else ()))
VICTIM_SIZE = 4 * 8
"""``struct victim`` of bpf/incident.h."""
LAST_PID = Path("/proc/sys/kernel/ns_last_pid")
KILLS = 40 if IN_VM else 200


def test_nothing_is_left(make_daemon: MakeDaemon, cgroup: Cgroup, eat: Eat) -> None:
    """No entries of exited processes are left, killed by the OOM killer, by others, or not at all."""
    daemon = make_daemon(arguments=["--sigkill", "containers"])
    daemon.wait_ready()
    limited, free = cgroup.child(f"docker-{64 * '0'}.scope", 8), cgroup.child(f"docker-{64 * '1'}.scope")
    victims = eat(16, limited, children=KILLS, jobs=2, life=600)
    killer = eat(0, free, kills=KILLS, hold=True, life=600).full()
    wait_until("the OOM kills are over", victims.ended)
    killer.close()
    eat(16, limited, share_mm=True).die()

    def left() -> dict[str, set[int]]:
        maps = bpf_maps.of(daemon.process.pid)
        found = {name: maps[name].keys for name in MAPS}
        found["cmdlines"] -= {int(name) for name in os.listdir("/proc") if name.isdecimal()}
        return {name: keys for name, keys in found.items() if keys}

    # Other processes of the machine come and go: what is left stays in all readings.
    remaining = left()
    for _ in attempts():
        if not remaining:
            break
        now = left()
        remaining = {name: kept for name, keys in remaining.items() if (kept := keys & now.get(name, set()))}
    assert remaining == {}
    wait_until("all exits", lambda: len(daemon.of_type("oom_exit")) >= KILLS + 1)
    assert daemon.stop()["lost"] == 0


def test_room_for_every_cpu(tracer: Daemon) -> None:
    """LRU maps have 1,024 entries beside those that the CPUs reserve."""
    kept = LOCAL_FREE_TARGET * libbpf.library().libbpf_num_possible_cpus()
    room = {
        name: each.capacity - kept
        for name, each in bpf_maps.of(tracer.process.pid).items()
        if each.type == BPF_MAP_TYPE_LRU_HASH
    }
    assert {name for name, entries in room.items() if entries >= 1024} == {
        "victim_by_tid", "awaiting_mark", "awaiting_exit", "sigkilled", "cgroup_rates"
    }  # fmt: skip


def test_exit_of_the_next_process(make_daemon: MakeDaemon, cgroup: Cgroup, eat: Eat) -> None:
    """A victim whose exit was missed is not confused with a later process with its pid."""
    daemon = make_daemon()
    daemon.wait_ready()
    eater = eat(16, cgroup.child("limit", 8), gate=True)
    eater.start()
    with bpf_maps.opened(daemon.process.pid, "awaiting_exit") as awaiting_exit:
        with stopped_in_exit(eater.pid):
            eater.go()
            wait_until("its record", lambda: daemon.of_type("oom_kill"))
            entry = bpf_maps.read(awaiting_exit, eater.pid, VICTIM_SIZE)
        eater.die()
        wait_until("its exit", lambda: daemon.of_type("oom_exit"))
        bpf_maps.write(awaiting_exit, eater.pid, entry)  # as if its exit had been missed
        exit_with_pid(eater.pid)
        fence = eat(16, cgroup.child("fence", 8)).die()
        wait_until("a later exit", lambda: fence.pid in [each["pid"] for each in daemon.of_type("oom_exit")])
    assert [each["pid"] for each in daemon.of_type("oom_exit")] == [eater.pid, fence.pid]


def exit_with_pid(pid: int) -> None:
    """Start a process with this pid, which exits."""
    for _ in attempts():
        LAST_PID.write_text(str(pid - 1))
        process = subprocess.Popen(["true"])
        process.wait()
        if process.pid == pid:
            return
    pytest.fail(f"no other process got the pid {pid}")
