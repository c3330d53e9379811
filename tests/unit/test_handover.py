# SPDX-License-Identifier: Apache-2.0
"""handover.py: what two captures saw is told once."""

from tracer.event import OomExit, OomKill
from tracer.handover import Handover

from . import events
from .records import HOST, complete


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
    assert handover.is_double(kill("new"), 1_000)
    handover.rename(exit_record)
    assert (exit_record["id"], exit_record["incident_id"]) == ("old", "incident of old")


def test_another_process_of_this_pid() -> None:
    """One that started at another time is somebody else."""
    handover, exit_record = Handover(), gone("new")
    handover.told(kill("old"), 1_000)
    assert not handover.is_double(kill("new"), 2_000)
    handover.rename(exit_record)
    assert exit_record["id"] == "new"
