# SPDX-License-Identifier: Apache-2.0
"""Compares the records that a store got by one way (a protocol and style) with the daemon's output file."""

import json
from collections.abc import Callable
from typing import NamedTuple

from tests.harness.daemon import Daemon
from tests.harness.environment import wait_until
from tracer.base.clock import parse_rfc3339

from .delivery import once
from .victoria_logs import Stored, VictoriaLogs

ARRIVES_S = 90.0


class Way(NamedTuple):
    """Names of fields in the store, for one style."""

    fields: Callable[[Stored], Stored]
    """Gets the fields, by the names of the style, from what is stored."""
    type: str
    id: str
    comm: str
    rss: str


def itself(stored: Stored) -> Stored:
    return stored


def unpacked(stored: Stored) -> Stored:
    """Fields of Loki's line, which is the JSON."""
    record = json.loads(stored["_msg"])
    labels = {name: stored[name] for name in ("host", "job", "type")}
    assert labels == {"host": record["host"]["name"], "job": "oomtrace", "type": record["type"]}
    flat = {f"victim.{name}": str(value) for name, value in record.get("victim", {}).items()}
    return {**record, **flat}


NESTED_NAMES = ("type", "id", "victim.comm", "victim.rss_bytes")
ECS_NAMES = ("event.action", "event.id", "process.name", "oomtrace.victim.rss_bytes")
OTEL_NAMES = ("oomtrace.type", "oomtrace.id", "process.title", "oomtrace.victim.rss_bytes")
NDJSON = Way(itself, "_msg", *NESTED_NAMES[1:])
BULK = Way(itself, *ECS_NAMES)
LOKI = Way(unpacked, *NESTED_NAMES)
OTLP = Way(itself, *OTEL_NAMES)


def wait_for_kills(store: VictoriaLogs, name: str, way: Way, count: int) -> None:
    """Wait until the store has at least this many kills of this daemon."""
    wait_until(f"{count} kills by {name}", lambda: kills(store, name, way) >= count, ARRIVES_S)


def check_all(daemon: Daemon, store: VictoriaLogs, name: str, way: Way) -> None:
    """Wait until the store has all records of a stopped daemon, and check them."""
    count = len(once(daemon.records()))
    # A store may show a later batch before an earlier one.
    wait_until(f"all records by {name}", lambda: len(keys(came(store, name, way))) >= count, ARRIVES_S)
    check(daemon, store, name, way)


Came = tuple[str, str | None, int]
"""Type, id and time."""


def came(store: VictoriaLogs, name: str, way: Way) -> list[Came]:
    """The stored records without duplicates, in the order of time."""
    found = [(way.fields(each), each["_time"]) for each in store.stored(name)]
    return list(dict.fromkeys((each[way.type], each.get(way.id), parse_rfc3339(time) or 0) for each, time in found))


def kills(store: VictoriaLogs, name: str, way: Way) -> int:
    return sum(kind == "oom_kill" for kind, _ in keys(came(store, name, way)))


def keys(found: list[Came]) -> set[tuple[str, str | int]]:
    """Identities for deduplication: after SIGKILL a repeated record's time may differ by some nanoseconds."""
    return {(kind, time if id_ is None else id_) for kind, id_, time in found}


def check(daemon: Daemon, store: VictoriaLogs, name: str, way: Way) -> None:
    """Check that all records of the output file are stored, and that each kill is found by its fields."""
    written = once(daemon.records())
    expected = [(record["type"], record.get("id"), parse_rfc3339(record["time"]) or 0) for record in written]
    found = came(store, name, way)
    assert keys(found) == keys(expected), name
    assert set(found) >= set(expected), name
    for record in written:
        if record["type"] != "oom_kill":
            continue
        if name == "loki":
            twins = [each for each in map(way.fields, store.stored(name)) if each.get("id") == record["id"]]
        else:
            twins = store.query(f'way:={name} {way.id}:="{record["id"]}" {way.comm}:="{record["victim"]["comm"]}"')
        kinds = [each for each in twins if each[way.type] == "oom_kill"]
        assert kinds, (name, record["id"])
        assert int(kinds[0][way.rss]) == record["victim"]["rss_bytes"]
