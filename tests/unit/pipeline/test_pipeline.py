# SPDX-License-Identifier: Apache-2.0
"""pipeline.py: decoded events in, records out; and each event's token is given up exactly once."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.harness import events
from tests.harness.lines import wait_for
from tests.harness.records import HOST, RECORDS, complete
from tests.harness.schema import validate
from tracer.accounting.audit import Audit
from tracer.accounting.backfill import LoggedKill as LoggedKill
from tracer.accounting.ledger import Ledger
from tracer.capture import wire
from tracer.capture.ring_buffers import Loss
from tracer.capture.ringbuf_retention import Retention, Token
from tracer.delivery.output import Output
from tracer.delivery.sinks import RemoteSink
from tracer.identity.metadata_cache import MetadataCache
from tracer.identity.runtimes import Runtimes
from tracer.pipeline.enrichment import Enrichment
from tracer.pipeline.incidents import END_WAIT_NS
from tracer.pipeline.oom_exit import VERDICT_DELAY_NS, PendingExits
from tracer.pipeline.pipeline import Pipeline
from tracer.pipeline.sigkill import HOLD_NS, SigkillBuilder
from tracer.pipeline.stream import Stream
from tracer.records.filter import Filter

BOOT = "6a4ce4a0-ba47-11ea-b2a7-0cc47ac5979e"
GROUP = events.victim().flags | wire.VICTIM_GROUP
CONTAINER = events.path(b"/docker/" + b"ab" * 32)
FROM_KERNEL = wire.SIGKILL_FROM_KERNEL | wire.SIGKILL_CGROUP
LATER_NS = events.INCIDENT_NS + 20_000_000_000


class Memory(RemoteSink):
    """A sink that stores lines, or refuses all."""

    batch_lines = 1

    def __init__(self) -> None:
        self.uri = "memory"
        self.accepts = True
        self.lines: list[bytes] = []

    def write(self, lines: Sequence[bytes]) -> int:
        if not self.accepts:
            raise OSError("it takes nothing")
        self.lines += lines
        return len(lines)

    def close(self) -> None:
        pass


class NoProcesses:
    """Nothing of any process can be read."""

    def look(self, pid: int, started_ns: int) -> None:
        pass


class Bench:
    """A pipeline with one output, and one ring buffer in which each event takes 8 bytes."""

    def __init__(self, *exclude: tuple[str, str]) -> None:
        self.sink, self.retention, self.counted = Memory(), Retention(), 0
        self.tokens: list[Token] = []
        self.output = Output(self.sink, None)
        self.stream = Stream([self.output], HOST, 8192)
        self.ledger = Ledger(None, BOOT)
        self.audit = Audit(self.ledger, lambda: self.counted)
        names = MetadataCache(Runtimes([]))
        enrichment = Enrichment(names, NoProcesses(), None, lambda cmdline: cmdline)  # type: ignore[arg-type]
        self.pipeline = Pipeline(
            RECORDS,
            SigkillBuilder("bpf", "6a4ce4a0", "containers"),
            PendingExits(names, lambda _pid, _started_ns: False),
            enrichment,
            self.audit,
            self.stream,
            Filter([], exclude),
        )

    def feed(self, *several: wire.Event | wire.DecodeError, now_ns: int = 0) -> None:
        for event in several:
            self.tokens.append(self.retention.issue(8 * len(self.tokens)))
            self.pipeline.feed(event, now_ns, self.tokens[-1])

    def acknowledge(self) -> None:
        """Until the output has taken all lines."""
        self.sink.accepts = True
        self.stream.reopen()
        wait_for(lambda: self.output.acknowledged == self.stream._lines)
        self.stream.poll_outputs()

    def first_needed(self) -> int:
        """The number of the first event that is not released."""
        self.stream.poll_outputs()
        return self.retention.first_needed(8 * len(self.tokens), self.stream.acknowledged) // 8

    def records(self, kind: str = "") -> list[Any]:
        """Those that the output has, after all are acknowledged; each one satisfies the schema."""
        self.acknowledge()
        found = [json.loads(line) for line in self.sink.lines]
        for record in found:
            validate(record)
        return [record for record in found if kind in ("", record["type"])]

    def check_released(self) -> None:
        """Each token was given up exactly once, and nothing is kept."""
        self.acknowledge()
        assert [token._holders for token in self.tokens] == [0] * len(self.tokens)
        assert self.first_needed() == len(self.tokens)

    def close(self) -> None:
        self.stream.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


@pytest.fixture
def excluding() -> Iterator[Bench]:
    made = Bench(("unit", "hog.service"))
    yield made
    made.close()


def gone(pid: int = events.NOBODY, **changes: Any) -> wire.ExitEvent:
    header = events.header(wire.EXIT, time_ns=events.KILL_NS + 1000, **changes)
    return wire.ExitEvent(header, killed_ns=events.KILL_NS, pid=pid)


def kill_of(pid: int, incident_ns: int, **changes: Any) -> list[wire.Event]:
    """A kill with its incident and its end."""
    around = {"incident_ns": incident_ns, "time_ns": incident_ns + 40_000}
    return [
        events.victim(header=events.header(wire.VICTIM, **around), pid=pid, tid=pid, **changes),
        events.incident(header=events.header(wire.INCIDENT, **around), chosen_pid=pid),
        wire.EndEvent(events.header(wire.END, **around)),
    ]


def logged(pid: int, killed_ns: int) -> LoggedKill:
    """A kill as the kernel log reports it."""
    record = complete(events.kill(events.victim(pid=pid, tid=pid)))
    record["id"], record["source"] = f"6a4ce4a0-k{killed_ns:x}-{pid}", "kernel_log"
    return record, killed_ns


def test_kill(bench: Bench) -> None:
    """A kill is written when its incident ends, and its events stay until the output has acknowledged the line."""
    bench.sink.accepts = False
    bench.feed(events.victim(), events.incident())
    assert bench.pipeline.awaits_end
    assert bench.stream._lines == 0
    bench.feed(events.end())
    assert not bench.pipeline.awaits_end
    assert bench.first_needed() == 0
    (record,) = bench.records()
    assert (record["type"], record["victim"]["pid"], record["incident"]["victims"]) == ("oom_kill", events.NOBODY, 1)
    assert record["systemd"]["unit"] == "hog.service"
    assert (bench.pipeline.kills, bench.ledger.kills) == (1, 1)
    bench.check_released()


def test_group_kill(bench: Bench) -> None:
    """Each member has a record; the events of the incident stay until the last one is acknowledged."""
    bench.sink.accepts = False
    first, *others = (events.victim(pid=pid, tid=pid, flags=GROUP) for pid in (1, 2, 3))
    bench.feed(first, events.incident(), *others, events.end())
    assert [token._lines for token in bench.tokens] == [3, 0, 0, 0, 0], "the first event keeps the later ones"
    assert bench.retention.first_needed(40, 2) == 0
    assert [record["victim"]["pid"] for record in bench.records()] == [1, 2, 3]
    bench.check_released()


def test_end_is_missing(bench: Bench) -> None:
    """A kill whose incident's end is lost is written at the deadline, not before."""
    bench.feed(events.victim(), events.incident(), now_ns=100)
    assert bench.pipeline.deadline_ns() == 100 + END_WAIT_NS
    bench.pipeline.flush_incident(99 + END_WAIT_NS)
    assert bench.stream._lines == 0
    bench.pipeline.flush_incident(100 + END_WAIT_NS)
    assert bench.pipeline.deadline_ns() is None
    assert len(bench.records("oom_kill")) == 1
    bench.check_released()


def test_capture_that_goes_on(bench: Bench) -> None:
    """What is incomplete at the end stays in the ring buffer for the next run; without a capture it is written."""
    bench.feed(events.victim(), events.incident())
    bench.feed(events.sigkill(pid=3, flags=FROM_KERNEL))
    bench.pipeline.end(0, capture_goes_on=True)
    assert bench.records() == []
    assert bench.first_needed() == 0
    bench.pipeline.end(0, capture_goes_on=False)
    assert [record["type"] for record in bench.records()] == ["sigkill", "oom_kill"]
    bench.check_released()


def test_excluded(excluding: Bench) -> None:
    """A kill that the filter excludes has no record, and neither has its exit; but it is known to the ledger."""
    excluding.feed(events.victim(init_pid=0), events.incident(), events.end(), gone())
    assert (excluding.stream._lines, excluding.pipeline.filtered, excluding.ledger.kills) == (0, 1, 1)
    excluding.check_released()


def test_killed_again(bench: Bench) -> None:
    """A victim that is killed once more has no second record, and its second kill is not missing."""
    again = wire.KilledAgainEvent(events.header(wire.KILLED_AGAIN, time_ns=LATER_NS), tid=events.NOBODY)
    bench.feed(events.victim(), events.incident(), events.end(), again)
    assert len(bench.records()) == 1
    assert bench.ledger.kills == 2
    bench.check_released()


def test_exit(bench: Bench) -> None:
    """The exit of a host's process is written after its kill, even if it comes before the incident's end."""
    bench.feed(events.victim(init_pid=0), events.incident(), gone(), events.end())
    kill, its_exit = bench.records()
    assert (its_exit["type"], its_exit["id"], its_exit["after_ns"]) == ("oom_exit", kill["id"], 1000)
    bench.check_released()


def test_exit_waits(bench: Bench) -> None:
    """The exit in a container waits for the runtime's verdict, and its event stays for so long."""
    bench.feed(events.victim(), events.incident(), events.end(), gone(), now_ns=50)
    bench.acknowledge()
    assert bench.first_needed() == 3
    assert bench.pipeline.deadline_ns() == 50 + VERDICT_DELAY_NS
    bench.pipeline.flush(50 + VERDICT_DELAY_NS)
    (its_exit,) = bench.records("oom_exit")
    assert its_exit["container_init_died"] is True
    bench.check_released()


def test_sigkill(bench: Bench) -> None:
    """A SIGKILL with a sender is written at once, with both identities."""
    bench.feed(events.sigkill())
    (record,) = bench.records()
    assert (record["type"], record["container"]["id"]) == ("sigkill", "ab" * 32)
    assert record["sender"]["systemd"]["unit"] == "docker.service"
    bench.check_released()


def test_sigkill_of_the_kernel(bench: Bench) -> None:
    """The kernel's SIGKILL waits for the OOM killer's mark: with one it has no record, without one it has."""
    bench.feed(events.sigkill(pid=1, flags=FROM_KERNEL), events.sigkill(pid=2, flags=FROM_KERNEL))
    bench.feed(*kill_of(1, events.INCIDENT_NS))
    bench.acknowledge()
    assert bench.first_needed() == 0
    assert bench.pipeline.deadline_ns() == HOLD_NS
    bench.pipeline.flush(HOLD_NS)
    assert [record["victim"]["pid"] for record in bench.records("sigkill")] == [2]
    bench.check_released()


def test_sigkill_out_of_scope(bench: Bench) -> None:
    """A process that is in no container has no sigkill record."""
    bench.feed(events.sigkill(cgroup=events.path(b"/user.slice"), namespace_level=0))
    assert bench.records() == []
    bench.check_released()


def test_sigkill_excluded() -> None:
    """The filter is the same for all records."""
    bench = Bench(("container", "*"))
    bench.pipeline.configure(lambda cmdline: cmdline, Filter([], [("runtime", "docker")]))
    bench.feed(events.sigkill())
    assert bench.records() == []
    bench.check_released()
    bench.close()


def test_malformed(bench: Bench) -> None:
    """An event that cannot be decoded is released, and reported as lost."""
    bench.feed(wire.DecodeError("5 bytes"), wire.DecodeError("6 bytes"))
    bench.stream.report_losses()
    (record,) = bench.records()
    assert (record["type"], record["stage"], record["count"]) == ("lost", "decode", 2)
    bench.check_released()


def test_record_that_cannot_be_built(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would come again at every start: it is released, and reported as lost."""
    monkeypatch.setattr(bench.pipeline, "_records", None)
    bench.feed(events.victim(), events.incident(), events.end(), gone())
    bench.stream.report_losses()
    (record,) = bench.records()
    assert (record["stage"], record["count"]) == ("record", 2)
    bench.check_released()


def test_loss(bench: Bench) -> None:
    """What the ring buffer had no room for is reported with an id of its own, and marked once all outputs have it."""
    bench.sink.accepts = False
    marked: list[int] = []
    loss = Loss("ring_buffer", 3, 10, may_be_reported=True, mark_reported=lambda: marked.append(10))
    bench.pipeline.report_loss(loss, "b-1")
    bench.stream.report_losses()
    assert marked == []
    (record,) = bench.records()
    assert (record["type"], record["id"], record["count"]) == ("lost", "b-1-ring_buffer-3-a", 7)
    assert marked == [10]


def test_previous_capture(bench: Bench) -> None:
    """What two captures saw has one record, and one exit, of the previous capture; the rest has its own."""
    both, later = kill_of(7, events.INCIDENT_NS), kill_of(8, LATER_NS)
    seen_before = kill_of(7, events.INCIDENT_NS - 500)
    previous_exit = gone(7, incident_ns=events.INCIDENT_NS - 500)
    previous_sigkill = events.sigkill(pid=9)
    bench.pipeline.feed_previous([*seen_before, previous_exit, previous_sigkill], 0)
    bench.feed(*both, gone(7), *later, events.sigkill(pid=9))
    bench.pipeline.flush(VERDICT_DELAY_NS)
    bench.pipeline.end(VERDICT_DELAY_NS, capture_goes_on=False)
    found = [(record["type"], record.get("victim", record)["pid"]) for record in bench.records()]
    assert sorted(found) == [("oom_exit", 7), ("oom_kill", 7), ("oom_kill", 8), ("sigkill", 9)]
    bench.check_released()


def test_gap_is_recovered(bench: Bench) -> None:
    """Of the kills in the log those that have a record are not written again; what no log has becomes a gap."""
    bench.sink.accepts = False
    bench.feed(*kill_of(7, events.INCIDENT_NS))
    bench.counted = 3
    assert bench.audit.missing() == 2
    found = [logged(7, events.KILL_NS + 1_000_000), logged(8, events.KILL_NS + 30_000_000_000)]
    bench.pipeline.backfill_gaps(found, 0)
    assert bench.stream.has_actions(), "the ledger waits until the outputs have these"
    kills = bench.records("oom_kill")
    assert [(record["source"], record["victim"]["pid"]) for record in kills] == [("bpf", 7), ("kernel_log", 8)]
    (gap,) = bench.records("gap")
    assert (gap["oom_kills"], gap["records"], gap["missing"]) == (3, 2, 1)
    assert not bench.stream.has_actions()
    assert bench.audit.missing() == 0
    bench.check_released()


def test_gap_that_closes(bench: Bench) -> None:
    """A kill whose event was read after the log is not missing: nothing is written from the log."""
    bench.counted = 1
    assert bench.audit.missing() == 1
    found = [logged(7, events.KILL_NS)]
    bench.feed(*kill_of(7, events.INCIDENT_NS))
    bench.pipeline.backfill_gaps(found, 0)
    assert [record["source"] for record in bench.records()] == ["bpf"]


def test_gap_with_an_open_incident(bench: Bench) -> None:
    """While a victim waits for its incident's end nothing is certainly missing."""
    bench.feed(events.victim(), events.incident())
    bench.counted = 1
    assert bench.audit.missing() == 1
    bench.pipeline.backfill_gaps([logged(7, events.KILL_NS)], 5)
    assert bench.records() == []
    assert bench.audit.deadline_ns() is not None


PIDS = st.integers(1, 4)
INCIDENTS = st.integers(0, 3).map(lambda number: events.INCIDENT_NS + number * 1_000_000)
EVENTS = st.one_of(
    st.builds(
        lambda pid, at, flags, is_lone: events.victim(
            pid=pid, tid=pid, flags=flags, header=events.header(wire.VICTIM, incident_ns=at, time_ns=at + (not is_lone))
        ),
        PIDS,
        INCIDENTS,
        st.sampled_from([GROUP, events.victim().flags, events.victim().flags | wire.VICTIM_MARKED]),
        st.booleans(),
    ),
    INCIDENTS.map(lambda at: events.incident(header=events.header(wire.INCIDENT, incident_ns=at))),
    INCIDENTS.map(lambda at: wire.EndEvent(events.header(wire.END, incident_ns=at))),
    INCIDENTS.map(lambda at: events.log(b"Killed process", header=events.header(wire.LOG, incident_ns=at))),
    st.builds(lambda pid, at: gone(pid, incident_ns=at), PIDS, INCIDENTS),
    st.builds(lambda pid, flags: events.sigkill(pid=pid, flags=flags), PIDS, st.sampled_from([FROM_KERNEL, 0])),
    PIDS.map(lambda tid: wire.KilledAgainEvent(events.header(wire.KILLED_AGAIN), tid)),
    st.just(wire.DecodeError("malformed")),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(EVENTS, max_size=25), st.booleans())
def test_tokens(several: list[wire.Event | wire.DecodeError], is_excluding: bool) -> None:
    """Whatever comes in whatever order: each token is given up exactly once, and each kill is noted."""
    bench = Bench(*[("unit", "hog.service")] * is_excluding)
    bench.feed(*several)
    bench.pipeline.flush(HOLD_NS)
    bench.pipeline.end(HOLD_NS, capture_goes_on=False)
    bench.check_released()
    bench.close()
