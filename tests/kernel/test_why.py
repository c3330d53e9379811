# SPDX-License-Identifier: Apache-2.0
"""``oomtrace why`` of processes that the kernel really killed."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.harness.cgroups import Cgroup
from tests.harness.daemon import Daemon
from tests.harness.environment import MIB, ROOT, TIMEOUT_S, not_applicable
from tests.harness.watch import Watch

from .conftest import Eat

Answer = dict[str, Any]
Why = Callable[..., Answer]


def ask(name: str, *arguments: str) -> Answer:
    """What it says, as JSON."""
    command = [sys.executable, "-m", "tracer", "why", name, "--json", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=10 * TIMEOUT_S, check=True)
    told: Answer = json.loads(done.stdout)
    assert all(sentence.isprintable() for sentence in told["sentences"])
    return told


@pytest.fixture
def why(tracer: Daemon) -> Why:
    return lambda name: ask(name, "--records", str(tracer.output))


def test_pid(watch: Watch, cgroup: Cgroup, eat: Eat, why: Why) -> None:
    """A process that is gone is found by its pid: the record and the kernel log tell of one kill."""
    group = cgroup.child("limit", 16)
    record = watch.kill(eat(32, group).die())
    told = why(str(record["victim"]["pid"]))
    verdict = told["verdict"]
    assert (verdict["kind"], verdict["cause"], verdict["ended"]) == ("pid", "own_limit", True)
    assert verdict["kill"]["id"] == record["id"]
    assert [each["id"] for each in told["evidence"]] == [record["id"]]
    assert verdict["memory"]["limit_bytes"] == 16 * MIB
    assert verdict["memory"]["breakdown"] is not None, "the kernel log has it, where the record has not"
    assert verdict["memory"]["breakdown"]["anon_bytes"] > 14 * MIB
    assert "mostly heap" in "".join(told["sentences"])


def test_process_name(watch: Watch, cgroup: Cgroup, eat: Eat, why: Why) -> None:
    """By its name it is found, too, with all kills of that name; the last one is explained."""
    parent = cgroup.child("parent", 24)
    records = [watch.kill(eat(32, parent.child(f"child{number}"), comm="why-victim").die()) for number in range(2)]
    told = why("why-victim")
    verdict = told["verdict"]
    assert (verdict["kind"], verdict["cause"]) == ("process", "limit_above")
    assert [each["id"] for each in told["evidence"]] == [record["id"] for record in records]
    assert verdict["memory"]["cgroup"] == parent.name
    assert verdict["history"]["total"] == 2


def test_kernel_log_alone(watch: Watch, cgroup: Cgroup, eat: Eat, tmp_path: Path) -> None:
    """Without any record the kernel log tells nearly the same."""
    record = watch.kill(eat(32, cgroup.child("limit", 16), comm="why-logged").die())
    (tmp_path / "none.json").touch()
    told = ask("why-logged", "--records", str(tmp_path / "none.json"))
    verdict = told["verdict"]
    assert verdict["cause"] == "own_limit"
    assert [each["source"] for each in told["evidence"]] == ["kernel log"]
    assert verdict["kill"]["victim"]["pid"] == record["victim"]["pid"]
    assert verdict["oom_since"] is not None


def test_lowered_limit(watch: Watch, cgroup: Cgroup, eat: Eat, why: Why) -> None:
    """Who lowers a limit below the usage is named, and did not ask for memory."""
    if cgroup.hierarchy.version == 1:
        not_applicable("cgroup v1 refuses a limit below the usage")
    group = cgroup.child("shrinks", 32)
    victim = eat(16, group, hold=True).full()
    group.write("memory.max", 4 * MIB)
    victim.die()
    record = watch.kill(victim)
    told = why(str(record["victim"]["pid"]))
    assert told["verdict"]["memory"]["is_lowered"] is True
    said = told["sentences"][0]
    assert f"by the limit of its cgroup {group.name}, as it was lowered to 4.0 MiB while 1" in said
    trigger = record["trigger"]
    assert f"{trigger['comm']} (pid {os.getpid()}), outside of that cgroup, lowered the limit." in said


def test_oom_score_adj(watch: Watch, cgroup: Cgroup, eat: Eat, why: Why) -> None:
    """A small process that dies in the place of a large one dies for its oom_score_adj."""
    group = cgroup.child("limit", 32)
    small = eat(2, group, hold=True, adj=1000, comm="small").full()
    large = eat(60, group, comm="large")
    record = watch.kill(small.die())
    told = why(str(record["victim"]["pid"]))
    assert told["verdict"]["choice"]["by"] == "oom_score_adj", "without kprobes the kernel log tells it"
    said = told["sentences"][0]
    assert f"(pid {small.pid}), for its oom_score_adj of 1000: large (pid {large.pid}), with " in said
    assert "resident and an oom_score_adj of 0, was spared." in said
    assert f"See what grows in large (pid {large.pid}) first" in told["advice"][0]["text"]


def test_hostile(watch: Watch, cgroup: Cgroup, eat: Eat, why: Why) -> None:
    """Whatever a process calls itself, it is found by that, and commands no terminal."""
    watch.kill(eat(32, cgroup.child("limit", 16), comm=b"a\x1b[31m\n'$(x)").die())
    assert why("a\x1b[31m\n'$(x)")["verdict"]["cause"] == "own_limit"
