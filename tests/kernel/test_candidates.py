# SPDX-License-Identifier: Apache-2.0
"""Candidates: the processes that the kernel scored, which kprobes capture."""

import pytest

from tests.harness.cgroups import Cgroup
from tests.harness.environment import MIB
from tests.harness.watch import Watch

from .conftest import Eat


def test_all_candidates(watch: Watch, cgroup: Cgroup, eat: Eat, kprobes: bool) -> None:
    """Every eligible process of the cgroup is a candidate; the victim is the first."""
    group = cgroup.child("limit", 40)
    sizes = {f"holder{mib}": mib for mib in (12, 4, 8)}
    holders = [eat(mib, group, hold=True, comm=comm).full() for comm, mib in sizes.items()]
    outside = eat(1, cgroup.child("elsewhere"), hold=True).full()
    eater = eat(60, group, comm="eater").die()
    record = watch.kill(eater)
    if not kprobes:
        assert record["candidates"] is record["candidates_scored"] is None
        return
    candidates = record["candidates"]
    points = [candidate["points"] for candidate in candidates]
    assert record["candidates_scored"] == 4
    assert [candidate["comm"] for candidate in candidates] == ["eater", "holder12", "holder8", "holder4"]
    assert sorted(points, reverse=True) == points
    assert record["victim"]["points"] == points[0]
    assert {eater.pid, *(holder.pid for holder in holders)} == {candidate["pid"] for candidate in candidates}
    assert outside.pid not in {candidate["pid"] for candidate in candidates}
    for candidate in candidates[1:]:
        assert sizes[candidate["comm"]] * MIB <= candidate["rss_bytes"] <= (sizes[candidate["comm"]] + 2) * MIB


def test_no_more_than_ten(watch: Watch, cgroup: Cgroup, eat: Eat, kprobes: bool) -> None:
    """Of many candidates, the ten with the most points and the number of all are recorded."""
    group = cgroup.child("limit", 32)
    holders = eat(1, group, hold=True, children=13, jobs=13)
    pids = holders.children(13)
    holders.full(13)
    eater = eat(60, group).die()
    record = watch.kill(eater)
    if not kprobes:
        return
    candidates = record["candidates"]
    assert record["candidates_scored"] == 14
    assert len(candidates) == 10
    assert eater.pid == candidates[0]["pid"]
    assert {candidate["pid"] for candidate in candidates[1:]} < set(pids)
    assert len({candidate["pid"] for candidate in candidates}) == 10


def test_adjusted_candidates(watch: Watch, cgroup: Cgroup, eat: Eat, kprobes: bool) -> None:
    """oom_score_adj changes the points, and so the order."""
    group = cgroup.child("limit", 32)
    favoured = eat(4, group, hold=True, adj=1000, comm="favoured").full()
    second = eat(8, group, hold=True, adj=300, comm="second").full()
    eater = eat(22, group, adj=0, comm="eater")
    favoured.die()
    record = watch.kill(favoured)
    eater.wait()
    if not kprobes:
        return
    adjustments = {candidate["comm"]: candidate["oom_score_adj"] for candidate in record["candidates"]}
    assert adjustments == {"favoured": 1000, "eater": 0, "second": 300}
    assert next(iter(adjustments)) == "favoured"
    assert second.pid in {candidate["pid"] for candidate in record["candidates"]}


@pytest.mark.vm
def test_spared_candidates(watch: Watch, cgroup: Cgroup, eat: Eat, kprobes: bool) -> None:
    """A low oom_score_adj makes points negative; with -1000 a process is not a candidate."""
    group = cgroup.child("limit", 32)
    spared = eat(8, group, hold=True, adj=-900, comm="spared").full()
    protected = eat(1, group, hold=True, adj=-1000).full()
    eater = eat(60, group, comm="eater").die()
    record = watch.kill(eater)
    if not kprobes:
        return
    assert record["candidates_scored"] == 2
    assert [eater.pid, spared.pid] == [candidate["pid"] for candidate in record["candidates"]]
    assert record["candidates"][1]["points"] < 0
    assert protected.process.poll() is None


def test_reading_a_score_is_no_candidate(watch: Watch, cgroup: Cgroup, eat: Eat, kprobes: bool) -> None:
    """Reading /proc/PID/oom_score calls the same kernel function, and adds no candidate."""
    group = cgroup.child("limit", 16)
    eater = eat(32, group, gate=True)
    eater.start()
    with open("/proc/self/oom_score") as score:
        for _ in range(20):
            score.seek(0)
            score.read()
    eater.go()
    record = watch.kill(eater.die())
    assert (1 if kprobes else None) == record["candidates_scored"]
