# SPDX-License-Identifier: Apache-2.0
"""Run time of a tool's BPF programs per kill (kernel.bpf_stats_enabled)."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.harness.cgroups import Cgroup

from . import process
from .kills import KillLoad
from .measure import KILLS_S, QUIET_S, Samples
from .running import RunningTool, listen

SWITCH = Path("/proc/sys/kernel/bpf_stats_enabled")


class ProgramCost(NamedTuple):
    """Runs of one BPF program during kills."""

    name: str
    runs_per_kill: float
    ns_per_run: float

    @property
    def us_per_kill(self) -> float:
        return self.runs_per_kill * self.ns_per_run / 1000


@contextmanager
def counting() -> Iterator[None]:
    """Enable the kernel's BPF statistics, and restore the setting afterwards."""
    before = SWITCH.read_text()
    SWITCH.write_text("1")
    try:
        yield
    finally:
        SWITCH.write_text(before)


def measure(running: RunningTool, group: Cgroup, count: int, samples: Samples) -> list[ProgramCost]:
    """Runs of the tool's programs during this many kills; other activity on this machine is included."""
    ids = process.bpf_programs(running.pid)
    with counting():
        before = _counters(ids)
        with KillLoad([group], each=count) as victims:
            listen([running], KILLS_S, victims.ended)
        listen([running], QUIET_S)
        after = _counters(ids)
    found = []
    for number, (name, runs, ns) in after.items():
        _, runs_before, ns_before = before[number]
        runs, ns = runs - runs_before, ns - ns_before
        found.append(ProgramCost(name, runs / count, ns / runs if runs else 0.0))
    samples.figures["bpf_us"] = sum(program.us_per_kill for program in found)
    return sorted(found, key=lambda program: -program.us_per_kill)


def _counters(ids: set[int]) -> dict[int, tuple[str, int, int]]:
    """Program id -> name, run_cnt, run_time_ns."""
    shown = subprocess.run(["bpftool", "prog", "show", "--json"], capture_output=True, check=True, timeout=30).stdout
    return {
        program["id"]: (program.get("name", "?"), program.get("run_cnt", 0), program.get("run_time_ns", 0))
        for program in json.loads(shown)
        if program["id"] in ids
    }
