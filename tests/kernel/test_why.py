# SPDX-License-Identifier: Apache-2.0
"""``oomtrace why`` for processes that the kernel has killed."""

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
    """The answer of ``oomtrace why --json``."""
    command = [sys.executable, "-m", "tracer", "why", name, "--json", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=10 * TIMEOUT_S, check=True)
    answer: Answer = json.loads(done.stdout)
    assert all(sentence.isprintable() for sentence in answer["sentences"])
    return answer


@pytest.fixture
def why(tracer: Daemon) -> Why:
    return lambda name: ask(name, "--records", str(tracer.output))


def test_pid(watch: Watch, cgroup: Cgroup, eat: Eat, why: Why) -> None:
    """A killed process is found by its pid; record and kernel log are merged into one kill."""
    group = cgroup.child("limit", 16)
    record = watch.kill(eat(32, group).die())
    answer = why(str(record["victim"]["pid"]))
    verdict = answer["verdict"]
    assert (verdict["kind"], verdict["cause"], verdict["ended"]) == ("pid", "own_limit", True)
    assert verdict["kill"]["id"] == record["id"]
    assert [each["id"] for each in answer["evidence"]] == [record["id"]]
    assert verdict["memory"]["limit_bytes"] == 16 * MIB
    assert verdict["memory"]["breakdown"] is not None, "from the kernel log if the record has none"
    assert verdict["memory"]["breakdown"]["anon_bytes"] > 14 * MIB
    assert "mostly heap" in "".join(answer["sentences"])


def test_process_name(watch: Watch, cgroup: Cgroup, eat: Eat, why: Why) -> None:
    """By process name all kills are found; the last one is explained."""
    parent = cgroup.child("parent", 24)
    records = [watch.kill(eat(32, parent.child(f"child{number}"), comm="why-victim").die()) for number in range(2)]
    answer = why("why-victim")
    verdict = answer["verdict"]
    assert (verdict["kind"], verdict["cause"]) == ("process", "limit_above")
    assert [each["id"] for each in answer["evidence"]] == [record["id"] for record in records]
    assert verdict["memory"]["cgroup"] == parent.name
    assert verdict["history"]["total"] == 2


def test_kernel_log_alone(watch: Watch, cgroup: Cgroup, eat: Eat, tmp_path: Path) -> None:
    """Without records the kernel log gives nearly the same answer."""
    record = watch.kill(eat(32, cgroup.child("limit", 16), comm="why-logged").die())
    (tmp_path / "none.json").touch()
    answer = ask("why-logged", "--records", str(tmp_path / "none.json"))
    verdict = answer["verdict"]
    assert verdict["cause"] == "own_limit"
    assert [each["source"] for each in answer["evidence"]] == ["kernel log"]
    assert verdict["kill"]["victim"]["pid"] == record["victim"]["pid"]
    assert verdict["oom_since"] is not None


def test_lowered_limit(watch: Watch, cgroup: Cgroup, eat: Eat, why: Why) -> None:
    """The process that lowered a limit below the usage is named as such."""
    if cgroup.hierarchy.version == 1:
        not_applicable("cgroup v1 refuses a limit below the usage")
    group = cgroup.child("shrinks", 32)
    victim = eat(16, group, hold=True).full()
    group.write("memory.max", 4 * MIB)
    victim.die()
    record = watch.kill(victim)
    answer = why(str(record["victim"]["pid"]))
    assert answer["verdict"]["memory"]["is_lowered"] is True
    sentence = answer["sentences"][0]
    assert f"by the limit of its cgroup {group.name}, as it was lowered to 4.0 MiB while 1" in sentence
    trigger = record["trigger"]
    assert f"{trigger['comm']} (pid {os.getpid()}), outside of that cgroup, lowered the limit." in sentence


def test_oom_score_adj(watch: Watch, cgroup: Cgroup, eat: Eat, why: Why) -> None:
    """A small process killed instead of a large one is explained by its oom_score_adj."""
    group = cgroup.child("limit", 32)
    small = eat(2, group, hold=True, adj=1000, comm="small").full()
    large = eat(60, group, comm="large")
    record = watch.kill(small.die())
    answer = why(str(record["victim"]["pid"]))
    assert answer["verdict"]["choice"]["by"] == "oom_score_adj", "without kprobes from the kernel log"
    sentence = answer["sentences"][0]
    assert f"(pid {small.pid}), for its oom_score_adj of 1000: large (pid {large.pid}), with " in sentence
    assert "resident and an oom_score_adj of 0, was spared." in sentence
    assert f"See what grows in large (pid {large.pid}) first" in answer["advice"][0]["text"]


def test_hostile(watch: Watch, cgroup: Cgroup, eat: Eat, why: Why) -> None:
    """A process with a hostile name is found by it, and its name is printed escaped."""
    watch.kill(eat(32, cgroup.child("limit", 16), comm=b"a\x1b[31m\n'$(x)").die())
    assert why("a\x1b[31m\n'$(x)")["verdict"]["cause"] == "own_limit"
