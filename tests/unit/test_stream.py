# SPDX-License-Identifier: Apache-2.0
"""stream.py: what was lost is told, and since when."""

import json
import os
import time
from datetime import datetime
from pathlib import Path

import pytest

from tracer import line_queue
from tracer.backlog import Backlog
from tracer.event import Gap
from tracer.output import Output
from tracer.sinks.open import open_sink
from tracer.stream import Stream

from .lines import wait_for
from .records import HOST

GAP: Gap = {
    "schema": 1, "type": "gap", "time": "", "seq": 0, "host": HOST,
    "since": None, "oom_kills": 1, "records": 0, "missing": 1, "cgroups": [],
}  # fmt: skip


def test_dropped_since(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an output had no room for is told once it has, with a time before the first line was dropped."""
    monkeypatch.setattr(line_queue, "MAX_BYTES", 2000)
    monkeypatch.setattr(line_queue, "FULL_BYTES", 1000)
    os.mkfifo(tmp_path / "fifo")
    output = Output(open_sink(f"file:{tmp_path}/fifo"), None)
    stream = Stream([output], HOST, 8192, [Backlog()])
    for _ in range(20):
        stream.write(GAP)
    dropped_ns = time.time_ns()
    assert output.dropped > 0
    time.sleep(0.05)
    stream.settle()
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    stream.reopen()
    wait_for(lambda: not output.is_full)
    stream.settle()
    stream.close()
    last = json.loads(os.read(reader, 1 << 20).splitlines()[-1])
    os.close(reader)
    assert (last["type"], last["count"]) == ("lost", output.dropped)
    assert datetime.fromisoformat(last["since"]).timestamp() <= dropped_ns / 1e9
