# SPDX-License-Identifier: Apache-2.0
"""What the programs remember of processes, and for how long."""

import os

from tracer import libbpf

from . import bpf_maps
from .cgroups import Cgroup
from .conftest import Eat, MakeDaemon
from .daemon import Daemon
from .environment import IN_VM, attempts, wait_until

BPF_MAP_TYPE_LRU_HASH = 9
LOCAL_FREE_TARGET = 128
"""Of kernel/bpf/bpf_lru_list.c: free entries of an LRU map that each CPU keeps to itself."""
EMPTIED_BY_EXIT = ("victims", "cmdlines")
EMPTIED_LATER = ("condemned", "killing", "sigkilled")
"""Where RCU callbacks run: not all kernels run programs there in the context of every task."""
MAPS = (*EMPTIED_BY_EXIT, *(EMPTIED_LATER if IN_VM else ()))
KILLS = 40 if IN_VM else 200


def test_nothing_is_left(make_daemon: MakeDaemon, cgroup: Cgroup, eat: Eat) -> None:
    """Of processes that are gone, killed by the OOM killer, by others, or not at all."""
    daemon = make_daemon(arguments=["--sigkill", "containers"])
    daemon.start()
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

    for _ in attempts():
        if not left():
            break
    assert left() == {}
    wait_until("all exits", lambda: len(daemon.of_type("oom_exit")) >= KILLS + 1)
    assert daemon.stop()["lost"] == 0


def test_room_for_every_cpu(tracer: Daemon) -> None:
    """What all CPUs keep to themselves is not what an LRU map is to hold."""
    kept = LOCAL_FREE_TARGET * libbpf.library().libbpf_num_possible_cpus()
    room = {
        name: each.capacity - kept
        for name, each in bpf_maps.of(tracer.process.pid).items()
        if each.type == BPF_MAP_TYPE_LRU_HASH
    }
    assert {name for name, entries in room.items() if entries >= 1024} == {
        "killing", "condemned", "victims", "sigkilled", "sigkill_rates"
    }  # fmt: skip
