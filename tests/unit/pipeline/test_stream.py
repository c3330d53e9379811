# SPDX-License-Identifier: Apache-2.0
"""stream.py: losses are reported, with the time since when."""

import json
import os
import time
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.harness.lines import wait_for
from tests.harness.records import HOST
from tracer.delivery import line_queue
from tracer.delivery.output import Output
from tracer.delivery.sinks import RemoteSink
from tracer.delivery.sinks.open import open_uri
from tracer.pipeline import stream as stream_module
from tracer.pipeline.stream import Stream
from tracer.records.model import Gap

GAP: Gap = {
    "schema": 1, "type": "gap", "time": "", "seq": 0, "host": HOST,
    "id": "b-0-1", "since": None, "oom_kills": 1, "records": 0, "missing": 1, "cgroups": [],
}  # fmt: skip


def test_dropped_since(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropped lines are reported once the output has room, with a time before the first one."""
    monkeypatch.setattr(line_queue, "MAX_BYTES", 2000)
    monkeypatch.setattr(line_queue, "FULL_BYTES", 1000)
    os.mkfifo(tmp_path / "fifo")
    output = Output(open_uri(f"file:{tmp_path}/fifo"), None)
    stream = Stream([output], HOST, 8192)
    for _ in range(20):
        stream.write(GAP)
    dropped_ns = time.time_ns()
    assert output.dropped > 0
    time.sleep(0.05)
    stream.report_losses()
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    stream.reopen()
    wait_for(lambda: not output.is_full)
    stream.report_losses()
    stream.close()
    last = json.loads(os.read(reader, 1 << 20).splitlines()[-1])
    os.close(reader)
    assert (last["type"], last["count"]) == ("lost", output.dropped)
    assert datetime.fromisoformat(last["since"][:26] + "+00:00").timestamp() <= dropped_ns / 1e9


class Told(RemoteSink):
    """A sink that stores lines, or refuses all."""

    batch_lines = 1

    def __init__(self, uri: str, *, takes: bool = True) -> None:
        self.uri = uri
        self.takes = takes
        self.lines: list[bytes] = []

    def write(self, lines: Sequence[bytes]) -> int:
        if not self.takes:
            raise OSError("nobody is there")
        self.lines += lines
        return len(lines)

    def records(self, kind: str) -> list[dict[str, Any]]:
        return [record for record in map(json.loads, self.lines) if record["type"] == kind]

    def close(self) -> None:
        pass


def test_others_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that one output drops are reported to all outputs: at once, then periodically, and at the end."""
    monkeypatch.setattr(line_queue, "MAX_BYTES", 20_000)
    monkeypatch.setattr(line_queue, "FULL_BYTES", 18_000)
    good, bad = Told("good"), Told("bad", takes=False)
    outputs = [Output(good, None), Output(bad, None)]
    stream = Stream(outputs, HOST, 8192)

    def write(count: int) -> None:
        """As slowly as the good output acknowledges."""
        for _ in range(count):
            stream.write(GAP)
            stream.report_losses()
            wait_for(lambda: outputs[0].waiting == (0, 0))

    write(500)
    (first,) = good.records("lost")
    assert first["stage"] == "output:bad"
    assert first["count"] < outputs[1].dropped
    monkeypatch.setattr(stream_module, "FULL_REPORT_S", 0.0)
    write(1)
    assert len(good.records("lost")) == 2
    monkeypatch.setattr(stream_module, "FULL_REPORT_S", 60.0)
    write(100)
    bad.takes = True  # what says so was kept for it, too
    dropped = outputs[1].dropped
    stream.write_stop(None, 0, 0, 0)
    stream.reopen()
    stream.close()
    (stop,) = good.records("stop")
    assert stop["lost"] == dropped > 500
    for each in (good, bad):
        assert sum(record["count"] for record in each.records("lost")) == dropped
    assert len(bad.records("gap")) + dropped == 601
    assert bad.records("stop") == [stop]


def test_dropped_stays_until_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dropped line is acknowledged with the record of its loss, not before: its event stays in the ring buffer."""
    monkeypatch.setattr(line_queue, "MAX_BYTES", 1000)
    monkeypatch.setattr(line_queue, "FULL_BYTES", 900)
    sink = Told("x", takes=False)
    output = Output(sink, None)
    stream = Stream([output], HOST, 8192)
    done: list[int] = []

    def write(count: int) -> None:
        for _ in range(count):
            stream.write(GAP)
            stream.once_acknowledged(partial(done.append, len(done)))
            stream.poll_outputs()

    write(20)
    kept = 20 - output.dropped
    assert 0 < kept < 20
    sink.takes = True
    stream.reopen()
    wait_for(lambda: output.acknowledged == 20)
    stream.poll_outputs()
    assert not done
    sink.takes = False
    stream.report_losses()
    wait_for(lambda: output.waiting[0] == 1)
    stream.poll_outputs()
    assert not done
    sink.takes = True
    stream.reopen()
    wait_for(lambda: output.acknowledged == 21)
    stream.poll_outputs()
    assert len(done) == 20
    assert sink.records("lost")[0]["count"] == 20 - kept
    stream.close()


def test_outputs_that_come_again() -> None:
    """Each output has its own account, also two with the same URI after each other."""
    sinks = [Told("x"), Told("x")]
    outputs = [Output(sink, None) for sink in sinks]
    stream = Stream(outputs[:1], HOST, 8192)
    for output, count in zip(outputs, (3, 2), strict=True):
        stream.replace_outputs([output])
        output._rejections.rejected = count
        stream.report_losses()
    stream.write_stop(None, 0, 0, 0)
    stream.close()
    outputs[0].close(1)
    assert sinks[0].records("lost")[0]["count"] == 3
    assert [record["count"] for record in sinks[1].records("lost")] == [2]
    assert sinks[1].records("stop")[0]["lost"] == 5


def test_once_acknowledged() -> None:
    """An action waits until every output has acknowledged the lines before it."""
    good, bad = Told("good"), Told("bad", takes=False)
    outputs = [Output(good, None), Output(bad, None)]
    stream = Stream(outputs, HOST, 8192)
    done: list[str] = []
    stream.once_acknowledged(lambda: done.append("before"))
    stream.write(GAP)
    stream.once_acknowledged(lambda: done.append("after"))
    wait_for(lambda: outputs[0].acknowledged == 1)
    stream.poll_outputs()
    assert done == ["before"]
    assert stream.has_actions()
    bad.takes = True
    stream.reopen()
    wait_for(lambda: outputs[1].acknowledged == 1)
    stream.poll_outputs()
    assert done == ["before", "after"]
    assert not stream.has_actions()
    stream.close()


def test_told_again(tmp_path: Path) -> None:
    """A loss that an earlier run has reported is recognized by its id in each output; a new one is reported."""
    (tmp_path / "x").write_bytes(b'{"schema":1,"type":"gap","id":"b-0-1"}\n{"schema":1,"type":"lost","id":"b-9"}\n')
    stream = Stream([Output(open_uri(f"file:{tmp_path}/x"), None)], HOST, 8192)
    assert not stream.write(GAP, may_be_written=True)
    assert stream.write({**GAP, "id": "b-0-2"}, may_be_written=True)
    for name in ("b-9", "b-10"):
        stream.add_loss("ring_buffer", 3, name, may_be_reported=True)
        stream.report_losses()
    stream.add_loss("ring_buffer", 3, "b-11")
    stream.add_loss("ring_buffer", 2)  # not only what has that name
    stream.report_losses()
    stream.close()
    records = [json.loads(line) for line in (tmp_path / "x").read_bytes().splitlines()[2:]]
    assert [(record["id"], record.get("count")) for record in records] == [("b-0-2", None), ("b-10", 3), (None, 5)]


def test_names_tell_outputs_apart(tmp_path: Path) -> None:
    """Two outputs to the same destination have their own URIs."""
    sinks = [open_uri(f"file:{tmp_path}/x?name={name}") for name in "ab"] + [open_uri("stdout?name=c")]
    assert [sink.uri for sink in sinks] == [f"file:{tmp_path}/x#a", f"file:{tmp_path}/x#b", "stdout#c"]


def test_who_does_not_want_it_lacks_nothing(tmp_path: Path) -> None:
    """A kill that all outputs of its type have is not written again for an output of other types."""
    (tmp_path / "x").write_bytes(b'{"schema":1,"type":"oom_kill","id":"k-1"}\n')
    outputs = [Output(open_uri(f"file:{tmp_path}/x"), None), Output(Told("exits"), None, types=["oom_exit"])]
    seen: list[Any] = []
    stream = Stream(outputs, HOST, 8192, observe=seen.append)
    kill: Any = {**GAP, "type": "oom_kill", "id": "k-1", "truncated": []}
    assert not stream.write(kill, may_be_written=True)
    kill = dict(kill, id="k-2")
    assert stream.write(kill, may_be_written=True)
    stream.close()
    assert [record["id"] for record in seen] == ["k-2"]
