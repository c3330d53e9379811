# SPDX-License-Identifier: Apache-2.0
"""The state directory is on a disk that hangs: kills are recorded, and the daemon stops."""

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness.daemon import Daemon
from tests.harness.environment import attempts, wait_until
from tests.kernel.test_outputs import freezable

from .conftest import Storm

__all__ = ["freezable"]

END_S = 10.0
"""Twice the daemon's timeout for outputs and disk to take the last lines."""


@contextmanager
def frozen(disk: Path) -> Iterator[None]:
    """Freeze the file system: writers are in uninterruptible sleep until it is thawed."""
    subprocess.run(["fsfreeze", "--freeze", str(disk)], check=True)
    try:
        yield
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", str(disk)], check=True)


def end(daemon: Daemon) -> float:
    """Send SIGTERM; the time until the main thread has exited, in seconds."""
    began = time.monotonic()
    daemon.process.send_signal(signal.SIGTERM)
    for _ in attempts(60):
        if not daemon.is_running:
            break
    return time.monotonic() - began


@pytest.mark.parametrize("behind", [False, True])
def test_hangs(daemon: Daemon, storm: Storm, freezable: Path, behind: bool) -> None:
    """While the disk hangs, outputs get each kill at once; SIGTERM ends the daemon; the next repeats no record."""
    daemon.state = freezable / "state"
    daemon.account_for_past_kills()
    # The lines of an output without a reader are in the spool, on the disk that hangs.
    others = ["--output", f"file:{freezable}/fifo"] if behind else []
    if behind:
        subprocess.run(["mkfifo", str(freezable / "fifo")], check=True)
    daemon.start(*others)
    storm.end(storm.brew(5))
    daemon.wait_for_kills(5)
    time.sleep(2)
    with frozen(freezable):
        began = time.monotonic()
        storm.end(storm.brew(20, pause_ms=20))
        daemon.wait_for_kills(25, 5)
        storm.end(storm.brew(1))
        daemon.wait_for_kills(26, 5)
        assert time.monotonic() - began < 10
        process = daemon.process
        assert end(daemon) < END_S
        wait_until("the stop record", lambda: daemon.count("stop"), 1)
        assert daemon.of_type("stop")[-1]["records"] == 26
    assert process.wait(END_S) == 0
    daemon.start(*others)
    storm.end(storm.brew(1))
    daemon.wait_for_kills(27)
    daemon.stop()
    storm.tally(
        "the disk of the state hangs" + (", and of a spool that is in use" if behind else ""), 1, daemon
    ).check()


def test_hangs_at_the_start(fresh_daemon: Daemon, storm: Storm, freezable: Path) -> None:
    """If the disk hangs at the start, the daemon prints a warning and runs without state."""
    daemon = fresh_daemon
    daemon.state = freezable / "state"
    daemon.account_for_past_kills()
    with frozen(freezable):
        daemon.start()
        storm.end(storm.brew(3))
        daemon.wait_for_kills(3, 5)
        process = daemon.process
        assert end(daemon) < END_S
        assert f"{daemon.state}: no answer in time; nothing is kept on disk" in daemon.stderr()
    assert process.wait(END_S) == 0


def test_next_run_while_it_hangs(daemon: Daemon, storm: Storm, freezable: Path) -> None:
    """The next daemon continues where the last one ended, whose thread is still stuck on the disk."""
    daemon.state = freezable / "state"
    daemon.account_for_past_kills()
    daemon.start()
    with frozen(freezable):
        storm.end(storm.brew(3))
        daemon.wait_for_kills(3, 5)
        held = []
        for kills in 4, 5:
            assert end(daemon) < END_S
            held.append(daemon.process)
            assert daemon.start()["adopted"]
            storm.end(storm.brew(1))
            daemon.wait_for_kills(kills, 5)
        assert held[0].poll() is None
    for process in held:
        assert process.wait(END_S) == 0
    daemon.stop()
