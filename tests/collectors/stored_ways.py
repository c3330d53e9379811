# SPDX-License-Identifier: Apache-2.0
"""What has come to a store by one way or another, compared with what the tracer wrote into a file beside it."""

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
    """Names of fields in the store, of one style."""

    fields: Callable[[Stored], Stored]
    """What the store has by the names of the style."""
    type: str
    id: str
    comm: str
    rss: str


def itself(stored: Stored) -> Stored:
    return stored


def unpacked(stored: Stored) -> Stored:
    """Of Loki's line, which is the JSON."""
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
    """At least so many, by this tracer's count: others may be killed, too."""
    wait_until(f"{count} kills are there by {name}", lambda: kills(store, name, way) >= count, ARRIVES_S)


def check_all(daemon: Daemon, store: VictoriaLogs, name: str, way: Way) -> None:
    """Once the tracer has stopped."""
    count = len(once(daemon.records()))
    # A store may show a later batch before an earlier one.
    wait_until(f"all are there by {name}", lambda: len(keys(came(store, name, way))) >= count, ARRIVES_S)
    check(daemon, store, name, way)


Came = tuple[str, str | None, int]
"""Type, id and time."""


def came(store: VictoriaLogs, name: str, way: Way) -> list[Came]:
    """What is there, once, in the order of time."""
    found = [(way.fields(each), each["_time"]) for each in store.stored(name)]
    return list(dict.fromkeys((each[way.type], each.get(way.id), parse_rfc3339(time) or 0) for each, time in found))


def kills(store: VictoriaLogs, name: str, way: Way) -> int:
    return sum(kind == "oom_kill" for kind, _ in keys(came(store, name, way)))


def keys(found: list[Came]) -> set[tuple[str, str | int]]:
    """By which a record that is told again, after SIGKILL with a time that is some nanoseconds off, is known."""
    return {(kind, time if id_ is None else id_) for kind, id_, time in found}


def check(daemon: Daemon, store: VictoriaLogs, name: str, way: Way) -> None:
    """All that the tracer has written into the file beside it is there, and each kill is found by its fields."""
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
