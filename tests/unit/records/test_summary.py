# SPDX-License-Identifier: Apache-2.0
"""summary.py: a sentence of each type of record, and of what is none."""

import copy
from typing import Any

import pytest

from tests.harness.full_records import FULL
from tracer.records.summary import summarize


@pytest.mark.parametrize("kind", FULL)
def test_every_type(kind: str) -> None:
    """Each has a sentence of its own, on one line."""
    told = summarize(FULL[kind])
    assert told.endswith(".")
    assert "a record of type" not in told
    assert told.isprintable()


@pytest.mark.parametrize(
    ("changed", "place"),
    [
        ({"owner": None}, ", container web"),
        ({"owner": None, "container": None}, ", mail.service"),
        ({"owner": None, "container": None, "systemd": None}, ""),
        ({}, ", container node/web"),
        ({"container": None}, ", node/mail.service"),
    ],
)
def test_sigkill(changed: dict[str, Any], place: str) -> None:
    """Who was killed, in which container or unit, and who sent it; what is inside of something is told with that."""
    record = {**copy.deepcopy(FULL["sigkill"]), **changed}
    record["victim"].update(comm="sleep", pid=7)
    record["sender"].update(comm="runc", pid=9, uid=0)
    if record["owner"] is not None:
        record["owner"]["container"]["name"] = "node"
    for key, field, value in (("container", "name", "web"), ("systemd", "unit", "mail.service")):
        if record[key] is not None:
            record[key][field] = value
    assert summarize(record) == f"sleep (pid 7{place}) was killed by SIGKILL from runc (pid 9, uid 0)."
    assert summarize({**record, "sender": None}) == f"sleep (pid 7{place}) was killed by SIGKILL from the kernel."
    assert (
        summarize({**record, "sender": None, "from_kernel": None})
        == f"sleep (pid 7{place}) was killed by SIGKILL from an unknown sender."
    )


def test_no_sentence() -> None:
    """What is of a later version, or damaged, is named; names cannot speak to a terminal."""
    assert summarize({"type": "later\n"}) == "oomtrace: a record of type later\\n."
    assert summarize({"type": "oom_kill"}) == "oomtrace: a record of type oom_kill."
