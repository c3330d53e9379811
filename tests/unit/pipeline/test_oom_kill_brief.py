# SPDX-License-Identifier: Apache-2.0
"""Victims sent in brief: when their incident ends, and what their records contain."""

from typing import Any

import pytest

from tests.harness import events
from tests.harness.records import BLIND, RECORDS, complete
from tracer.capture import brief, wire
from tracer.capture.kill_buffers import decode
from tracer.pipeline.incidents import END_WAIT_NS, Incidents, JoinedKill
from tracer.records.model import OomKill

CGROUP = "/system.slice/hog.service"
TASK = wire.VICTIM_TASK | wire.VICTIM_CGROUP
SEEN = TASK | brief.BRIEF_OC | brief.BRIEF_MEMCG


def joined(*frames: bytes) -> list[JoinedKill]:
    """The kills that these events complete at once."""
    incidents = Incidents()
    fed = [each for frame in frames for each in incidents.feed(decode(frame, events.PATHS), 0)]
    return [item for item, _ in fed if isinstance(item, JoinedKill)]


def record(*frames: bytes, blind: bool = False) -> OomKill:
    (kill,) = joined(*frames)
    return complete(kill, BLIND if blind else RECORDS)


def test_essentials() -> None:
    """Victim, time, size, cgroup and limit; the kill is complete at once."""
    whole = complete(events.kill())
    found = record(events.brief_victim(limit_level=2))
    assert (found["reduced"], whole["reduced"]) == (True, False)
    assert found["id"] == whole["id"]
    assert found["systemd"] == whole["systemd"]
    unknown = {"ppid", "cmdline", "exe", "points", "page_tables_bytes", "peak_rss_bytes", "ancestors", "shared_mm"}
    victim: dict[str, Any] = {**found["victim"]}
    assert {name for name, value in victim.items() if value is None} == unknown
    expected: dict[str, Any] = {**whole["victim"], **dict.fromkeys(unknown), "started_at": victim["started_at"]}
    assert victim == expected
    assert (found["trigger"], found["candidates"], found["candidates_scored"], found["network"]) == (None,) * 4
    limit: dict[str, Any] = {**(found["limit"] or {})}
    assert {name: value for name, value in limit.items() if value is not None} == {"cgroup": CGROUP, "level": "unit"}


@pytest.mark.parametrize(
    ("changes", "scope", "limit"),
    [
        pytest.param({"limit_level": 1}, "memcg", "/system.slice", id="above"),
        pytest.param({"limit_level": brief.NO_LEVEL}, "memcg", None, id="unknown-limit"),
        pytest.param({"limit_level": 3}, "memcg", None, id="beyond-the-path"),
        pytest.param({"flags": TASK | brief.BRIEF_OC, "constraint": 0}, "host", None, id="host"),
        pytest.param({"flags": TASK | brief.BRIEF_OC, "constraint": 1}, "cpuset", None, id="cpuset"),
        pytest.param({"flags": TASK | brief.BRIEF_OC, "constraint": 2}, "mempolicy", None, id="mempolicy"),
        pytest.param({"flags": TASK | brief.BRIEF_OC, "constraint": 9}, None, None, id="unknown-constraint"),
        pytest.param({"flags": TASK | brief.BRIEF_OC | brief.BRIEF_SYSRQ}, "sysrq", None, id="sysrq"),
    ],
)
def test_scope(changes: dict[str, int], scope: str | None, limit: str | None) -> None:
    """The scope is set as far as it is certain."""
    found = record(events.brief_victim(**changes))
    assert found["incident"]["scope"] == scope
    assert (found["limit"] and found["limit"]["cgroup"]) == limit


@pytest.mark.parametrize(
    ("message", "scope", "limit"), [(0, None, None), (1, "memcg", "/system.slice"), (2, None, None)]
)
def test_log(message: int, scope: str | None, limit: str | None) -> None:
    """Without kprobes the kernel log shows whether a memory cgroup's limit was hit, and confirms the kill."""
    marked = events.brief_victim(flags=TASK | wire.VICTIM_MARKED)
    assert joined(marked) == []
    found = record(marked, events.reported(message), blind=True)
    assert found["incident"]["scope"] == scope
    assert (found["limit"] and found["limit"]["cgroup"]) == limit
    assert found["incident"]["victims"] == 1


def test_log_never_comes() -> None:
    """A seen kill needs no log line; a mark alone is no kill."""
    for flags, kills in ((TASK, 1), (TASK | wire.VICTIM_MARKED, 0)):
        incidents = Incidents()
        assert list(incidents.feed(decode(events.brief_victim(flags=flags), events.PATHS), 0)) == []
        assert len(list(incidents.flush(END_WAIT_NS))) == kills


def test_group() -> None:
    """Members of a group kill share their incident; its end gives their number."""
    member = events.brief_victim(flags=SEEN | wire.VICTIM_GROUP)
    assert joined(member, member) == []
    kills = joined(member, member, events.encode(events.end()))
    assert [kill.victims for kill in kills] == [2, 2]
    assert [complete(kill)["incident"]["group_kill"] for kill in kills] == [True, True]


def test_group_above_the_limit() -> None:
    """Without kprobes it is not known whether memory.oom.group is set at the limit or above it."""
    member = events.brief_victim(flags=TASK | wire.VICTIM_GROUP)
    (kill,) = joined(member, events.reported(1), events.encode(events.end()))
    assert complete(kill, BLIND)["incident"]["group_kill"] is None


def test_whole_incident() -> None:
    """The incident found room, the victim did not: the record has both."""
    found = record(events.encode(events.incident()), events.brief_victim())
    assert found["reduced"]
    assert found["trigger"] is not None
    assert found["limit"] is not None
    assert found["limit"]["limit_bytes"] == 4096 * 4096
    assert found["candidates"] is not None


def test_end_that_comes_later() -> None:
    """Late events of an ended incident make no kill."""
    assert len(joined(events.brief_victim(), events.encode(events.end()), events.encode(events.shared_mm(9)))) == 1
