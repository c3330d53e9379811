# SPDX-License-Identifier: Apache-2.0
"""deduplication.py: a kill that two captures saw has one record."""

from tests.harness import events
from tests.harness.records import HOST, complete
from tracer.pipeline.deduplication import SAME_NS, PreviousKills
from tracer.records.model import OomExit, OomKill


def kill(kill_id: str) -> OomKill:
    record = complete(events.kill())
    record["id"], record["incident"]["id"] = kill_id, f"incident of {kill_id}"
    return record


def gone(kill_id: str) -> OomExit:
    return {
        "schema": 1, "type": "oom_exit", "id": kill_id, "time": "", "seq": 0, "host": HOST,
        "incident_id": f"incident of {kill_id}", "pid": 1, "after_ns": 0, "container_init_died": None,
        "runtime_verdict": None,
    }  # fmt: skip


def test_double() -> None:
    """The second record of a kill is recognized, and its exit gets the id of the first."""
    previous, exit_record = PreviousKills(), gone("new")
    previous.add_kill(kill("old"), 1_000)
    assert previous.find_duplicate(kill("new"), 1_200) == "old"
    assert previous.adopt_exit(exit_record)
    assert (exit_record["id"], exit_record["incident_id"]) == ("old", "incident of old")


def test_exit_of_both() -> None:
    """An exit that both captures saw is written once."""
    previous = PreviousKills()
    previous.add_kill(kill("old"), 1_000)
    previous.add_exit(gone("old"))
    previous.find_duplicate(kill("new"), 1_200)
    assert not previous.adopt_exit(gone("new"))


def test_another_kill_of_this_number() -> None:
    """A kill of the same thread id at another time is another kill."""
    previous, exit_record = PreviousKills(), gone("new")
    previous.add_kill(kill("old"), 1_000)
    assert previous.find_duplicate(kill("new"), 2 * SAME_NS) is None
    assert previous.adopt_exit(exit_record)
    assert exit_record["id"] == "new"


def test_processes_that_are_not_known() -> None:
    """Without process and start time, as without kprobes, two victims are still distinguished."""
    previous, other = PreviousKills(), kill("new")
    previous.add_kill(kill("old"), 1_000)
    other["victim"]["pid"] = None
    other["victim"]["tid"] += 1
    assert previous.find_duplicate(other, 1_000) is None
