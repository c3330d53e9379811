# SPDX-License-Identifier: Apache-2.0
"""The order of measurements on one machine: tools take turns, so that disturbances affect all."""

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from tests.harness.cgroups import Cgroup
from tests.harness.environment import IN_VM

from . import bpf_time, containers, measure
from .kills import Marks, groups, marks, quiet_console
from .measure import Samples
from .results import Results, kernel, load_average
from .running import BenchError, RunningTool, eager, listen
from .tools import GUEST, NATIVE, Tool

GROUP_MEMBERS = 20


class Plan(NamedTuple):
    """Sizes of the measurements; 0 skips one."""

    rounds: int
    kills: int
    """Kills for the latency: in each round, and with all tools at once."""
    caught_rounds: int
    idle_s: float
    storm: int
    bpf: int
    group_kill: bool
    containers: bool


FULL = Plan(rounds=10, kills=30, caught_rounds=5, idle_s=30, storm=2000, bpf=300, group_kill=False, containers=True)
QUICK = Plan(rounds=3, kills=20, caught_rounds=1, idle_s=5, storm=300, bpf=50, group_kill=False, containers=True)
FULL_VM = Plan(rounds=2, kills=20, caught_rounds=0, idle_s=0, storm=300, bpf=0, group_kill=True, containers=False)
QUICK_VM = Plan(rounds=1, kills=10, caught_rounds=0, idle_s=0, storm=60, bpf=0, group_kill=True, containers=False)


class Session:
    """Measurements on one machine; a tool that fails is skipped afterwards, which is noted."""

    def __init__(self, tools: Sequence[Tool], plan: Plan, marks: Marks, groups: Sequence[Cgroup]) -> None:
        self._tools = list(tools)
        self._plan = plan
        self._marks = marks
        self._groups = groups
        self._samples = {tool.name: Samples() for tool in tools}
        self._results = Results(kernel())

    def run(self) -> Results:
        plan = self._plan
        self._note(f"load average at the beginning: {load_average()}")
        self._each("first start", self._first_start)
        for number in range(plan.rounds):
            self._each(f"round {number + 1} of {plan.rounds}", self._round)
        for number in range(plan.caught_rounds):
            self._each(f"start amid kills {number + 1} of {plan.caught_rounds}", self._until_caught)
        if plan.idle_s:
            self._all_at_once()
        rate = measure.undisturbed(self._groups, self._marks, plan.storm // 4)
        self._note(f"kills per second while no tool runs: {rate:.0f}")
        self._each("storm", self._storm)
        if plan.containers:
            self._results.containers = containers.measure(self._marks, plan.kills)
        self._note(f"load average at the end: {load_average()}")
        self._results.figures = {name: samples.summary() for name, samples in self._samples.items()}
        return self._results

    def _each(self, what: str, measurement: Callable[[Tool, Samples], None]) -> None:
        for tool in list(self._tools):
            _progress(f"{what}: {tool.name}")
            try:
                measurement(tool, self._samples[tool.name])
            except BenchError as error:
                self._note(f"{what}: {error}")
                self._tools.remove(tool)
        self._tools.append(self._tools.pop(0))  # no tool is always first

    def _first_start(self, tool: Tool, samples: Samples) -> None:
        """A first run, which fills the page cache and Python's byte code caches for the timed starts."""
        samples.figures["peak_mb"] = measure.peak_mb(tool)

    def _round(self, tool: Tool, samples: Samples) -> None:
        with RunningTool(tool) as running:
            measure.start(running, samples)
            found = measure.latencies_ms([running], self._groups[0], self._marks, self._plan.kills)
            samples.latency_ms += found[0]

    def _until_caught(self, tool: Tool, samples: Samples) -> None:
        measure.until_caught(tool, self._groups[0], self._marks, samples)

    def _all_at_once(self) -> None:
        """All tools at once: idle, then kills that each must show."""
        _progress("all at once")
        samples = [self._samples[tool.name] for tool in self._tools]
        with ExitStack() as stack:
            tools = [stack.enter_context(RunningTool(tool)) for tool in self._tools]
            for running in tools:
                running.wait_ready()
            listen(tools, 2.0)
            others = measure.idle(tools, self._plan.idle_s, samples)
            if others:
                self._note(f"{others} kills by others while the tools should have been idle")
            count = self._plan.rounds * self._plan.kills
            found = measure.latencies_ms(tools, self._groups[0], self._marks, count)
        for sample, latencies in zip(samples, found, strict=True):
            sample.together_ms += latencies

    def _storm(self, tool: Tool, samples: Samples) -> None:
        plan = self._plan
        with RunningTool(tool) as running:
            running.wait_ready()
            listen([running], measure.SETTLE_S)
            measure.storm(running, self._groups, self._marks, plan.storm, samples)
            if plan.bpf:
                self._results.programs[tool.name] = bpf_time.measure(running, self._groups[0], plan.bpf, samples)
            if plan.group_kill:
                measure.group_kill(running, self._groups[0], self._marks, GROUP_MEMBERS, samples)

    def _note(self, text: str) -> None:
        self._results.notes.append(text)


def _progress(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def run(quick: bool) -> Results:
    """Measure on this machine."""
    plan = (QUICK_VM if quick else FULL_VM) if IN_VM else (QUICK if quick else FULL)
    with quiet_console(), eager(), marks() as marked, groups(2) as made:
        return Session(GUEST if IN_VM else NATIVE, plan, marked, made).run()
