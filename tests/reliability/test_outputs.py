# SPDX-License-Identifier: Apache-2.0
"""Outputs that fail while processes die: everything arrives once they work again, and no other output waits."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.disks import fill, mounted
from tests.harness.environment import PATIENCE_S, wait_until
from tests.harness.runs import Runs

from .conftest import Storm
from .tally import Tally

READER = """
import os, sys
with open(sys.argv[1], "rb", buffering=0) as fifo, open(sys.argv[2], "ab", buffering=0) as kept:
    while piece := fifo.read(1 << 16):
        kept.write(piece)
"""
"""A collector: what it has read it has kept."""


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for the ledger, and for the records of a storm twice: in the spool and in the output."""
    yield from mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=1m,mode=755", "small")


def storm_on_a_full_disk(runs: Runs, storm: Storm, small: Path, kills: int) -> Path:
    """Fill it and make so many kills, of which the tracer cannot write the records; the file that fills it."""
    filler = fill(small)
    storm.end(storm.brew(kills))
    wait_until("it says so", lambda: "cannot write to" in runs.said())
    return filler


def test_disk_full(runs: Runs, storm: Storm, small: Path) -> None:
    """While the disk of its file is full, records go to the spool, and from there into the file."""
    runs.output = small / "records.jsonl"
    runs.start()
    filler = storm_on_a_full_disk(runs, storm, small, 60)
    filler.unlink()
    runs.wait_for_kills(60)
    runs.stop()
    storm.tally("the disk of the output full, and freed", 1, runs).check()
    assert runs.said().count("cannot write to") == 1
    assert [record["seq"] for record in runs.records()] == list(range(len(runs.records())))


def test_both_disks_full(first_runs: Runs, storm: Storm, small: Path) -> None:
    """While the disk of the spool is full as well, records wait in memory."""
    runs = first_runs
    runs.output, runs.state = small / "records.jsonl", small / "state"
    runs.forget_the_past()
    runs.start()
    filler = storm_on_a_full_disk(runs, storm, small, 60)
    filler.unlink()
    runs.wait_for_kills(60)
    runs.stop()
    storm.tally("the disks of output and spool full, and freed", 1, runs).check()


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM])
def test_ended_on_a_full_disk(first_runs: Runs, storm: Storm, small: Path, by: signal.Signals) -> None:
    """Even when the tracer ends meanwhile, one way or the other: what was not kept stays in the kernel."""
    runs = first_runs
    runs.output, runs.state = small / "records.jsonl", small / "state"
    runs.forget_the_past()
    runs.start()
    assert runs.process is not None
    filler = storm_on_a_full_disk(runs, storm, small, 40)
    runs.process.send_signal(by)
    runs.process.wait(2 * PATIENCE_S)
    runs.process = None
    filler.unlink()
    assert runs.start()["adopted"]
    runs.wait_for_kills(40)
    runs.stop()
    storm.tally(f"{by.name} of the tracer while both disks are full", 1, runs).check()


def test_reader_that_comes_and_goes(runs: Runs, storm: Storm, tmp_path: Path) -> None:
    """A FIFO's reader that is killed and comes back finds all that it has not read."""
    fifo, kept = tmp_path / "fifo", tmp_path / "kept.jsonl"
    os.mkfifo(fifo)
    kept.touch()
    runs.output = fifo
    runs.process = runs.spawn()
    wait_until("it is attached", lambda: list(runs.pins.glob("v*/about")))
    deaths = 4
    for number in range(deaths + 1):
        reader = subprocess.Popen([sys.executable, "-c", READER, str(fifo), str(kept)])
        try:
            wait_until("the records of the storm before", lambda: kills_in(kept) == 30 * number)  # noqa: B023
        finally:
            reader.kill()
            reader.wait()
        if number < deaths:
            storm.end(storm.brew(30))
    runs.process.send_signal(signal.SIGTERM)
    runs.process.wait(2 * PATIENCE_S)
    runs.process = None
    records = [json.loads(line) for line in kept.read_bytes().splitlines()]
    Tally.of("the reader of a FIFO killed and restarted", deaths, storm.kills(), records).write().check()


def kills_in(path: Path) -> int:
    return path.read_bytes().count(b'"type":"oom_kill"')


def test_one_hangs(runs: Runs, storm: Storm, tmp_path: Path) -> None:
    """An output that nobody reads does not delay the other one, nor does it keep the kernel from telling more."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        runs.start("--output", f"file:{fifo}")
        storm.end(storm.brew(1500))
        runs.wait_for_kills(1500, 20)
        runs.stop()
    finally:
        os.close(reader)
    storm.tally("another output that nobody reads", 1, runs).check()
    told = [record for record in runs.of_type("lost") if record["stage"] == "ring_buffer"]
    assert told == []


def test_damaged_state(runs: Runs, storm: Storm) -> None:
    """Garbage in every file of its state stops nothing, and costs no record."""
    runs.start()
    storm.end(storm.brew(20))
    runs.wait_for_kills(20)
    runs.kill()
    files = [path for path in runs.state.rglob("*") if path.is_file()]
    assert files
    for number, path in enumerate(files):
        path.write_bytes(bytes(range(256)) * (number + 1))
    assert runs.start()["adopted"]
    storm.end(storm.brew(20))
    runs.wait_for_kills(40)
    runs.stop()
    storm.tally("every file of the state damaged", 1, runs).check()
