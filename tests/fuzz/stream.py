# SPDX-License-Identifier: Apache-2.0
"""Bytes of the ring buffer, through all stages, to lines of JSON.

An input is a series of events, each after its length (16 bits).
"""

import json
import struct
import unicodedata
from collections.abc import Iterable, Iterator
from random import Random
from typing import Any

from tests.harness import events
from tests.harness.records import BLIND, HOST, RECORDS
from tests.harness.schema import validate
from tracer.capture import wire
from tracer.capture.kill_buffers import decode
from tracer.encoding import encoder
from tracer.identity.enrich import enrich_oom_kill
from tracer.pipeline.incidents import Incidents, Joined, JoinedKill
from tracer.records.model import Record
from tracer.redaction.cmdline import Redactor

from .target import Target, mutate

_LENGTH = struct.Struct("<H")
_EVENTS_MAX = 12
_REDACT = Redactor().redact
_INTEGERS = (-(1 << 63), -1000, -1, 0, 1, 8, 16, (1 << 31) - 1, (1 << 32) - 1, 1 << 52, (1 << 63) - 1, (1 << 64) - 1)
_STRINGS = (
    b"",
    b"\0",
    b"a\0" * 300,
    b"\x01" * 250 + b"\0",
    b"\xff\xfe\0",
    b"\x1b]0;x\x07\0",
    "\x9b\u202e\u2028\0".encode(),
    b"--password=x\0--token\0y\0",
    b"docker-" + b"5" * 64 + b".scope\0system.slice\0",
    b"Killed process 5 (",
)


def pack(frames: Iterable[bytes]) -> bytes:
    return b"".join(_LENGTH.pack(len(frame)) + frame for frame in frames)


def unpack(data: bytes) -> list[bytes]:
    frames: list[bytes] = []
    at = 0
    while at + _LENGTH.size <= len(data) and len(frames) < _EVENTS_MAX:
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        frames.append(data[at : at + length])
        at += length
    return frames


def run(data: bytes) -> None:
    """Each victim becomes one valid line; invalid events are reported as such."""
    decoded = []
    for frame in unpack(data):
        try:
            decoded.append(decode(frame, events.PATHS))
        except wire.DecodeError:
            continue
    joined: list[Joined] = []
    incidents = Incidents()
    for now_ns, event in enumerate(decoded):
        if isinstance(event, wire.CgroupEvent):
            continue
        joined += incidents.feed(event, now_ns)
        joined += incidents.flush(now_ns)
    joined += incidents.end()
    assert incidents.deadline_ns() is None
    check_count(decoded, joined)
    for each, _ in joined:
        if not isinstance(each, wire.KilledAgainEvent):
            for lines in written(each):
                check_line(lines)


def check_count(fed: list[wire.Event], joined: list[Joined]) -> None:
    """No kill and no exit is lost or repeated; a mark alone (tracepoint mode) may not be a kill."""
    kills = [each.victim for each, _ in joined if isinstance(each, JoinedKill)]
    victims = [event for event in fed if isinstance(event, wire.VictimEvent)]
    certain = [victim for victim in victims if not victim.flags & wire.VICTIM_MARKED]
    assert len(certain) <= len(kills) <= len(victims)
    assert all(any(victim is each for each in kills) for victim in certain)
    for kind in (wire.ExitEvent, wire.KilledAgainEvent):
        emitted = [each for each, _ in joined if isinstance(each, kind)]
        assert sorted(emitted) == sorted(event for event in fed if isinstance(event, kind))


def written(each: JoinedKill | wire.ExitEvent) -> Iterator[tuple[bytes, int]]:
    """Encoded lines, with the maximum size."""
    for records, max_bytes in ((RECORDS, encoder.MAX_BYTES), (BLIND, encoder.MIN_MAX_BYTES)):
        record: Record
        if isinstance(each, JoinedKill):
            record = records.oom_kill(each)
            enrich_oom_kill(record, each.victim.started_ns, redact=_REDACT)
        else:
            record = records.oom_exit(each)
        record["host"] = HOST
        yield encoder.encode(record, max_bytes), max_bytes


def check_line(encoded: tuple[bytes, int]) -> None:
    raw, max_bytes = encoded
    text = raw.decode()
    assert len(raw) <= max_bytes
    assert text.endswith("\n")
    assert not [char for char in text[:-1] if unicodedata.category(char) in ("Cc", "Zl", "Zp")]
    validate(json.loads(text))


def seeds() -> list[bytes]:
    exited = wire.ExitEvent(events.header(wire.EXIT), events.KILL_NS, events.NOBODY)
    group = events.victim(flags=events.victim().flags | wire.VICTIM_GROUP)
    marked = events.victim(flags=events.victim().flags | wire.VICTIM_MARKED)
    log = [
        events.log(b"hog invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0\n"),
        events.log(
            b"oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/system.slice,"
            b"task_memcg=/system.slice/hog.service,task=hog,pid=5,uid=0\n"
        ),
        events.log(b"Memory cgroup out of memory: Killed process 5 (hog) total-vm:1kB\n"),
    ]
    runs: list[list[wire.Event]] = [
        [events.victim(), events.incident(), events.shared_mm(77), events.end(), exited],
        [group, events.incident(), group, group, events.end()],
        [
            events.victim(),
            events.memcg_chain(events.counters(limit_pages=5)),
            events.blind_incident(),
            *log,
            events.end(),
        ],
        [log[0], marked, events.blind_incident(), log[1], log[2]],
        [wire.CgroupEvent(events.header(wire.CGROUP), b"/docker/" + b"5" * 64)],
    ]
    in_brief = [
        [events.brief_victim()],
        [events.encode(events.incident()), events.brief_victim(), events.encode(exited)],
        [
            events.brief_victim(flags=wire.VICTIM_TASK | wire.VICTIM_GROUP),
            events.brief_victim(),
            events.encode(events.end()),
        ],
        [events.encode(log[0]), events.brief_victim(flags=wire.VICTIM_MARKED | wire.VICTIM_CGROUP), events.reported(1)],
    ]
    return [pack(map(events.encode, each)) for each in runs] + [pack(each) for each in in_brief]


def mutate_events(data: bytes, random: Random) -> bytes:
    """Change a field of one event, or the events' order, number, or bytes."""
    frames = unpack(data)
    if not frames:
        return random.choice(seeds())
    place = random.randrange(len(frames))
    match random.randrange(6):
        case 0:
            frames.insert(place, random.choice(unpack(random.choice(seeds()))))
        case 1:
            frames.append(frames.pop(place))
        case 2:
            frames[place] = mutate(frames[place], random)
        case _:
            frames[place] = _change(frames[place], random)
    return pack(frame[:65535] for frame in frames)


def _change(frame: bytes, random: Random) -> bytes:
    try:
        event: Any = wire.decode_event(frame)
        return events.encode(_changed(event, random))
    except (wire.DecodeError, struct.error):
        return mutate(frame, random)


def _changed(value: Any, random: Random) -> Any:
    """Replace one number or string of an event."""
    if isinstance(value, int):
        return random.choice(_INTEGERS) if random.randrange(2) else value ^ 1 << random.randrange(12)
    if isinstance(value, bytes):
        return mutate(value, random)[:4096] if random.randrange(2) else random.choice(_STRINGS)
    if not value:
        return value
    place = random.randrange(len(value))
    changed = (*value[:place], _changed(value[place], random), *value[place + 1 :])
    return type(value)(*changed) if hasattr(value, "_fields") else changed


STREAM = Target("stream", run, seeds, mutate_events)
