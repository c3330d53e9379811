# SPDX-License-Identifier: Apache-2.0
"""The next choice of ``oomtrace top`` is the process that the kernel kills next."""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.harness.cgroups import Cgroup, Hierarchy
from tests.harness.eater import Eater
from tests.harness.environment import MIB, PAGE, ROOT, TIMEOUT_S, wait_until
from tests.harness.kernel_log import KernelLog
from tests.harness.oracles import charge_slack_bytes, rss_slack_pages

from .conftest import Eat

LIMIT_MIB = 32


def look(*arguments: str) -> dict[int, dict[str, Any]]:
    """The processes of ``oomtrace top --json``, by pid."""
    command = [sys.executable, "-m", "tracer", "top", "--json", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=10 * TIMEOUT_S, check=True)
    assert done.stderr == ""
    return {each["pid"]: each for each in json.loads(done.stdout)["processes"]}


def next_in(group: Cgroup, shown: dict[int, dict[str, Any]]) -> list[int]:
    return [pid for pid, each in shown.items() if group.name in each["next_choice_of"]]


class Shape(NamedTuple):
    """Processes of a cgroup, each with its MiB and oom_score_adj, and the index of the kernel's choice."""

    processes: tuple[tuple[int, int], ...]
    chosen: int


SHAPES = {
    "the largest": Shape(((6, 0), (14, 0), (4, 0)), 1),
    "a smaller one with a higher adj": Shape(((14, 0), (8, 300)), 1),
    "the largest in spite of the other's adj": Shape(((16, 0), (4, 200)), 0),
    "the smallest, always first": Shape(((10, 0), (12, 100), (1, 1000)), 2),
    "two with an adj": Shape(((12, 100), (6, 250), (4, 400)), 2),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_next_choice(cgroup: Cgroup, eat: Eat, kernel_log: KernelLog, shape: Shape) -> None:
    """One more process fills the cgroup, and the process marked as next choice is killed first."""
    group = cgroup.child("limit", LIMIT_MIB)
    held = [eat(mib, group, adj=adj, hold=True).full() for mib, adj in shape.processes]
    filler = eat(LIMIT_MIB, group, gate=True)
    filler.start()
    shown = look()
    assert next_in(group, shown) == [held[shape.chosen].pid]
    owners = by_thread(*held, filler)
    assert first_to_die(kernel_log, owners, filler) is held[shape.chosen]


def by_thread(*eaters: Eater) -> dict[int, Eater]:
    """Tid -> eater; the kernel log names threads."""
    return {int(tid): each for each in eaters for tid in os.listdir(f"/proc/{each.pid}/task")}


def first_to_die(log: KernelLog, owners: Mapping[int, Eater], filler: Eater) -> Eater:
    """Let the filler allocate, and wait for the first kill in the kernel log; others may follow at once.

    Earlier log lines are skipped, because tids are reused.
    """
    before = len(log.poll())
    filler.go()
    wait_until("a kill", lambda: any(kill.tid in owners for kill in log.poll()[before:]))
    return next(owners[kill.tid] for kill in log.poll()[before:] if kill.tid in owners)


def test_zombie_leader(cgroup: Cgroup, eat: Eat, kernel_log: KernelLog) -> None:
    """A process whose main thread has exited still has its memory, although ps shows none."""
    group = cgroup.child("limit", LIMIT_MIB)
    headless = eat(14, group, zombie_leader=True, hold=True).full()
    other = eat(8, group, hold=True).full()
    filler = eat(LIMIT_MIB, group, gate=True)
    filler.start()
    shown = look()
    assert shown[headless.pid]["state"].startswith("Z")
    assert shown[headless.pid]["rss_bytes"] > 13 * MIB
    assert next_in(group, shown) == [headless.pid]
    owners = by_thread(headless, other, filler)
    assert first_to_die(kernel_log, owners, filler) is headless


def test_limits_in_limits(cgroup: Cgroup, eat: Eat) -> None:
    """Each limit has its own next choice, and a process shows the limit with the least free memory."""
    parent = cgroup.child("parent", 40)
    roomy, tight = parent.child("roomy", 39), parent.child("tight", 16)
    large = eat(20, roomy, hold=True).full()
    small = eat(8, tight, hold=True).full()
    shown = look()
    assert next_in(parent, shown) == next_in(roomy, shown) == [large.pid]
    assert next_in(tight, shown) == [small.pid]
    assert shown[large.pid]["next_choice_of"][:2] == [roomy.name, parent.name]
    assert shown[large.pid]["limit"]["cgroup"] == parent.name, "40 - 20 - 8 is less than 39 - 20"
    assert shown[small.pid]["limit"]["cgroup"] == tight.name
    for eater, group, mib in ((large, parent, 40), (small, tight, 16)):
        limit = shown[eater.pid]["limit"]
        assert limit["limit_bytes"] == mib * MIB
        assert abs(limit["usage_bytes"] - group.usage()) <= charge_slack_bytes()
        assert limit["limit_bytes"] - limit["usage_bytes"] == limit["free_bytes"]
    # The parent's choice is killed when the parent is full, although its own cgroup's limit is not hit.
    eat(39, parent.child("filler")).wait()
    assert large.die()


def test_points(cgroup: Cgroup, eat: Eat) -> None:
    """Points are pages, plus a thousandth of the limit per point of oom_score_adj."""
    group = cgroup.child("limit", LIMIT_MIB)
    eater = eat(8, group, adj=500, hold=True).full()
    each = look()[eater.pid]
    pages = (each["rss_bytes"] + each["page_tables_bytes"]) // PAGE + 500 * (LIMIT_MIB * MIB // PAGE // 1000)
    assert each["points"] == pages
    assert abs(each["rss_bytes"] - 8 * MIB) < MIB + rss_slack_pages() * PAGE


@pytest.fixture
def slice_(hierarchy: Hierarchy) -> Iterator[Cgroup]:
    """A cgroup named as a slice of systemd."""
    group = hierarchy.make(f"oomtrace{os.getpid()}.slice")
    yield group
    group.remove()


def test_owner(cgroup: Cgroup, slice_: Cgroup, eat: Eat, tmp_path: Path) -> None:
    """A container has its name from the runtime's files; --container and --unit select processes."""
    container_id = secrets.token_hex(32)
    file = tmp_path / "containers" / container_id / "config.v2.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"Name": "/cart", "Config": {"Image": "shop/cart:2", "Labels": {}}}))
    contained = eat(2, cgroup.child("docker").child(container_id, 16), hold=True).full()
    served = eat(2, slice_.child("mail.service"), hold=True).full()
    roots = ("--runtime-root", f"docker={tmp_path}")
    for name in ("cart", container_id, container_id[:12]):
        shown = look(*roots, "--container", name)
        assert list(shown) == [contained.pid]
        assert shown[contained.pid]["container"]["name"] == "cart"
        assert shown[contained.pid]["container"]["image"] == "shop/cart:2"
    for name in ("mail.service", "mail", "mai*"):
        shown = look("--unit", name)
        assert list(shown) == [served.pid]
        assert shown[served.pid]["systemd"]["unit"] == "mail.service"
        assert shown[served.pid]["limit"] is None
