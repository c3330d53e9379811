# SPDX-License-Identifier: Apache-2.0
"""The tracer killed at each step while it tells what was lost: it is told, and once."""

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
"""More than there are from the start to where all is told and noted."""
KNIFE = '''
def _end_at() -> None:
    """End this process as nobody can prevent, after so many writes: to files, to stderr, or to a counter."""
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

    os.write, os.pwrite, programs.Counters.write = map(counted, (os.write, os.pwrite, programs.Counters.write))


_end_at()


def main() -> int:'''


@pytest.fixture
def knifed(tmp_path: Path) -> Path:
    """The same tracer, which ends at the step that its environment names."""
    return other_version(tmp_path, "tracer/daemon/daemon.py", "def main() -> int:", KNIFE)


def killed_at(step: int, daemon: Daemon, root: Path, *through: str) -> bool:
    """Whether a run was killed at this step, which may be one of its end once it has told all."""
    daemon.spawn("--no-backfill", wrapper=["env", f"OOMTRACE_TEST_STEP={step}", *through], root=root)
    began = daemon.count("start")
    quiet_s = 0.0
    for _ in attempts(60):
        if daemon.process.poll() is not None:
            break
        quiet_s = quiet_s or (time.monotonic() if daemon.count("start") > began else 0.0)
        if quiet_s and time.monotonic() - quiet_s > 4:  # the account takes two seconds
            daemon.process.terminate()
            break
    status = daemon.process.wait(30)
    assert status in (0, -signal.SIGKILL), daemon.stderr()[-2000:]
    return status != 0


def ids(records: list[Record]) -> list[str]:
    return [record["id"] for record in records]


def test_gap(daemon: Daemon, storm: Storm, knifed: Path) -> None:
    """Kills that nobody saw: after each step of a run that tells them the next one knows whether that was done."""
    daemon.start("--no-backfill", wrapper=WITHOUT_BPFFS)
    daemon.stop()
    step = 0
    while True:
        step += 1
        assert step < STEPS
        storm.end(storm.brew(3, jobs=1))
        was_killed = killed_at(step, daemon, knifed, *WITHOUT_BPFFS)
        daemon.start("--no-backfill", wrapper=WITHOUT_BPFFS)
        for _ in attempts(10):
            if len(daemon.of_type("gap")) >= step:
                break
        time.sleep(3)
        daemon.stop()
        gaps = daemon.of_type("gap")
        assert len(set(ids(gaps))) == len(gaps) == step, "told, and once"
        assert [gap["missing"] for gap in gaps] == [3] * step
        if not was_killed:
            break
    assert step > 5
    storm.tally("SIGKILL at each step of telling a gap", step, daemon).check_told()
