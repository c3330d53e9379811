# SPDX-License-Identifier: Apache-2.0
"""The records of kills in a container, compared with the kernel's account and the runtime's answer."""

import pytest

from tests.harness.environment import IN_VM, attempts
from tests.harness.oracles import Record
from tests.harness.watch import Watch

from .runtime import SYSTEMD, Container, Facts, Runtime, Told


def check_told(container: Container, told: Told, runtime: Runtime, record: Record) -> None:
    """The record names the container as the runtime does, and its unit as systemd does."""
    names = record["container"]
    assert names is not None, "no container in the record"
    expected = {"runtime": runtime.kind, **told.container}
    if IN_VM and names["ip_addresses"] is None:
        expected.pop("ip_addresses", None)  # the container's network was gone before the slow machine came to it
    assert expected == {name: names[name] for name in expected}
    assert told.kubernetes == record["kubernetes"]
    if SYSTEMD:
        assert container.unit == (record["systemd"] or {}).get("unit")


def check_verdict(expected: Facts | None, gone: Record, *, known: bool) -> None:
    """The exit record repeats the runtime's verdict; only where it is `known` from files it has to."""
    actual = gone["runtime_verdict"]
    if actual is None:
        assert not known, f"no verdict, although the runtime says {expected}"
        return
    assert expected is not None
    assert actual == {name: None if actual[name] is None else value for name, value in expected.items()}
    assert not known or None not in actual.values()


class Victims:
    """Waits for the kills of one test."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def of(self, container: Container, count: int = 1) -> list[Record]:
        """The records of the kills in the container, as soon as there are so many, checked against the kernel log."""
        found: list[int] = []
        for _ in attempts():
            records = self._watch.records()
            found = [record["victim"]["pid"] for record in records if container.holds(record["victim"]["cgroup"])]
            if len(found) >= count:
                return self._watch.kills(found, steady=False)  # what the runtime starts comes and goes there
        seen = [record["victim"]["cgroup"] for record in self._watch.records()]
        pytest.fail(f"{len(found)} of {count} kills in {container.cgroup}; there were {seen}")

    def exit_of(self, record: Record) -> Record:
        """The exit record of a kill."""
        return self._watch.exit_of(record)
