# SPDX-License-Identifier: Apache-2.0
"""kill_buffers.py: the two ring buffers of kills are one, in the order of the kills; what is kept in brief is
decoded."""

import contextlib
import os
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.harness import events
from tests.harness.ring_memory import RingProducer
from tracer.capture import brief, kill_buffers, wire
from tracer.capture.kill_buffers import KillRings, decode
from tracer.capture.ringbuf import Ring
from tracer.capture.ringbuf_retention import Token

SIZE = 1 << 16


class Kernels:
    """Both ring buffers, with a writer that is called before each read."""

    def __init__(self) -> None:
        self.whole, self.briefs = RingProducer(SIZE), RingProducer(SIZE)
        self.maps = {"events": self.whole.descriptor, "briefs": self.briefs.descriptor}
        self.before_read: Callable[[], None] = lambda: None

    def open(self, descriptor: int) -> Ring:
        return Meanwhile(descriptor, self)

    def close(self) -> None:
        for kernel in (self.whole, self.briefs):
            os.close(kernel.descriptor)


class Meanwhile(Ring):
    def __init__(self, descriptor: int, kernels: Kernels) -> None:
        super().__init__(descriptor, SIZE)
        self._kernels = kernels

    def read(self, most: int | None = None) -> list[tuple[int, bytes]]:
        self._kernels.before_read()
        return super().read(most)


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernels]:
    with opened(monkeypatch) as made:
        yield made


@contextlib.contextmanager
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernels]:
    made = Kernels()
    monkeypatch.setattr(kill_buffers, "open_ring", made.open)
    yield made
    made.close()


def at(time_ns: int) -> bytes:
    """A kill at that time."""
    return events.encode(events.victim(header=events.header(wire.VICTIM, time_ns=time_ns, incident_ns=time_ns - 1)))


def times(found: list[tuple[bytes, Token]]) -> list[int]:
    return [wire.decode_event(data).header.time_ns for data, _ in found]


def all_times(rings: KillRings) -> list[int]:
    read: list[int] = []
    while found := rings.read():
        read += times(found)
    return read


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=40), st.integers(1, 4))
def test_order(schedule: list[tuple[bool, int]], most: int) -> None:
    """With any distribution over the ring buffers and any writes during reads: each kill once, in order."""
    with pytest.MonkeyPatch.context() as monkeypatch, opened(monkeypatch) as kernels:
        monkeypatch.setattr(kill_buffers, "EVENTS_MAX", most)
        rings = KillRings(kernels.maps)
        rest = list(enumerate(schedule, 1))

        def write() -> None:
            for _ in range(rest[0][1][1] if rest else 0):
                if rest:
                    number, (is_brief, _) = rest.pop(0)
                    (kernels.briefs if is_brief else kernels.whole).write(at(number))

        kernels.before_read = write
        read: list[int] = []
        for _ in range(3 * len(schedule) + 1):
            read += times(rings.read())
            if rest and rest[0][1][1] == 0:
                rest[0] = (rest[0][0], (rest[0][1][0], 1))
        read += all_times(rings)
        assert read == list(range(1, len(schedule) + 1))


def test_exit_before_the_mark(kernels: Kernels) -> None:
    """A killed process may exit before it is marked: its exit still comes after its kill."""
    gone = wire.ExitEvent(events.header(wire.EXIT, time_ns=90), killed_ns=100, pid=7)
    kernels.whole.write(events.encode(gone))
    kernels.briefs.write(at(100))
    assert all_times(KillRings(kernels.maps)) == [100, 90]


def test_one_that_is_being_written(kernels: Kernels) -> None:
    """Events behind an incomplete one may precede those in the other ring buffer."""
    rings = KillRings(kernels.maps)
    busy = kernels.whole.reserve(at(1))
    kernels.whole.write(at(2))
    kernels.briefs.write(at(3))
    assert rings.read() == []
    kernels.whole.header(busy, len(at(1)))
    assert all_times(rings) == [1, 2, 3]


def test_released(kernels: Kernels) -> None:
    """Each ring buffer keeps unreleased events for the next reader."""
    rings = KillRings(kernels.maps)
    for number in range(1, 7):
        (kernels.briefs if number % 2 else kernels.whole).write(at(number))
    found = rings.read() + rings.read()
    for number, (_, token) in enumerate(found, 1):
        token.release_after(number)
    assert rings.awaits_outputs(3)
    rings.release(3, is_saved=False)
    assert all_times(KillRings(kernels.maps)) == [1, 2, 3, 4, 5, 6]
    rings.release(3, is_saved=True)
    assert all_times(KillRings(kernels.maps)) == [4, 5, 6]
    assert all(token.precedes_run for _, token in KillRings(kernels.maps).read())


def test_earlier_version(kernels: Kernels) -> None:
    """A capture without the second ring buffer is read as well."""
    kernels.whole.write(at(1))
    assert all_times(KillRings({"events": kernels.maps["events"]})) == [1]


def test_brief_victim() -> None:
    """A brief event has the victim's essential fields; the rest is unknown."""
    whole = events.victim()
    victim = decode(events.brief_victim(), events.PATHS)
    assert isinstance(victim, wire.VictimEvent)
    assert victim.brief is not None
    assert victim.brief.limit_level == 1
    for name in set(brief.BriefFields._fields) & set(wire.VictimEvent._fields) - {"flags"}:
        assert getattr(victim, name) == getattr(whole, name), name
    assert victim.cgroup == whole.cgroup
    unknown = decode(
        events.brief_victim(swap_pages=brief.UNKNOWN_PAGES, limit_level=brief.NO_LEVEL, flags=0), events.PATHS
    )
    assert isinstance(unknown, wire.VictimEvent)
    assert unknown.brief is not None
    assert (unknown.swap_pages, unknown.brief.limit_level, unknown.flags, unknown.cgroup) == (-1, None, 0, b"")


def test_long_path() -> None:
    """A path without its leaf end omits the truncated name, and is flagged."""
    flags = wire.VICTIM_CGROUP | brief.BRIEF_LEAF_TRUNCATED
    data = events.brief_victim(
        flags=flags, path=events.PATH_AT + 3, path_len=len(events.path(b"/system.slice/hog.service")) - 3
    )
    victim = decode(data, events.PATHS)
    assert isinstance(victim, wire.VictimEvent)
    assert wire.join_path(victim.cgroup) == "/system.slice"
    assert victim.flags & wire.VICTIM_CGROUP_TRUNCATED


@pytest.mark.parametrize(("message", "text"), [(0, b""), (1, b"Memory cgroup out of memory"), (2, b"Out of memory")])
def test_reported(message: int, text: bytes) -> None:
    """A log message in brief becomes the line that it stands for."""
    event = decode(events.reported(message), None)
    assert isinstance(event, wire.LogEvent)
    assert event.text.partition(b": ")[0] == text


@pytest.mark.parametrize("data", [events.brief_victim(), events.reported(1)])
def test_truncated(data: bytes) -> None:
    """A truncated event is refused at any length."""
    for length in range(len(data)):
        with pytest.raises(wire.DecodeError):
            decode(data[:length], events.PATHS)


@pytest.mark.parametrize(
    "data", [events.brief_victim(path=brief.PATHS_BYTES - 4), events.reported(3), events.reported(0xFFFFFFFF)]
)
def test_impossible(data: bytes) -> None:
    """A path outside the store and an unknown message are refused."""
    with pytest.raises(wire.DecodeError):
        decode(data, events.PATHS)


@given(st.sampled_from([brief.BRIEF, brief.LOG_BRIEF]), st.binary(max_size=200))
def test_garbage(kind: int, data: bytes) -> None:
    """Any bytes after a valid header raise DecodeError at most."""
    with contextlib.suppress(wire.DecodeError):
        decode(wire.HEADER.pack(kind, 1, 2, 3) + data, events.PATHS)
