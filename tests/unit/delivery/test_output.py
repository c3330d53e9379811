# SPDX-License-Identifier: Apache-2.0
"""output.py: lines are delivered in order, at least once, and nothing waits for a sink."""

import contextlib
import os
import random
import re
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

import tracer
from tests.harness.lines import TIMEOUT_S, numbers, numbers_in, record, settle, wait_for
from tracer.base import backoff
from tracer.base.hung_disk import DiskWorker
from tracer.delivery import output as output_module
from tracer.delivery import spool as spool_module
from tracer.delivery import undelivered
from tracer.delivery.line_queue import MAX_BYTES
from tracer.delivery.output import Output, OutputState
from tracer.delivery.sinks import RejectedError, RemoteSink, Sink
from tracer.delivery.sinks.open import open_uri
from tracer.delivery.spool import REJECTED_MAX_BYTES, Spool
from tracer.delivery.undelivered import UndeliveredLines
from tracer.records.record_id import RecordId

MakeOutput = Callable[..., Output]


class Asked(RemoteSink):
    """A sink over a network: it takes batches, whole or in part, once the test allows it."""

    uri = "http://user:secret@example.org/token"
    batch_lines = 50

    def __init__(self, takes: bool = False) -> None:
        self.taken: list[bytes] = []
        self.calls = 0
        self.may = threading.Event()
        self.error: OSError | None = None
        if takes:
            self.may.set()

    def write(self, lines: Sequence[bytes]) -> int:
        self.calls += 1
        self.may.wait()
        if self.error is not None:
            raise self.error
        taken = lines[: self.calls % 20 + 1]
        self.taken += taken
        return len(taken)

    def close(self) -> None:
        pass


@pytest.fixture
def make_output(tmp_path: Path) -> Iterator[MakeOutput]:
    """Outputs that are closed afterwards."""
    outputs: list[Output] = []

    def make(sink: Sink | str, spool: bool = True) -> Output:
        sink = open_uri(f"file:{tmp_path}/{sink}") if isinstance(sink, str) else sink
        (tmp_path / "state").mkdir(exist_ok=True)
        outputs.append(Output(sink, Spool(f"{tmp_path}/state", sink.uri) if spool else None))
        return outputs[-1]

    yield make
    for output in outputs:
        output.close(0.1)


def put(output: Output, first: int, end: int, bytes_: int = 0) -> None:
    for number in range(first, end):
        output.put(record(number, bytes_))


def kept(tmp_path: Path) -> list[int]:
    """Numbers of the lines in the spool."""
    found = []
    for file in sorted(tmp_path.glob("state/*/*.ndjson")):
        # The output that writes it may remove it meanwhile.
        with contextlib.suppress(FileNotFoundError):
            found += numbers(file.read_bytes())
    return found


def test_delivered(make_output: MakeOutput, tmp_path: Path) -> None:
    """Lines are acknowledged when they are in the file, in order."""
    output: Output = make_output("x")
    put(output, 0, 2000)
    wait_for(lambda: output.acknowledged == 2000)
    wait_for(lambda: len(numbers_in(tmp_path / "x")) == 2000)  # on a busy machine some go through the spool
    assert numbers_in(tmp_path / "x") == list(range(2000))
    assert (output.dropped, output.damaged, output.dead) == (0, 0, False)


class Choosy(Asked):
    """Takes whole batches, but always rejects certain records."""

    uri = "http://example.org"

    def __init__(self, *rejected: int) -> None:
        super().__init__(takes=True)
        self._rejected = rejected

    def write(self, lines: Sequence[bytes]) -> int:
        if numbers(b"".join(lines))[0] in self._rejected:
            raise RejectedError("no mapping for it")
        for count, line in enumerate(lines):
            if numbers(line)[0] in self._rejected:
                self.taken += lines[:count]
                return count
        self.taken += lines
        return len(lines)


@pytest.mark.parametrize("spool", [True, False])
def test_rejected(make_output: MakeOutput, tmp_path: Path, capfd: pytest.CaptureFixture[str], spool: bool) -> None:
    """Rejected lines block nothing; they are counted, reported once, and kept if there is a spool."""
    sink = Choosy(0, 17, 60, 61)
    output = make_output(sink, spool=spool)
    put(output, 0, 100)
    wait_for(lambda: output.acknowledged == 100)
    assert numbers(b"".join(sink.taken)) == [number for number in range(100) if number not in (0, 17, 60, 61)]
    assert (output.rejected, output.dropped, output.damaged) == (4, 0, 0)
    assert kept(tmp_path) == ([0, 17, 60, 61] if spool else [])
    said = capfd.readouterr().err
    assert said.count("rejects a record: no mapping for it") == 1
    assert (f" ({REJECTED_MAX_BYTES >> 20} MiB at most); further" if spool else "are lost; further") in said


def test_idle_costs_nothing(make_output: MakeOutput, tmp_path: Path) -> None:
    """Neither an idle output nor a failing one takes CPU time."""
    os.mkfifo(tmp_path / "fifo")
    for name in ("x", "fifo"):
        put(make_output(name), 0, 10)
    time.sleep(0.8)
    before = time.process_time()
    time.sleep(1)
    assert time.process_time() - before < 0.02


def test_hung_sink(make_output: MakeOutput, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A hung sink blocks nobody: lines are acknowledged from the spool, and delivered once the sink recovers."""
    hung_s = output_module.HUNG_S
    sink = Asked()
    output, other = make_output(sink), make_output("x")
    output_module.HUNG_S = 1.2
    try:
        for number in range(100):
            for each in (output, other):
                before = time.monotonic()
                each.put(record(number))
                assert time.monotonic() - before < output_module.HUNG_S, "it waits for the one that hangs"
            time.sleep(0.015)
        assert sink.calls == 1
        wait_for(lambda: output.acknowledged >= 99)
        assert kept(tmp_path) == list(range(output.acknowledged))
        wait_for(lambda: other.acknowledged == 100)
    finally:
        output_module.HUNG_S = hung_s
    sink.may.set()
    wait_for(lambda: len(sink.taken) == 100)
    assert numbers(b"".join(sink.taken)) == list(range(100))
    wait_for(lambda: kept(tmp_path) == [])
    wait_for(lambda: output.acknowledged == 100)
    wait_for(lambda: not output.failing)
    time.sleep(0.1)
    first, last = capfd.readouterr().err.splitlines()
    assert re.search("no data accepted for [0-9]+ s; records are kept on disk, in ", first)
    assert "secret" not in first.replace(sink.uri, "")
    assert last.endswith("works again: 100 delayed records delivered")


def test_dropped_without_a_spool(make_output: MakeOutput) -> None:
    """A full queue drops new lines; dropped lines are acknowledged after the lines before them."""
    sink = Asked()
    output = make_output(sink, spool=False)
    began_ns = time.time_ns()
    put(output, 0, 5000, 1024)
    room = MAX_BYTES // 1024
    assert output.is_full
    assert output.dropped == 5000 - room
    assert output.acknowledged == 0
    assert output.dropped_since_ns is not None
    assert began_ns < output.dropped_since_ns < time.time_ns()
    sink.may.set()
    wait_for(lambda: output.acknowledged == 5000)
    put(output, 5000, 5010)
    wait_for(lambda: output.acknowledged == 5010)
    assert numbers(b"".join(sink.taken)) == [*range(room), *range(5000, 5010)]


def test_full_queue_is_spooled(make_output: MakeOutput, tmp_path: Path) -> None:
    """A burst that exceeds the queue goes to disk at once."""
    sink = Asked()
    output = make_output(sink)
    put(output, 0, 6000, 1024)
    assert output.dropped == 0
    wait_for(lambda: output.acknowledged >= MAX_BYTES // 1024)  # by the disk: the sink takes none
    sink.may.set()
    wait_for(lambda: len(sink.taken) >= 6000)
    assert numbers(b"".join(sink.taken)) == list(range(6000))


def test_failing(make_output: MakeOutput, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A full disk is reported once, records go to the spool and later to the file; the recovery is reported once."""
    output = make_output("x")
    put(output, 0, 5)
    wait_for(lambda: output.acknowledged == 5)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (tmp_path / "x").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, hard))
    try:
        put(output, 5, 6)
        wait_for(lambda: "cannot write" in capfd.readouterr().err)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    put(output, 6, 20)
    wait_for(lambda: (tmp_path / "x").read_bytes().count(b"\n") == 20)
    assert numbers_in(tmp_path / "x") == list(range(20))
    wait_for(lambda: kept(tmp_path) == [])
    wait_for(lambda: "works again: 15 delayed records delivered" in capfd.readouterr().err)


def test_error_of_a_network(make_output: MakeOutput, capfd: pytest.CaptureFixture[str]) -> None:
    """Retried with growing pauses; reported once."""
    sink = Asked(takes=True)
    sink.error = OSError(111, "Connection refused")
    output = make_output(sink)
    put(output, 0, 100)
    wait_for(lambda: output.acknowledged == 100)
    time.sleep(1)
    assert 3 <= sink.calls <= 5  # after 0.1, 0.3, 0.7, 1.5 s
    sink.error = None
    output.reopen()
    wait_for(lambda: len(sink.taken) == 100, 1)
    assert numbers(b"".join(sink.taken)) == list(range(100))
    wait_for(lambda: "works again" in capfd.readouterr().err)


def test_unexpected_error(make_output: MakeOutput) -> None:
    """Any exception of a sink leads to a retry."""
    sink = Asked(takes=True)
    sink.error = ZeroDivisionError()  # type: ignore[assignment]
    output = make_output(sink, spool=False)
    put(output, 0, 10)
    wait_for(lambda: sink.calls > 1)
    sink.error = None
    wait_for(lambda: output.acknowledged == 10)


def test_close(make_output: MakeOutput, tmp_path: Path) -> None:
    """All lines are delivered before close() returns."""
    output = make_output("x")
    put(output, 0, 500)
    output.close(5)
    assert output.acknowledged == 500
    assert numbers_in(tmp_path / "x") == list(range(500))


def test_states(make_output: MakeOutput) -> None:
    """An output drains, then is closed, and takes no lines from then on."""
    output = make_output("x")
    states = [output._state]
    output.end(5)
    states.append(output._state)
    put(output, 0, 10)
    output.close(5)
    output.end(5)
    states.append(output._state)
    put(output, 10, 20)
    assert states == [OutputState.OPEN, OutputState.DRAINING, OutputState.CLOSED]
    assert output.acknowledged == 10


def test_dead_stays_dead(make_output: MakeOutput, capfd: pytest.CaptureFixture[str]) -> None:
    """A dead output takes no lines, acknowledges none, and is dead after close() as well."""
    sink = Asked(takes=True)
    sink.dead, sink.error = True, OSError(32, "Broken pipe")
    output = make_output(sink, spool=False)
    put(output, 0, 10)
    wait_for(lambda: output.dead)
    put(output, 10, 20)
    for _ in range(2):
        output.close(5)
    assert output.dead
    assert (output.acknowledged, output.dropped) == (0, 0)
    assert capfd.readouterr().err.count("is closed permanently: Broken pipe") == 1


def test_close_of_a_hung_output(make_output: MakeOutput, tmp_path: Path) -> None:
    """close() returns in time; the rest is on disk for the next run; lines taken meanwhile are delivered twice."""
    sink = Asked()
    output = make_output(sink)
    put(output, 0, 100)
    before = time.monotonic()
    output.close(0.3)
    assert time.monotonic() - before < 1
    assert (output.acknowledged, output.dropped) == (100, 0)
    assert kept(tmp_path) == list(range(100))
    sink.may.set()  # the thread comes back to an output that is closed
    wait_for(lambda: not output._thread.is_alive())
    assert kept(tmp_path) == list(range(100))
    later = Asked(takes=True)
    make_output(later)
    wait_for(lambda: len(later.taken) == 100)
    assert numbers(b"".join(later.taken)) == list(range(100))


def test_close_without_a_spool(make_output: MakeOutput, capfd: pytest.CaptureFixture[str]) -> None:
    """Lines that fit nowhere stay unacknowledged, so their events may stay in the ring buffer until the next run."""
    sink = Asked()
    output = make_output(sink, spool=False)
    put(output, 0, 100)
    output.close(0.1)
    assert (output.acknowledged, output.dropped) == (0, 0)
    assert "100 records were neither delivered nor kept on disk" in capfd.readouterr().err
    put(output, 100, 110)
    assert (output.acknowledged, output.dropped) == (0, 0)
    sink.may.set()


def test_close_of_a_failing_output(make_output: MakeOutput, tmp_path: Path) -> None:
    """close() does not wait for lines that are on disk already."""
    os.mkfifo(tmp_path / "fifo")
    output = make_output("fifo")
    put(output, 0, 100)
    wait_for(lambda: output.acknowledged == 100)
    before = time.monotonic()
    output.close(10)
    assert time.monotonic() - before < 1
    assert kept(tmp_path) == list(range(100))


def test_has(make_output: MakeOutput, tmp_path: Path) -> None:
    """After a restart, the daemon knows the records in file and spool."""
    os.mkfifo(tmp_path / "fifo")
    for name in ("x", "fifo"):
        output = make_output(name)
        put(output, 0, 10)
        output.close(1)
        assert output.acknowledged == 10
    with (tmp_path / "x").open("ab") as file:
        file.write(b"\0garbage\n[]\n{}\n")
    for name in ("x", "fifo"):
        again = make_output(name)
        assert [again.has_record("oom_kill", f"k-{number}") for number in (0, 9, 10)] == [True, True, False]
        assert not again.has_record("oom_exit", "k-1")


def test_killed_before_the_cursor_moved(make_output: MakeOutput, tmp_path: Path) -> None:
    """A record that the previous run delivered before it was killed, without moving the cursor, comes once."""
    (tmp_path / "state").mkdir()
    spool = Spool(f"{tmp_path}/state", f"file:{tmp_path}/x")
    for number in range(100):
        assert spool.append(record(number))
    spool.close()
    (tmp_path / "x").write_bytes(record(0) + record(1))
    output = make_output("x")
    wait_for(lambda: kept(tmp_path) == [])
    output.close(1)
    assert numbers_in(tmp_path / "x") == list(range(100))


def test_spool_that_cannot_be_read(make_output: MakeOutput, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Without a free descriptor, lines stay in the spool, and are delivered later."""
    (tmp_path / "state").mkdir()
    sink = Asked(takes=True)
    spool = Spool(f"{tmp_path}/state", sink.uri)
    for number in range(200):
        assert spool.append(record(number))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    first_free = os.dup(0)
    os.close(first_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (first_free, hard))
    try:
        output = Output(sink, spool)
        put(output, 200, 210)
        time.sleep(0.3)
        assert output.failing
        assert sink.calls == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    wait_for(lambda: len(sink.taken) == 210)
    output.close(5)
    assert numbers(b"".join(sink.taken)) == list(range(210))
    assert output.damaged == 0
    assert "cannot read the spool (Too many open files); records are kept on disk" in capfd.readouterr().err


class Stuck(Spool):
    """A spool on a disk whose writes hang until the test releases them."""

    def __init__(self, folder: str, uri: str) -> None:
        super().__init__(folder, uri)
        self.may = threading.Event()

    def append(self, line: bytes) -> bool:
        self.may.wait()
        return super().append(line)


def test_hung_spool(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither put() nor delivery waits for a hung spool; afterwards no line is lost, and at most one is doubled."""
    sink = Asked(takes=True)
    sink.error = OSError(111, "Connection refused")
    spool = Stuck(str(tmp_path), sink.uri)
    output = Output(sink, spool)
    slowest_s = 0.0
    for number in range(100):
        before = time.monotonic()
        output.put(record(number))
        slowest_s = max(slowest_s, time.monotonic() - before)
        time.sleep(0.02)
    assert slowest_s < 0.5
    assert (output.acknowledged, output.dropped) == (0, 0)
    sink.error = None
    output.reopen()
    wait_for(lambda: output.acknowledged == 100)
    assert numbers(b"".join(sink.taken)) == list(range(100))
    spool.may.set()
    put(output, 100, 200)
    wait_for(lambda: output.acknowledged == 200)
    wait_for(lambda: output.waiting == (0, 0))
    output.close(5)
    assert numbers(b"".join(sink.taken)) in (list(range(200)), [*range(100), 0, *range(100, 200)])
    assert (output.dropped, output.damaged) == (0, 0)


def test_close_of_a_hung_spool(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """close() returns in time; lines that could not be kept stay unacknowledged."""
    sink = Asked()
    spool = Stuck(str(tmp_path), sink.uri)
    output = Output(sink, spool)
    put(output, 0, 100)
    before = time.monotonic()
    output.close(0.2)
    assert time.monotonic() - before < 4
    assert output.acknowledged == 0
    assert "100 records were neither delivered nor kept on disk" in capfd.readouterr().err
    spool.may.set()
    sink.may.set()
    wait_for(lambda: not output._thread.is_alive())


def test_full_queue_and_a_hung_spool(tmp_path: Path) -> None:
    """Lines that fit nowhere are dropped and counted; the wait happens once, not per line."""
    sink = Asked()
    spool = Stuck(str(tmp_path), sink.uri)
    output = Output(sink, spool)
    before = time.monotonic()
    put(output, 0, 6000, 1024)
    assert time.monotonic() - before < 5
    assert 1000 < output.dropped < 3000
    spool.may.set()
    sink.may.set()
    wait_for(lambda: output.acknowledged == 6000)
    wait_for(lambda: len(sink.taken) >= 6000 - output.dropped)
    output.close(5)
    assert sorted(set(numbers(b"".join(sink.taken)))) == list(range(6000 - output.dropped))


def test_moved_while_it_is_delivered(tmp_path: Path) -> None:
    """Delivered lines leave memory or spool, and no others do."""
    disk, spool = DiskWorker(), Stuck(str(tmp_path), "http://u")
    undelivered = UndeliveredLines(spool, disk)
    for number in range(3):
        undelivered.queue.put(record(number))
    batch = undelivered.first_batch(2, set)
    assert batch.lines == [record(0), record(1)]
    undelivered.spool_queue(wait=False)
    wait_for(lambda: undelivered._moving is not None)
    undelivered.acknowledge(batch, 2)
    spool.may.set()
    wait_for(disk.wait_idle)
    assert undelivered.first_batch(3, set).lines == [record(2)]


def test_overtaken_while_it_is_moved(tmp_path: Path) -> None:
    """A line delivered ahead of the spool stays in it, behind older ones: a duplicate is better than a loss."""
    disk, spool = DiskWorker(), Stuck(str(tmp_path), "http://u")
    undelivered = UndeliveredLines(spool, disk)
    spool.may.set()
    undelivered.queue.put(record(0))
    undelivered.spool_queue()
    spool.may.clear()
    undelivered.queue.put(record(1))
    undelivered.spool_queue(wait=False)
    wait_for(disk.is_hung)
    batch = undelivered.first_batch(2, set)
    assert batch.lines == [record(1)]
    undelivered.acknowledge(batch, 1)
    spool.may.set()
    wait_for(disk.wait_idle)
    assert undelivered.first_batch(3, set) == ([record(0), record(1)], True, 0)


class SlowToSync:
    """Replaces fsync(2): hangs until the test releases it."""

    def __init__(self) -> None:
        self.begun, self.may = threading.Event(), threading.Event()

    def __call__(self, descriptor: int) -> None:
        self.begun.set()
        self.may.wait()


def test_sync_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hung fsync(2) delays neither the output, nor moves to the spool, nor close()."""
    sync = SlowToSync()
    monkeypatch.setattr(os, "fsync", sync)
    sink = Asked(takes=True)
    sink.error = OSError(111, "Connection refused")
    output = Output(sink, Spool(str(tmp_path), sink.uri))
    put(output, 0, 3000, 1000)
    wait_for(sync.begun.is_set)
    put(output, 3000, 3100)
    wait_for(lambda: output.acknowledged == 3100)
    sink.error = None
    output.reopen()
    wait_for(lambda: output.waiting == (0, 0))
    assert numbers(b"".join(sink.taken)) == list(range(3100))
    began_s = time.monotonic()
    output.close(1)
    assert time.monotonic() - began_s < 3
    sync.may.set()


def test_disk(capfd: pytest.CaptureFixture[str]) -> None:
    """A job that fails is reported, and the next one runs."""
    disk, done = DiskWorker(), threading.Event()

    def fails() -> None:
        raise ZeroDivisionError

    disk.submit(fails)
    disk.submit(done.set)
    assert disk.wait_idle(20)
    assert done.is_set()
    assert "cannot write to the state directory: ZeroDivisionError()" in capfd.readouterr().err


def test_signals_are_not_handled_here(make_output: MakeOutput) -> None:
    """Only the main thread receives signals."""
    output = make_output("x")
    put(output, 0, 1)
    wait_for(lambda: output.acknowledged == 1)
    task = f"/proc/self/task/{output._thread.native_id}/status"
    blocked = next(line for line in Path(task).read_text().splitlines() if line.startswith("SigBlk"))
    mask = int(blocked.split()[1], 16)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        assert mask >> (number - 1) & 1


class Moody(Asked):
    """Takes some lines at once, some later, some not at all."""

    def __init__(self, seed: int) -> None:
        super().__init__(takes=True)
        self.batch_lines = 1 + seed % 7
        self._random = random.Random(seed)

    def write(self, lines: Sequence[bytes]) -> int:
        mood = self._random.random()
        if mood < 0.05:
            time.sleep(self._random.random() * 0.03)
        if 0.03 < mood < 0.1:
            raise OSError(5, "no")
        taken = lines[: self._random.randint(1, len(lines))]
        self.taken += taken
        return len(taken)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("max_bytes", [0, 3000, 1 << 20])
def test_any_mood(
    seed: int, max_bytes: int, make_output: MakeOutput, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines pass through queue and spool, moved during writes or not: each is delivered once, in order."""
    monkeypatch.setattr(backoff, "FIRST_S", 0.001)
    monkeypatch.setattr(backoff, "MAX_S", 0.01)
    monkeypatch.setattr(output_module, "BEHIND_S", 0.002)
    monkeypatch.setattr(undelivered, "SPOOL_RETRY_S", 0.005)
    monkeypatch.setattr(spool_module, "SEGMENT_BYTES", 500)
    sink, chance = Moody(seed), random.Random(seed)
    spool = Spool(str(tmp_path), sink.uri, max_bytes) if max_bytes else None
    output = Output(sink, spool)
    acknowledged, skipped = 0, []
    for number in range(1500):
        if chance.random() < 0.05:
            output.skip()
            skipped.append(number)
        else:
            output.put(record(number))
        if chance.random() < 0.1:
            time.sleep(chance.random() * 0.002)
        assert acknowledged <= output.acknowledged <= number + 1
        acknowledged = output.acknowledged
    settle(output, 1500)
    wanted = [number for number in range(1500) if number not in skipped]
    wait_for(lambda: len(sink.taken) >= len(wanted))
    output.close(5)
    assert numbers(b"".join(sink.taken)) == wanted
    assert (output.dropped, output.damaged) == (0, 0)
    assert kept(tmp_path) == []


DELIVERER = f"""
import sys
sys.path.insert(0, {str(Path(tracer.__file__).parents[1])!r})
from tests.harness.lines import record
from tracer.delivery.output import Output
from tracer.delivery.sinks.open import open_uri
from tracer.delivery.spool import Spool
uri, state, first = sys.argv[1], sys.argv[2], int(sys.argv[3])
output = Output(open_uri(uri), Spool(state, uri))
for number in range(first, first + 3000):
    while number - first > output.acknowledged + 50: pass
    output.put(record(number, 500))
    sys.stdout.write(f"{{output.acknowledged}}\\n")
    sys.stdout.flush()
"""


@pytest.mark.parametrize("fails", [False, True])
def test_killed(fails: bool, tmp_path: Path) -> None:
    """SIGKILL at any time, 20 times: acknowledged lines are delivered in order; only others may be doubled."""
    (tmp_path / "state").mkdir()
    path = tmp_path / "x"
    taken = bytearray()
    first, doubled = 0, 0
    if fails:  # a reader that comes and goes: most lines take the way through the spool
        os.mkfifo(path)
    for run in range(20):
        command = [sys.executable, "-c", DELIVERER, f"file:{path}", f"{tmp_path}/state", str(first)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            reader = -1
            said = b""
            for number in range(30 + 37 * run):
                said = process.stdout.readline()
                if fails and number == 20:
                    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            process.kill()
            acknowledged = int((said + process.stdout.read()).rpartition(b"\n")[0].split()[-1])
            if reader >= 0:
                while data := os.read(reader, 1 << 20):
                    taken += data
                os.close(reader)
        first += acknowledged  # the kernel keeps what is not acknowledged, and the next run reads it again
    if fails:
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    sink = open_uri(f"file:{path}")
    output = Output(sink, Spool(f"{tmp_path}/state", sink.uri))
    put(output, first, first + 1)
    if fails:
        while b'"k-%d"' % first not in taken:
            select.select([reader], [], [], TIMEOUT_S)
            taken += os.read(reader, 1 << 20)
        os.close(reader)
    output.close(5)
    assert output.dropped == 0
    assert output.damaged <= 20, "only lines that were half-written to the spool; they were not acknowledged"
    found = numbers(bytes(taken) if fails else path.read_bytes())
    assert set(found) >= set(range(first + 1))
    falls = [(a, b) for a, b in pairwise(found) if b != a + 1]
    assert len(falls) <= 20
    assert all(b <= a for a, b in falls), "none is left out"
    doubled = len(found) - len(set(found))
    assert doubled <= 20 * 52


class NeverRead(Asked):
    """A file on a disk that hangs when it is read."""

    def recent(self) -> set[RecordId]:
        self.may.wait()
        return set()


def test_recent_that_hangs(tmp_path: Path) -> None:
    """The first has_record() waits for a short time, later ones do not."""
    sink = NeverRead()
    output = Output(sink, Spool(str(tmp_path), sink.uri))
    for least_s, most_s in ((output_module.RECENT_S, TIMEOUT_S), (0.0, 1.0)):
        began_s = time.monotonic()
        assert not output.has_record("oom_kill", "k-1")
        assert least_s <= time.monotonic() - began_s < most_s
    sink.may.set()
    output.close(1)
