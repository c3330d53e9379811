# SPDX-License-Identifier: Apache-2.0
"""Compares the records that a collector received with the daemon's output file."""

from collections.abc import Iterable, Sequence

from tests.harness.daemon import Daemon
from tests.harness.oracles import Record

Key = tuple[str, str]


def key(record: Record) -> Key:
    """Identity of a record for deduplication: type and id, or the time if it has no id."""
    return record["type"], record.get("id") or record["time"]


def once(records: Iterable[Record]) -> list[Record]:
    """The records without duplicates, in order of their first occurrence."""
    return list({key(record): record for record in reversed(list(records))}.values())[::-1]


def check_delivered(daemon: Daemon, received: Sequence[Record], *, in_order: bool = True) -> None:
    """Check that all records were received, and that duplicates are identical."""
    assert received, "nothing was received"
    written = once(daemon.records())
    keys, expected = [key(record) for record in once(received)], [key(record) for record in written]
    assert keys == expected if in_order else sorted(keys) == sorted(expected)
    by_key = {key(record): record for record in written}
    for record in received:
        assert record == by_key[key(record)]


def killed(received: Iterable[Record]) -> set[int]:
    """Tids of the victims in the oom_kill records."""
    return {record["victim"]["tid"] for record in received if record["type"] == "oom_kill"}
