# SPDX-License-Identifier: Apache-2.0
"""Compares the records of kills in a container with the kernel log and the runtime's answer."""

import pytest

from tests.harness.environment import IN_VM, attempts
from tests.harness.oracles import Record
from tests.harness.watch import Watch

from .runtime import SYSTEMD, Container, Description, Fields, Runtime


def check_names(container: Container, description: Description, runtime: Runtime, record: Record) -> None:
    """Check that the record has the runtime's names of the container, and systemd's of its unit."""
    names = record["container"]
    assert names is not None, "no container in the record"
    expected = {"runtime": runtime.kind, **description.container}
    if IN_VM and names["ip_addresses"] is None:
        expected.pop("ip_addresses", None)  # in a slow VM the network may be gone before it is read
    assert expected == {name: names[name] for name in expected}
    assert description.kubernetes == record["kubernetes"]
    if SYSTEMD:
        assert container.unit == (record["systemd"] or {}).get("unit")


def check_verdict(expected: Fields | None, gone: Record, *, required: bool) -> None:
    """Check that a verdict in the exit record is the runtime's; ``required`` if the runtime keeps it in files."""
    actual = gone["runtime_verdict"]
    if actual is None:
        assert not required, f"no verdict, although the runtime says {expected}"
        return
    assert expected is not None
    assert actual == {name: None if actual[name] is None else value for name, value in expected.items()}
    assert not required or None not in actual.values()


class Victims:
    """Waits for the kills of one test."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def of(self, container: Container, count: int = 1) -> list[Record]:
        """Wait for this many kills in the container; their records, checked against the kernel log."""
        found: list[int] = []
        for _ in attempts():
            records = self._watch.records()
            found = [record["victim"]["pid"] for record in records if container.holds(record["victim"]["cgroup"])]
            if len(found) >= count:
                return self._watch.kills(found, steady=False)  # the runtime's processes come and go in the cgroup
        seen = [record["victim"]["cgroup"] for record in self._watch.records()]
        pytest.fail(f"{len(found)} of {count} kills in {container.cgroup}; there were {seen}")

    def exit_of(self, record: Record) -> Record:
        """The exit record of a kill."""
        return self._watch.exit_of(record)
