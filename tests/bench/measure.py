# SPDX-License-Identifier: Apache-2.0
"""Measurements of one tool with kills in cgroups: samples, and statistics of them."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.harness.cgroups import Cgroup
from tests.harness.environment import IN_VM

from . import process
from .kills import LIMIT_BYTES, MIB, KillLoad, Marks, vmstat_oom_kills
from .running import BenchError, RunningTool, listen, listen_until_quiet
from .tools import Tool

SETTLE_S = 2.0 if IN_VM else 0.3
QUIET_S = 3.0 if IN_VM else 0.5
KILLS_S = 600.0 if IN_VM else 120.0
"""Timeout for a run of kills."""
PAUSE_MS = 100 if IN_VM else 20
"""Pause between kills whose latency is measured, so that all processes sleep again."""

Figures = dict[str, float | None]


@dataclass
class Samples:
    """All measurements of one tool; lists have one value per run or per kill."""

    ready_s: list[float] = field(default_factory=list)
    caught_s: list[float] = field(default_factory=list)
    missed: list[int] = field(default_factory=list)
    rss_mb: list[float] = field(default_factory=list)
    hwm_mb: list[float] = field(default_factory=list)
    latency_ms: list[float] = field(default_factory=list)
    together_ms: list[float] = field(default_factory=list)
    figures: Figures = field(default_factory=dict)
    """Measurements made once."""

    def summary(self) -> Figures:
        return {
            "attach_s": _median(self.ready_s),
            "caught_s": _median(self.caught_s),
            "missed": float(sum(self.missed)) if self.missed else None,
            "rss_mb": _median(self.rss_mb),
            "hwm_mb": _median(self.hwm_mb),
            "latency_ms": _median(self.latency_ms),
            "latency_p99_ms": percentile(self.latency_ms, 99),
            "latency_kills": float(len(self.latency_ms)),
            "together_ms": _median(self.together_ms),
            "together_p99_ms": percentile(self.together_ms, 99),
            **self.figures,
        }


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def percentile(values: Sequence[float], percent: int) -> float | None:
    """The percentile: the smallest value that this percentage of values does not exceed."""
    return sorted(values)[-(-len(values) * percent // 100) - 1] if values else None


def start(running: RunningTool, samples: Samples) -> None:
    """Wait until the tool is attached; measure the time, and its size when idle."""
    samples.ready_s.append(running.wait_ready())
    listen([running], SETTLE_S)
    samples.rss_mb.append(process.memory_mb(running.pid, "VmRSS"))
    samples.hwm_mb.append(process.memory_mb(running.pid, "VmHWM"))


def peak_mb(tool: Tool) -> float:
    """Peak RSS of any of its processes until it is attached; a child may do the heavy part."""
    peaks: dict[int, float] = {}
    with RunningTool(tool) as running:

        def watch() -> bool:
            for pid in (running.pid, *process.children(running.pid)):
                peaks[pid] = max(peaks.get(pid, 0.0), process.memory_mb(pid, "VmHWM"))
            return running.ended or any(tool.ready in data for _, data in running.chunks)

        listen([running], 180, watch)
        running.wait_ready()
        watch()
    return max(peaks.values())


def until_caught(tool: Tool, group: Cgroup, marks: Marks, samples: Samples) -> None:
    """Start it during a steady stream of kills: the first one shown is the time when it captures."""
    marks.clear()
    with KillLoad([group], each=10_000, wait_ms=5) as victims, RunningTool(tool) as running:
        running.wait_ready()
        ready_ns = running.chunks[-1][0]
        listen([running], KILLS_S, lambda: bool(running.victims()) or running.ended)
        listen([running], QUIET_S)
        shown = running.victims()
        killed = {pid: ns for pid, ns in marks.times().items() if pid in victims.pids()}
    caught = [killed[pid] for pid in shown if pid in killed]
    if not caught:
        raise BenchError(f"{tool.name} showed none of {len(killed)} kills")
    samples.caught_s.append((min(caught) - running.began_ns) / 1e9)
    last_ns = max(caught)
    samples.missed.append(sum(pid not in shown for pid, ns in killed.items() if ready_ns < ns < last_ns))


def latencies_ms(tools: Sequence[RunningTool], group: Cgroup, marks: Marks, count: int) -> list[list[float]]:
    """Per tool: times from the kernel's mark to the line at the reader, in ms, for the kills shown."""
    marks.clear()
    with KillLoad([group], each=count, wait_ms=PAUSE_MS) as victims:
        listen(tools, KILLS_S, victims.ended)
        listen_until_quiet(tools, QUIET_S, KILLS_S)
        pids = victims.pids()
    killed = {pid: ns for pid, ns in marks.times().items() if pid in pids}
    return [[(ns - killed[pid]) / 1e6 for pid, ns in running.victims().items() if pid in killed] for running in tools]


def undisturbed(groups: Sequence[Cgroup], marks: Marks, count: int) -> float:
    """Kills per second on this machine while no tool runs."""
    marks.clear()
    with KillLoad(groups, each=count // len(groups)) as victims:
        listen([], KILLS_S, victims.ended)
        pids = victims.pids()
    return _rate([ns for pid, ns in marks.times().items() if pid in pids])


def _rate(times_ns: Sequence[int]) -> float:
    if len(times_ns) < 2:
        raise BenchError(f"only {len(times_ns)} victims were killed")
    return 1e9 * (len(times_ns) - 1) / (max(times_ns) - min(times_ns))


def storm(running: RunningTool, groups: Sequence[Cgroup], marks: Marks, count: int, samples: Samples) -> None:
    """A storm at the machine's maximum rate: how many kills are shown, and reported as lost."""
    marks.clear()
    on_host = vmstat_oom_kills()
    cpu_s = process.cpu_s(running.pid)
    with KillLoad(groups, each=count // len(groups)) as victims:
        listen([running], KILLS_S, victims.ended)
        listen_until_quiet([running], 2 * QUIET_S, KILLS_S)
        pids = victims.pids()
    killed = {pid: ns for pid, ns in marks.times().items() if pid in pids}
    if len(killed) < count:
        raise BenchError(f"only {len(killed)} of {count} victims were killed")
    shown = {pid: ns for pid, ns in running.victims().items() if pid in killed}
    samples.figures |= {
        "storm_kills": len(killed),
        "storm_lines": len(shown),
        "storm_percent": 100 * len(shown) / len(killed),
        "storm_lost": running.lost(),
        "storm_others": vmstat_oom_kills() - on_host - len(killed),
        "storm_per_s": _rate(list(killed.values())),
        "storm_behind_ms": (max(shown.values()) - max(killed.values())) / 1e6 if shown else None,
        "storm_cpu_ms": 1000 * (process.cpu_s(running.pid) - cpu_s) / len(killed),
    }


def group_kill(running: RunningTool, group: Cgroup, marks: Marks, count: int, samples: Samples) -> None:
    """One group kill of all processes of a cgroup (memory.oom.group)."""
    marks.clear()
    group.limit(16 << 20)
    group.write("memory.oom.group", 1)
    with KillLoad([group], each=count - 1, jobs=count - 1, hold=True, mib=0) as members:
        listen([running], KILLS_S, lambda: len(group.processes()) == count - 1)
        with KillLoad([group], each=1, mib=16 * MIB * 2) as victims:
            listen([running], KILLS_S, lambda: members.ended() and victims.ended())
            listen_until_quiet([running], QUIET_S, KILLS_S)
            pids = members.pids() | victims.pids()
    group.write("memory.oom.group", 0)
    group.limit(LIMIT_BYTES)
    killed = pids & marks.times().keys()
    if len(killed) < count:
        raise BenchError(f"only {len(killed)} of {count} members of the group were killed")
    samples.figures |= {"group_kills": len(killed), "group_lines": len(killed & running.victims().keys())}


def idle(tools: Sequence[RunningTool], seconds: float, samples: Sequence[Samples]) -> int:
    """CPU time while idle; the number of other kills meanwhile."""
    on_host = vmstat_oom_kills()
    before = [(time.monotonic(), process.cpu_s(running.pid)) for running in tools]
    listen(tools, seconds)
    for running, (at, cpu_s), sample in zip(tools, before, samples, strict=True):
        used_s = process.cpu_s(running.pid) - cpu_s
        sample.figures["idle_percent"] = 100 * used_s / (time.monotonic() - at)
    return vmstat_oom_kills() - on_host
