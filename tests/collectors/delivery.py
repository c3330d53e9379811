# SPDX-License-Identifier: Apache-2.0
"""What a collector has got, compared with what the tracer wrote into a file beside it."""

from collections.abc import Iterable, Sequence

from tests.harness.daemon import Daemon
from tests.harness.oracles import Record

Key = tuple[str, str]


def key(record: Record) -> Key:
    """By it a record that comes twice is known: type and id, or for those without one the time."""
    return record["type"], record.get("id") or record["time"]


def once(records: Iterable[Record]) -> list[Record]:
    """Each record where it came first."""
    return list({key(record): record for record in reversed(list(records))}.values())[::-1]


def check_delivered(daemon: Daemon, received: Sequence[Record], *, in_order: bool = True) -> None:
    """All records; doubles are the same record again.  ``received`` are records as in docs/record.md."""
    assert received, "nothing was received"
    written = once(daemon.records())
    keys, wanted = [key(record) for record in once(received)], [key(record) for record in written]
    assert keys == wanted if in_order else sorted(keys) == sorted(wanted)
    by_key = {key(record): record for record in written}
    for record in received:
        assert record == by_key[key(record)]


def killed(received: Iterable[Record]) -> set[int]:
    """The victims in them, by pid."""
    return {record["victim"]["tid"] for record in received if record["type"] == "oom_kill"}
