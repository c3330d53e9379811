# SPDX-License-Identifier: Apache-2.0
"""Outputs that fail during kills: all records arrive once they work again, and other outputs are not delayed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.daemon import Daemon
from tests.harness.disks import fill, mounted
from tests.harness.environment import TIMEOUT_S, wait_until

from .conftest import Storm
from .tally import Tally

READER = """
import os, sys
with open(sys.argv[1], "rb", buffering=0) as fifo, open(sys.argv[2], "ab", buffering=0) as kept:
    while piece := fifo.read(1 << 16):
        kept.write(piece)
"""
"""A collector that stores what it reads."""


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for the ledger and twice the records of a storm: in the spool and in the output."""
    yield from mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=1m,mode=755", "small")


def storm_on_a_full_disk(daemon: Daemon, storm: Storm, small: Path, kills: int) -> Path:
    """Fill the file system and make kills whose records cannot be written; the file that fills it."""
    filler = fill(small)
    storm.end(storm.brew(kills))
    wait_until("the warning", lambda: "cannot write to" in daemon.stderr())
    return filler


def test_disk_full(daemon: Daemon, storm: Storm, small: Path) -> None:
    """While the output's disk is full, records go to the spool, and from there into the file."""
    daemon.output = small / "records.jsonl"
    daemon.start()
    filler = storm_on_a_full_disk(daemon, storm, small, 60)
    filler.unlink()
    daemon.wait_for_kills(60)
    daemon.stop()
    storm.tally("the disk of the output full, and freed", 1, daemon).check()
    assert daemon.stderr().count("cannot write to") == 1
    assert [record["seq"] for record in daemon.records()] == list(range(len(daemon.records())))


def test_both_disks_full(fresh_daemon: Daemon, storm: Storm, small: Path) -> None:
    """While the spool's disk is full as well, records wait in memory."""
    daemon = fresh_daemon
    daemon.output, daemon.state = small / "records.jsonl", small / "state"
    daemon.account_for_past_kills()
    daemon.start()
    filler = storm_on_a_full_disk(daemon, storm, small, 60)
    filler.unlink()
    daemon.wait_for_kills(60)
    daemon.stop()
    storm.tally("the disks of output and spool full, and freed", 1, daemon).check()


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM])
def test_ended_on_a_full_disk(fresh_daemon: Daemon, storm: Storm, small: Path, by: signal.Signals) -> None:
    """The daemon ends while both disks are full: unacknowledged events stay in the kernel."""
    daemon = fresh_daemon
    daemon.output, daemon.state = small / "records.jsonl", small / "state"
    daemon.account_for_past_kills()
    daemon.start()
    filler = storm_on_a_full_disk(daemon, storm, small, 40)
    daemon.process.send_signal(by)
    daemon.process.wait(2 * TIMEOUT_S)
    filler.unlink()
    assert daemon.start()["adopted"]
    daemon.wait_for_kills(40)
    daemon.stop()
    storm.tally(f"{by.name} of the tracer while both disks are full", 1, daemon).check()


def test_reader_that_comes_and_goes(daemon: Daemon, storm: Storm, tmp_path: Path) -> None:
    """The reader of a FIFO that is killed and restarted gets all records that it has not read."""
    fifo, kept = tmp_path / "fifo", tmp_path / "kept.jsonl"
    os.mkfifo(fifo)
    kept.touch()
    daemon.output, pins = fifo, daemon.pins
    daemon.spawn()
    assert pins is not None
    wait_until("it is attached", lambda: list(pins.glob("v*/about")))
    deaths = 4
    for number in range(deaths + 1):
        reader = subprocess.Popen([sys.executable, "-c", READER, str(fifo), str(kept)])
        try:
            wait_until("the records of the last storm", lambda: kills_in(kept) == 30 * number)  # noqa: B023
        finally:
            reader.kill()
            reader.wait()
        if number < deaths:
            storm.end(storm.brew(30))
    daemon.process.send_signal(signal.SIGTERM)
    daemon.process.wait(2 * TIMEOUT_S)
    records = [json.loads(line) for line in kept.read_bytes().splitlines()]
    Tally.of("the reader of a FIFO killed and restarted", deaths, storm.kills(), records).write().check()


def kills_in(path: Path) -> int:
    return path.read_bytes().count(b'"type":"oom_kill"')


def test_one_hangs(daemon: Daemon, storm: Storm, tmp_path: Path) -> None:
    """An output without a reader delays neither the other output nor the reading of events."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        daemon.start("--output", f"file:{fifo}")
        storm.end(storm.brew(1500))
        daemon.wait_for_kills(1500, 20)
        daemon.stop()
    finally:
        os.close(reader)
    storm.tally("another output that nobody reads", 1, daemon).check()
    lost = [record for record in daemon.of_type("lost") if record["stage"] == "ring_buffer"]
    assert lost == []


def test_damaged_state(daemon: Daemon, storm: Storm) -> None:
    """With garbage in every file of its state the daemon starts, and no record is lost."""
    daemon.start()
    storm.end(storm.brew(20))
    daemon.wait_for_kills(20)
    daemon.kill()
    files = [path for path in daemon.state.rglob("*") if path.is_file()]
    assert files
    for number, path in enumerate(files):
        path.write_bytes(bytes(range(256)) * (number + 1))
    assert daemon.start()["adopted"]
    storm.end(storm.brew(20))
    daemon.wait_for_kills(40)
    daemon.stop()
    storm.tally("every file of the state damaged", 1, daemon).check()
