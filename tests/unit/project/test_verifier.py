# SPDX-License-Identifier: Apache-2.0
"""Verifier statistics: parsed from its log, and compared with the record."""

import json

import pytest

from tests.harness.verifier import RECORD, Statistics, excessive, grown, parse

LOG = (
    "verification time 346600 usec\nstack depth 256+64\n"
    "processed 307113 insns (limit 1000000) max_states_per_insn 24 total_states 5805 peak_states 1442 mark_read 0\n"
)
FOUND = Statistics(instructions=307113, states=5805, stack_bytes=320, limit=1000000)


def test_parse() -> None:
    """Stack depths of nested functions are added; an extra line of some kernels is skipped."""
    assert parse(LOG) == FOUND
    assert parse(LOG.replace("\nprocessed", "\ninsns processed: main 5\nprocessed")) == FOUND
    newer = LOG.replace("256+64\n", "max 320\nsubprog 0 (on_exit) main insns_self 5 insns_total 9 stack 256\n")
    assert parse(newer) == FOUND
    with pytest.raises(AssertionError, match="no statistics"):
        parse("")


@pytest.mark.parametrize("figure", ["instructions", "states", "stack_bytes"])
def test_grown(figure: str) -> None:
    """Growth by more than a tenth is reported; small programs have an absolute allowance."""
    recorded = FOUND.kept()
    before = recorded[figure]
    assert grown({"on_exit": FOUND._replace(**{figure: before * 11 // 10})}, {"on_exit": recorded}) == []
    (report,) = grown({"on_exit": FOUND._replace(**{figure: before * 11 // 10 + 1})}, {"on_exit": recorded})
    assert report == f"on_exit: {before * 11 // 10 + 1} {figure}, recorded {before}"
    small = {"instructions": 10, "states": 1, "stack_bytes": 8}
    assert grown({"on_exit": Statistics(74, 9, 16, 1)}, {"on_exit": small}) == []
    assert len(grown({"on_exit": Statistics(75, 10, 17, 1)}, {"on_exit": small})) == 3


def test_other_programs() -> None:
    """A new or missing program is reported."""
    assert grown({"on_new": FOUND}, {"on_old": FOUND.kept()}) == [
        "on_new: not in the record",
        "on_old: only in the record",
    ]


def test_excessive() -> None:
    """Programs above three quarters of the kernel's limit are reported."""
    assert excessive({"on_exit": FOUND._replace(instructions=750_000)}) == []
    assert len(excessive({"on_exit": FOUND._replace(instructions=750_001)})) == 1
    assert len(excessive({"on_exit": FOUND._replace(stack_bytes=513)})) == 1


def test_record() -> None:
    """The record has the oldest and newest kernels, and both architectures."""
    kernels = [name for recorded in json.loads(RECORD.read_text()).values() for name in recorded]
    versions = sorted(tuple(map(int, name.split()[0].split("."))) for name in kernels)
    assert versions[0] == (5, 10)
    assert versions[-1] >= (7, 0)
    assert {name.split()[1] for name in kernels} == {"x86_64", "aarch64"}
