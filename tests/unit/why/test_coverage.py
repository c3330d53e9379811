# SPDX-License-Identifier: Apache-2.0
"""Times in which kills were recorded, from the remaining records of a stream."""

from typing import Any

import pytest

from tests.harness.records import HOST
from tracer.why.coverage import Coverage, StreamPart, stream_coverage

OTHER_BOOT = {**HOST, "boot_id": "another"}


def at(hour: int) -> str:
    return f"2026-11-24T{hour:02}:00:00.000000000Z"


def record(kind: str, hour: int, **more: Any) -> dict[str, Any]:
    return {"type": kind, "time": at(hour), "host": HOST, **more}


def start(hour: int, scope: str = "containers", adopted: bool = False, **more: Any) -> dict[str, Any]:
    return record("start", hour, sigkill=scope, adopted=adopted, **more)


def stop(hour: int, **more: Any) -> dict[str, Any]:
    return record("stop", hour, **more)


def kill(hour: int, **more: Any) -> dict[str, Any]:
    return record("oom_kill", hour, **{"source": "bpf", **more})


def part(*records: Any, damaged: bool = False) -> StreamPart:
    made = StreamPart(HOST)
    for each in records:
        made.add(each)
    made.is_damaged = damaged
    return made


STREAMS: dict[str, tuple[list[StreamPart], list[Coverage]]] = {
    "it goes on": ([part(start(1), kill(3))], [Coverage(at(1), None, "containers")]),
    "stopped": ([part(start(1), kill(3), stop(5))], [Coverage(at(1), at(5), "containers")]),
    "started again": (
        [part(start(1), stop(5), start(7, "off"))],
        [Coverage(at(1), at(5), "containers"), Coverage(at(7), None, "off")],
    ),
    "captured meanwhile": (
        [part(start(1), stop(5), start(7, adopted=True))],
        [Coverage(at(1), at(5), "containers"), Coverage(at(5), None, "containers")],
    ),
    "ended without a stop": (
        [part(start(1), kill(3), start(7, "all"))],
        [Coverage(at(1), at(7), "containers"), Coverage(at(7), None, "all")],
    ),
    "rotated": ([part(kill(6), kill(8)), part(start(1), kill(3))], [Coverage(at(1), None, "containers")]),
    "rotated, and the start is gone": ([part(kill(6))], [Coverage(at(6), None, "off")]),
    "rotated, with SIGKILLs": ([part(kill(6), record("sigkill", 7))], [Coverage(at(6), None, "containers")]),
    "stopped after rotation": ([part(stop(8)), part(start(1), kill(3))], [Coverage(at(1), at(8), "containers")]),
    "twice": ([part(start(1), kill(3), stop(5))] * 2, [Coverage(at(1), at(5), "containers")]),
    "damaged": ([part(start(1), kill(3), damaged=True)], [Coverage(at(1), at(3), "containers")]),
    "damaged, then rotated": (
        [part(start(1), kill(3), damaged=True), part(kill(6))],
        [Coverage(at(1), at(3), "containers"), Coverage(at(6), None, "off")],
    ),
    "another boot": (
        [part(start(1, host=OTHER_BOOT), kill(3, host=OTHER_BOOT), start(7))],
        [Coverage(at(1), at(3), "containers"), Coverage(at(7), None, "containers")],
    ),
    "another host": ([part(start(1, host={**OTHER_BOOT, "name": "other"}))], []),
    "found in the kernel log": ([part(kill(1, source="kernel_log"), start(3))], [Coverage(at(3), None, "containers")]),
    "without a time": ([part({**start(1), "time": None})], []),
    "nothing": ([part()], []),
}


@pytest.mark.parametrize("name", STREAMS)
def test_watches(name: str) -> None:
    """The remaining records show from when to when kills were recorded."""
    parts, expected = STREAMS[name]
    assert stream_coverage(parts, HOST["boot_id"]) == expected
