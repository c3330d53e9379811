# SPDX-License-Identifier: Apache-2.0
"""The folder of the state on a disk that hangs: kills are recorded all the same, and the tracer ends."""

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness.environment import attempts, wait_until
from tests.harness.runs import Runs
from tests.kernel.test_outputs import freezable

from .conftest import Storm

__all__ = ["freezable"]

END_S = 10.0
"""Twice what the tracer gives its outputs and its disk to take the last lines."""


@contextmanager
def frozen(disk: Path) -> Iterator[None]:
    """Who writes there waits until it is over, and no signal ends the wait."""
    subprocess.run(["fsfreeze", "--freeze", str(disk)], check=True)
    try:
        yield
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", str(disk)], check=True)


def has_ended(process: "subprocess.Popen[bytes]") -> bool:
    """Its main thread has; one that the disk holds may be left, for which its parent has to wait."""
    stat = Path(f"/proc/{process.pid}/stat")
    return process.poll() is not None or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def end(runs: Runs) -> float:
    """Terminate it; how long it took."""
    assert runs.process is not None
    began = time.monotonic()
    runs.process.send_signal(signal.SIGTERM)
    for _ in attempts(60):
        if has_ended(runs.process):
            break
    return time.monotonic() - began


@pytest.mark.parametrize("behind", [False, True])
def test_hangs(runs: Runs, storm: Storm, freezable: Path, behind: bool) -> None:
    """While it does, other outputs have each kill at once; SIGTERM ends it; the next run knows what was told."""
    runs.state = freezable / "state"
    runs.forget_the_past()
    # One that nobody reads has its lines in the spool, on the disk that hangs.
    others = ["--output", f"file:{freezable}/fifo"] if behind else []
    if behind:
        subprocess.run(["mkfifo", str(freezable / "fifo")], check=True)
    runs.start(*others)
    storm.end(storm.brew(5))
    runs.wait_for_kills(5)
    time.sleep(2)
    with frozen(freezable):
        began = time.monotonic()
        storm.end(storm.brew(20, pause_ms=20))
        runs.wait_for_kills(25, 5)
        storm.end(storm.brew(1))
        runs.wait_for_kills(26, 5)
        assert time.monotonic() - began < 10
        process = runs.process
        assert process is not None
        assert end(runs) < END_S
        wait_until("the stop record", lambda: runs.count("stop"), 1)
        assert runs.of_type("stop")[-1]["records"] == 26
    assert process.wait(END_S) == 0
    runs.process = None
    runs.start(*others)
    storm.end(storm.brew(1))
    runs.wait_for_kills(27)
    runs.stop()
    storm.tally("the disk of the state hangs" + (", and of a spool that is in use" if behind else ""), 1, runs).check()


def test_hangs_at_the_start(first_runs: Runs, storm: Storm, freezable: Path) -> None:
    """It says so, and goes on without."""
    runs = first_runs
    runs.state = freezable / "state"
    runs.forget_the_past()
    with frozen(freezable):
        runs.start()
        storm.end(storm.brew(3))
        runs.wait_for_kills(3, 5)
        process = runs.process
        assert process is not None
        assert end(runs) < END_S
        assert f"{runs.state}: it does not answer; nothing is kept on disk" in runs.said()
    assert process.wait(END_S) == 0
    runs.process = None


def test_next_run_while_it_hangs(runs: Runs, storm: Storm, freezable: Path) -> None:
    """It goes on where the last one ended, of which the disk holds a thread that nobody can end."""
    runs.state = freezable / "state"
    runs.forget_the_past()
    runs.start()
    with frozen(freezable):
        storm.end(storm.brew(3))
        runs.wait_for_kills(3, 5)
        held = []
        for kills in 4, 5:
            assert end(runs) < END_S
            assert runs.process is not None
            held.append(runs.process)
            runs.process = None
            assert runs.start()["adopted"]
            storm.end(storm.brew(1))
            runs.wait_for_kills(kills, 5)
        assert held[0].poll() is None
    for process in held:
        assert process.wait(END_S) == 0
    runs.stop()
