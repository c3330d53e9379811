# SPDX-License-Identifier: Apache-2.0
"""deduplication.py: what two captures saw is told once."""

from tests.harness import events
from tests.harness.records import HOST, complete
from tracer.pipeline.deduplication import SAME_NS, Handover
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
    """The newer capture's kill is known again, and its exit names the record that was written."""
    handover, exit_record = Handover(), gone("new")
    handover.told(kill("old"), 1_000)
    assert handover.double_of(kill("new"), 1_200) == "old"
    assert handover.rename(exit_record)
    assert (exit_record["id"], exit_record["incident_id"]) == ("old", "incident of old")


def test_exit_of_both() -> None:
    """An exit that the older capture saw, too, is written once."""
    handover = Handover()
    handover.told(kill("old"), 1_000)
    handover.gone(gone("old"))
    handover.double_of(kill("new"), 1_200)
    assert not handover.rename(gone("new"))


def test_another_kill_of_this_number() -> None:
    """One that was killed at another time is somebody else."""
    handover, exit_record = Handover(), gone("new")
    handover.told(kill("old"), 1_000)
    assert handover.double_of(kill("new"), 2 * SAME_NS) is None
    assert handover.rename(exit_record)
    assert exit_record["id"] == "new"


def test_processes_that_are_not_known() -> None:
    """Without kprobes there may be neither process nor start: still no two victims are taken for one."""
    handover, other = Handover(), kill("new")
    handover.told(kill("old"), 1_000)
    other["victim"]["pid"] = None
    other["victim"]["tid"] += 1
    assert handover.double_of(other, 1_000) is None
