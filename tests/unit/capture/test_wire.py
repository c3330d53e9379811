# SPDX-License-Identifier: Apache-2.0
"""wire.py: decodes valid events, and rejects invalid ones."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.harness import events
from tracer.capture import wire

EXIT = wire.ExitEvent(events.header(wire.EXIT), killed_ns=events.KILL_NS, pid=77)
AGAIN = wire.KilledAgainEvent(events.header(wire.KILLED_AGAIN), tid=77)
EACH = [
    pytest.param(events.victim(), id="victim"),
    pytest.param(events.incident(candidates_len=2, candidates=(events.candidate(), events.candidate(pid=2))), id="oc"),
    pytest.param(events.blind_incident(), id="tracepoints"),
    pytest.param(events.shared_mm(9), id="shared-mm"),
    pytest.param(EXIT, id="exit"),
    pytest.param(AGAIN, id="again"),
    pytest.param(events.memcg_chain(events.counters(), events.counters(limit_pages=5)), id="memcg-chain"),
    pytest.param(events.log(b"oom-kill:constraint=CONSTRAINT_NONE"), id="log"),
    pytest.param(events.end(), id="end"),
    pytest.param(events.sigkill(), id="sigkill"),
]


@pytest.mark.parametrize("event", EACH)
def test_round_trip(event: wire.Event) -> None:
    """Decoding an encoded event returns the same event."""
    assert event == wire.decode_event(events.encode(event))


@pytest.mark.parametrize("event", EACH)
def test_truncated(event: wire.Event) -> None:
    """A truncated event is refused at any length."""
    data = events.encode(event)
    for length in range(len(data)):
        with pytest.raises(wire.DecodeError):
            wire.decode_event(data[:length])


@pytest.mark.parametrize("event", EACH)
def test_longer(event: wire.Event) -> None:
    """Bytes after an event are ignored."""
    assert event == wire.decode_event(events.encode(event) + b"\xff" * 9)


@given(st.integers(0, 0xFFFFFFFF).filter(lambda kind: kind not in (*range(1, wire.SIGKILL + 1), wire.KILLED_AGAIN)))
def test_unknown_type(kind: int) -> None:
    """An event of an unknown type is rejected."""
    with pytest.raises(wire.DecodeError):
        wire.decode_event(wire.HEADER.pack(kind, 1, 2, 3) + bytes(2000))


@given(st.binary(max_size=64) | st.builds(bytes.__add__, st.just(b"\2\0\0\0"), st.binary(max_size=2048)))
def test_garbage(data: bytes) -> None:
    """Random bytes raise DecodeError only."""
    with contextlib.suppress(wire.DecodeError):
        wire.decode_event(data)


@given(st.integers(1, 7), st.binary(max_size=1500))
def test_garbage_in_an_event(kind: int, data: bytes) -> None:
    """Any bytes after a valid header raise DecodeError at most."""
    with contextlib.suppress(wire.DecodeError):
        wire.decode_event(wire.HEADER.pack(kind, 1, 2, 3) + data)


@given(st.data())
def test_damaged(data: st.DataObject) -> None:
    """An event with bytes overwritten is decoded or rejected."""
    each: list[wire.Event] = [events.victim(), events.incident(), events.memcg_chain(events.counters())]
    original = events.encode(data.draw(st.sampled_from(each)))
    at, damage = data.draw(st.integers(0, len(original))), data.draw(st.binary(min_size=1, max_size=8))
    with contextlib.suppress(wire.DecodeError):
        wire.decode_event(original[:at] + damage + original[at + len(damage) :])


def test_more_levels_than_there_can_be() -> None:
    """A count beyond the array's end reads only the array."""
    data = events.header(wire.MEMCG_CHAIN)
    each = [events.counters(usage_pages=number) for number in range(wire.MEMCG_CHAIN_MAX)]
    packed = b"".join(wire.MEMCG_COUNTERS.pack(*level) for level in each)
    event = wire.decode_event(wire.HEADER.pack(*data) + wire.MEMCG_CHAIN_FIXED.pack(1 << 31) + packed)
    assert wire.MemcgChainEvent(data, tuple(each)) == event


@pytest.mark.parametrize(
    ("names", "joined"),
    [
        (b"", "/"),
        (b"a\0", "/a"),
        (b"leaf\0middle\0top\0", "/top/middle/leaf"),
        (b"\0a\0", "/a/"),
        (b"caf\xc3\xa9\0\xff\xfe\0", "/\\xff\\xfe/café"),
        (b"a\nb\0", "/a\nb"),
    ],
)
def test_join_path(names: bytes, joined: str) -> None:
    """Names from the leaf to the root become a path; invalid UTF-8 is escaped."""
    assert joined == wire.join_path(names)


@given(st.lists(st.binary(min_size=1).filter(lambda name: not {0, ord("/")} & set(name)), min_size=1))
def test_join_path_any_names(names: list[bytes]) -> None:
    """Every name that a file system allows is kept complete."""
    whole = b"".join(b"/" + name for name in names)
    assert whole == wire.join_path_bytes(events.path(whole))


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (events.comm(b"hog"), "hog"),
        (b"a full name of 16", "a full name of 16"),
        (b"", ""),
        (b"\0rest", ""),
        (b"nvidia-devic\xe2\x82", "nvidia-devic\\xe2\\x82"),
        ("日本".encode(), "日本"),
    ],
)
def test_text(raw: bytes, text: str) -> None:
    """A name ends at its first NUL; a character cut by the kernel's limit of 15 bytes is escaped."""
    assert text == wire.decode_text(raw)
