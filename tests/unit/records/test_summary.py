# SPDX-License-Identifier: Apache-2.0
"""summary.py: a sentence for each type of record, and for unknown types."""

import copy
from typing import Any

import pytest

from tests.harness.full_records import FULL
from tracer.records.summary import summarize


@pytest.mark.parametrize("kind", FULL)
def test_every_type(kind: str) -> None:
    """Each type has its own sentence, on one line."""
    sentence = summarize(FULL[kind])
    assert sentence.endswith(".")
    assert "a record of type" not in sentence
    assert sentence.isprintable()


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
    """The victim, its container or unit, and the sender; an inner name is shown as OWNER/NAME."""
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
    """An unknown or damaged record is named, and control characters are escaped."""
    assert summarize({"type": "later\n"}) == "oomtrace: a record of type later\\n."
    assert summarize({"type": "oom_kill"}) == "oomtrace: a record of type oom_kill."
