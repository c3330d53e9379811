# SPDX-License-Identifier: Apache-2.0
"""oom_kill.py without struct oom_control: scope and limit from the kernel log and the counters."""

import pytest

from tests.harness import events
from tests.harness.records import BLIND, complete
from tracer.capture import wire
from tracer.pipeline.incidents import Incidents, JoinedKill
from tracer.pipeline.oom_kill import PAGE
from tracer.records.model import Level, OomKill

CGROUP = b"/pod/box/leaf"
INVOKED = b"hog invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0"
KILLED = b"Memory cgroup out of memory: Killed process 5 (hog) total-vm:103536kB"
FREE = events.counters()
LIMITED = events.counters(usage_pages=50, limit_pages=50)
MEMSW = events.counters(memsw_usage_pages=60, memsw_limit_pages=60, swap_usage_pages=-1, swap_limit_pages=-1)
GROUPED = events.counters(oom_group=1)


def summary(limit: bytes) -> bytes:
    return (
        b"oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg="
        + limit
        + b",task_memcg="
        + CGROUP
        + b",task=hog,pid=5,uid=0"
    )


def record(levels: tuple[wire.MemcgCounters, ...], *log: bytes, cgroup: bytes = CGROUP) -> OomKill:
    """The record of a kill in ``cgroup``, whose levels from the leaf up have these counters."""
    victim = events.victim(cgroup=events.path(cgroup))
    return complete(JoinedKill(victim, events.blind_incident(), 1, (), levels, log), BLIND)


@pytest.mark.parametrize(
    ("limit", "depth", "level"),
    [(b"/pod/box/leaf", 0, "other"), (b"/pod/box", 1, "other"), (b"/pod", 2, "other")],
)
def test_limit_from_the_log(limit: bytes, depth: int, level: Level) -> None:
    """The kernel log names the limit; its counters are those of that level."""
    levels = tuple(events.counters(usage_pages=number, limit_pages=10 + number) for number in range(3))
    found = record(levels, INVOKED, summary(limit), KILLED)
    assert found["limit"] is not None
    assert (limit.decode(), level) == (found["limit"]["cgroup"], found["limit"]["level"])
    assert (depth * PAGE, (10 + depth) * PAGE) == (found["limit"]["usage_bytes"], found["limit"]["limit_bytes"])
    assert found["limit"]["breakdown"] is None


def test_group_from_the_log() -> None:
    """The kernel logs one line per victim of a group; all victims have the incident's message."""
    incidents = Incidents()
    lines = [events.log(text) for text in (INVOKED, summary(CGROUP), KILLED)]
    flags = events.victim().flags | wire.VICTIM_GROUP
    victims = [events.victim(pid=pid, cgroup=events.path(CGROUP), flags=flags) for pid in (5, 6, 7)]
    several: list[wire.Event] = [*lines[:2], victims[0], events.blind_incident(), lines[2]]
    several += [event for victim in victims[1:] for event in (victim, events.log(KILLED.replace(b"5", b"6")))]
    for event in several:
        assert list(incidents.feed(event, 0)) == []
    kills = [each for each, _ in incidents.end() if isinstance(each, JoinedKill)]
    for kill in kills:
        found = complete(kill._replace(memcg_chain=(LIMITED, FREE, FREE)), BLIND)
        assert found["incident"]["message"] == "Memory cgroup out of memory"
        assert found["limit"] is not None
        assert found["limit"]["cgroup"] == CGROUP.decode()
    assert len(kills) == 3


def test_incident_from_the_log() -> None:
    """Request and message are from the log; missing ones are null."""
    found = record((LIMITED, FREE, FREE), INVOKED, summary(CGROUP), KILLED)
    assert {
        "id": f"6a4ce4a0-{events.INCIDENT_NS:x}",
        "scope": "memcg",
        "group_kill": False,
        "victims": 1,
        "gfp_mask": 0xCC0,
        "gfp_flags": "GFP_KERNEL",
        "order": 0,
        "total_pages": None,
        "message": "Memory cgroup out of memory",
    } == found["incident"]
    assert found["victim"]["points"] is None
    assert found["trigger"] is not None
    assert (found["candidates"], found["candidates_scored"]) == (None, None)
    assert found["source"] == "bpf_tracepoints"


@pytest.mark.parametrize(
    ("levels", "cgroup"),
    [
        ((LIMITED, FREE, FREE), "/pod/box/leaf"),
        ((FREE, LIMITED, FREE), "/pod/box"),
        ((FREE, FREE, LIMITED), "/pod"),
        ((FREE, MEMSW, FREE), "/pod/box"),
    ],
)
def test_the_only_limit(levels: tuple[wire.MemcgCounters, ...], cgroup: str) -> None:
    """If the summary was rate-limited, the only limit was hit."""
    found = record(levels, KILLED)
    assert found["limit"] is not None
    assert cgroup == found["limit"]["cgroup"]


@pytest.mark.parametrize(
    ("levels", "log"),
    [
        pytest.param((LIMITED, LIMITED, FREE), (KILLED,), id="two limits"),
        pytest.param((FREE, FREE, FREE), (KILLED,), id="no limit"),
        pytest.param((), (KILLED,), id="no figures"),
        pytest.param((FREE, LIMITED), (KILLED,), id="levels missing"),
        pytest.param((LIMITED, FREE, FREE), (), id="no log"),
        pytest.param((LIMITED, FREE, FREE), (b"Out of memory: Killed process 5 (hog)",), id="host"),
        pytest.param((LIMITED, FREE), (INVOKED, summary(b"/pod"), KILLED), id="beyond the figures"),
    ],
)
def test_limit_unknown(levels: tuple[wire.MemcgCounters, ...], log: tuple[bytes, ...]) -> None:
    """A limit is not guessed."""
    assert record(levels, *log)["limit"] is None


@pytest.mark.parametrize(
    ("levels", "log", "group_kill"),
    [
        pytest.param((GROUPED, LIMITED, FREE), (summary(b"/pod/box"), KILLED), True, id="below the limit"),
        pytest.param((LIMITED, GROUPED, FREE), (summary(CGROUP), KILLED), False, id="above the limit"),
        pytest.param((FREE, LIMITED._replace(oom_group=1), FREE), (summary(b"/pod/box"), KILLED), True, id="at it"),
        pytest.param((FREE, FREE, FREE), (KILLED,), False, id="nowhere"),
        pytest.param((FREE, GROUPED, FREE), (KILLED,), None, id="limit unknown"),
        pytest.param((), (), None, id="nothing known"),
    ],
)
def test_group_kill(levels: tuple[wire.MemcgCounters, ...], log: tuple[bytes, ...], group_kill: bool | None) -> None:
    """memory.oom.group counts from the victim's cgroup up to the limit."""
    assert group_kill == record(levels, *log)["incident"]["group_kill"]


def test_group_kill_on_the_host() -> None:
    """If the host ran out of memory, memory.oom.group counts on every level."""
    log = b"oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/x"
    found = record((FREE, FREE, GROUPED), log, b"Out of memory: Killed process 5 (hog)")
    assert (found["incident"]["scope"], found["incident"]["group_kill"]) == ("host", True)


def test_root_cgroup() -> None:
    """A victim in the root cgroup has no limit above it."""
    found = record((), b"Out of memory: Killed process 5 (hog)", cgroup=b"/")
    assert (found["victim"]["cgroup"], found["limit"]) == ("/", None)


def test_cut_path() -> None:
    """The levels of a path without its leaf end are unknown, and so is the limit."""
    whole = events.victim(cgroup=events.path(CGROUP))
    cut = whole._replace(flags=whole.flags | wire.VICTIM_CGROUP_TRUNCATED)
    kill = JoinedKill(whole, events.blind_incident(), 1, (), (LIMITED, FREE, FREE), (KILLED,))
    assert complete(kill, BLIND)["limit"] is not None
    found = complete(kill._replace(victim=cut), BLIND)
    assert (found["incident"]["scope"], found["limit"]) == ("memcg", None)
