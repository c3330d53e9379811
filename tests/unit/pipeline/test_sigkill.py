# SPDX-License-Identifier: Apache-2.0
"""sigkill.py: which SIGKILLs have a record, when, and once; and a record that is too long."""

import json

import pytest

from tests.harness import events
from tests.harness.records import HOST
from tests.harness.schema import validate
from tracer.capture import wire
from tracer.capture.ringbuf_retention import Retention
from tracer.config.options import SigkillOption
from tracer.encoding import encoder
from tracer.identity.enrich import enrich_sigkill
from tracer.pipeline.sigkill import HOLD_NS, REMEMBERED_MAX, SigkillBuilder
from tracer.records.model import Sigkill

FROM_KERNEL = wire.SIGKILL_FROM_KERNEL | wire.SIGKILL_CGROUP


def sigkills(scope: SigkillOption = "containers") -> SigkillBuilder:
    return SigkillBuilder("bpf", "6a4ce4a0", scope)


def complete(event: wire.SigkillEvent) -> Sigkill:
    token = Retention().issue(7)
    ((record, tokens),) = sigkills("all").feed(event, 0, (token,))
    assert tokens == (token,)
    enrich_sigkill(record)
    record["host"] = HOST
    validate(record)
    return record


def test_record() -> None:
    """Every field, and the container of the victim."""
    record = complete(events.sigkill())
    assert record["id"] == f"6a4ce4a0-{events.KILL_NS:x}-{events.NOBODY}"
    assert record["victim"]["is_container_init"] is True
    assert record["victim"]["cgroup"] == "/docker/" + "ab" * 32
    assert record["container"] is not None
    assert record["container"]["id"] == "ab" * 32
    assert record["sender"] is not None
    assert (record["sender"]["comm"], record["sender"]["tid"]) == ("runc", events.NOBODY - 1)
    assert record["sender"]["systemd"] == {"unit": "docker.service", "slice": "system.slice"}
    assert record["truncated"] == []


def test_unknown() -> None:
    """Unknown values are null; truncated fields are named."""
    cut = (
        wire.SIGKILL_CGROUP | wire.SIGKILL_CGROUP_TRUNCATED | wire.SIGKILL_SENDER_CGROUP | wire.SIGKILL_SENDER_TRUNCATED
    )
    assert complete(events.sigkill(flags=cut))["truncated"] == ["victim.cgroup", "sender.cgroup"]
    record = complete(events.sigkill(flags=0, cgroup=b"", sender_cgroup=b""))
    assert (record["victim"]["cgroup"], record["container"], record["systemd"]) == (None, None, None)
    assert record["sender"] is not None
    assert record["sender"]["cgroup"] is None


@pytest.mark.parametrize(
    ("scope", "told"), [("containers", [True, False]), ("all", [True, True]), ("off", [False, False])]
)
def test_scope(scope: SigkillOption, told: list[bool]) -> None:
    """A process in a container, and one outside."""
    both = events.sigkill(), events.sigkill(cgroup=events.path(b"/user.slice/user-1000.slice"), namespace_level=0)
    assert told == [bool(sigkills(scope).feed(each, 0)) for each in both]


@pytest.mark.parametrize(
    ("flags", "from_kernel"), [(FROM_KERNEL, True), (FROM_KERNEL | wire.SIGKILL_UNSEEN, None), (0, False)]
)
def test_who(flags: int, from_kernel: bool | None) -> None:
    """Sent by the kernel, by an unknown sender, or by a process; only the last one is complete at once."""
    builder = sigkills("all")
    told = builder.feed(events.sigkill(flags=flags), 0) or builder.take_all()
    ((record, _),) = told
    assert record["from_kernel"] is from_kernel
    assert (record["sender"] is None) == (from_kernel is not False)


@pytest.mark.parametrize(("text", "told"), [(b"Out of memory: Killed process 1 (hog)", 0), (b"hog: page fault", 1)])
def test_marked(text: bytes, told: int) -> None:
    """A marked process without a visible SIGKILL is an OOM victim if the kernel log says so."""
    waiting = sigkills()
    waiting.note_oom_event(events.victim(pid=1, tid=1, flags=wire.VICTIM_TASK | wire.VICTIM_MARKED))
    waiting.note_oom_event(events.log(text))
    waiting.feed(events.sigkill(pid=1, flags=FROM_KERNEL), 0)
    assert len(waiting.take_all()) == told


def test_kernel_waits() -> None:
    """A SIGKILL of the kernel waits for the OOM killer's mark, and its event stays as long."""
    waiting, retention = sigkills(), Retention()
    for number, pid in enumerate((1, 2, 3)):
        token = retention.issue(100 + number)
        assert waiting.feed(events.sigkill(pid=pid, flags=FROM_KERNEL), 50, (token,)) == []
    assert (waiting.deadline_ns(), retention.first_needed(900, 0)) == (50 + HOLD_NS, 100)
    waiting.note_oom_event(events.victim(pid=1, tid=1))
    waiting.note_oom_event(events.shared_mm(3))
    assert waiting.take_due(49 + HOLD_NS) == []
    ((record, (kept,)),) = waiting.take_due(50 + HOLD_NS)
    assert (record["victim"]["pid"], record["sender"], kept.position) == (2, None, 101)
    assert retention.first_needed(900, 0) == 101
    kept.release()
    assert retention.first_needed(900, 0) == 900
    assert (waiting.deadline_ns(), waiting.take_due(1 << 62), waiting.take_all()) == (None, [], [])


def test_marked_long_ago() -> None:
    """An earlier OOM victim with the same pid is another process."""
    waiting = sigkills()
    waiting.note_oom_event(events.victim(pid=1))
    late = events.header(wire.SIGKILL, time_ns=events.KILL_NS + 11_000_000_000)
    waiting.feed(events.sigkill(pid=1, flags=FROM_KERNEL, header=late), 0)
    assert len(waiting.take_all()) == 1


def test_many_marks() -> None:
    """Only the latest marks are remembered."""
    waiting = sigkills()
    for pid in range(1, REMEMBERED_MAX + 2):
        waiting.note_oom_event(events.victim(pid=pid))
    for pid in (1, 2):
        waiting.feed(events.sigkill(pid=pid, flags=FROM_KERNEL), 0)
    assert [record["victim"]["pid"] for record, _ in waiting.take_all()] == [1]


def test_inherited() -> None:
    """A SIGKILL that two captures saw has one record."""
    both = sigkills()
    assert len(both.feed(events.sigkill(), 0, is_previous=True)) == 1
    assert both.feed(events.sigkill(header=events.header(wire.SIGKILL, time_ns=events.KILL_NS + 999)), 0) == []
    assert len(both.feed(events.sigkill(pid=5), 0)) == 1


def test_too_long() -> None:
    """A line is never longer than allowed, and names the truncated fields."""
    long = events.path(b"/docker/" + b"ab" * 32 + b"/\x1b" * 2000)
    record = complete(events.sigkill(cgroup=long, sender_cgroup=long))
    for container in (record["container"], record["sender"]["container"] if record["sender"] else None):
        assert container is not None
        container["labels"] = {str(number): "\x1b" * 200 for number in range(20)}
    encoded = encoder.encode(record, encoder.MIN_MAX_BYTES)
    assert len(encoded) <= encoder.MIN_MAX_BYTES
    written = json.loads(encoded)
    validate(written)
    assert {"container.labels", "sender.container.labels", "sender.cgroup", "victim.cgroup"} <= {*written["truncated"]}
    assert written["container"]["id"] == "ab" * 32
