# SPDX-License-Identifier: Apache-2.0
"""The daemon is killed at each step of recording a gap: the gap is recorded once."""

import signal
import time
from pathlib import Path

import pytest

from tests.harness.daemon import Daemon
from tests.harness.environment import attempts
from tests.harness.oracles import Record
from tests.kernel.test_pins import other_version

from .conftest import Storm
from .test_missing import WITHOUT_BPFFS

STEPS = 40
"""Upper bound of the steps from the start to the saved ledger."""
KILL_AT_STEP = '''
def _end_at() -> None:
    """Kill this process with SIGKILL after a number of writes: to files, to stderr, or to a counter."""
    import signal

    from tracer.capture import programs

    left = int(os.environ.pop("OOMTRACE_TEST_STEP", "0"))

    def counted(real):
        def call(*arguments):
            nonlocal left
            result = real(*arguments)
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    counters = programs.ProgramCounters
    os.write, os.pwrite, counters.write = map(counted, (os.write, os.pwrite, counters.write))


_end_at()


def main() -> int:'''


@pytest.fixture
def killing_itself(tmp_path: Path) -> Path:
    """A copy of the source tree whose daemon kills itself at the step given in its environment."""
    return other_version(tmp_path, "tracer/daemon/daemon.py", "def main() -> int:", KILL_AT_STEP)


def killed_at(step: int, daemon: Daemon, root: Path, *through: str) -> bool:
    """Run the daemon until this step; whether it was killed. Once the gap is recorded, it is stopped."""
    daemon.spawn("--no-backfill", wrapper=["env", f"OOMTRACE_TEST_STEP={step}", *through], root=root)
    began = daemon.count("start")
    quiet_s = 0.0
    for _ in attempts(60):
        if daemon.process.poll() is not None:
            break
        quiet_s = quiet_s or (time.monotonic() if daemon.count("start") > began else 0.0)
        if quiet_s and time.monotonic() - quiet_s > 4:  # the audit takes two seconds
            daemon.process.terminate()
            break
    status = daemon.process.wait(30)
    assert status in (0, -signal.SIGKILL), daemon.stderr()[-2000:]
    return status != 0


def ids(records: list[Record]) -> list[str]:
    return [record["id"] for record in records]


def test_gap(daemon: Daemon, storm: Storm, killing_itself: Path) -> None:
    """A daemon killed at each step leaves the gap to the next daemon if it is not recorded yet."""
    daemon.start("--no-backfill", wrapper=WITHOUT_BPFFS)
    daemon.stop()
    step = 0
    while True:
        step += 1
        assert step < STEPS
        storm.end(storm.brew(3, jobs=1))
        was_killed = killed_at(step, daemon, killing_itself, *WITHOUT_BPFFS)
        daemon.start("--no-backfill", wrapper=WITHOUT_BPFFS)
        for _ in attempts(10):
            if len(daemon.of_type("gap")) >= step:
                break
        time.sleep(3)
        daemon.stop()
        gaps = daemon.of_type("gap")
        assert len(set(ids(gaps))) == len(gaps) == step, "each gap is recorded once"
        assert [gap["missing"] for gap in gaps] == [3] * step
        if not was_killed:
            break
    assert step > 5
    storm.tally("SIGKILL at each step of telling a gap", step, daemon).check_accounted()
