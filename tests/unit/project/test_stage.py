# SPDX-License-Identifier: Apache-2.0
"""tests/stage.py: removes and names what tests leave behind.  tests/repeat.py: counts results."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.cgroups import Hierarchy
from tests.harness.environment import ROOT, require, wait_until
from tests.repeat import count, failures

STAGE = [sys.executable, "-m", "tests.stage"]


def stage(*command: str) -> tuple[int, list[str]]:
    """The status, and the reported leftovers."""
    done = subprocess.run([*STAGE, *command], cwd=ROOT, capture_output=True, text=True, timeout=120)
    lines = [line for line in done.stderr.splitlines() if line.startswith("stage: left behind: ")]
    return done.returncode, [line.removeprefix("stage: left behind: ") for line in lines]


def runs(word: str) -> list[int]:
    """Pids of processes with this word in their command lines."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if word.encode() in entry.read_bytes().split(b"\0"):
                found.append(int(entry.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137)])
def test_status(script: str, status: int) -> None:
    """The status is the command's; nothing is reported without leftovers."""
    assert stage("sh", "-c", script) == (status, [])


@pytest.mark.parametrize(
    "start", ["setsid sleep {0} &", "(setsid env -i sleep {0} &)", "(trap '' TERM INT HUP; exec setsid sleep {0}) &"]
)
@pytest.mark.parametrize(("end", "status"), [("exit 0", 1), ("exit 3", 3)])
def test_processes(start: str, end: str, status: int) -> None:
    """A process in another session, without the environment, that ignores signals is reported and killed."""
    seconds = f"{os.getpid()}.{abs(hash((start, end))) % 10**9}"
    found, left = stage("sh", "-c", f"{start.format(seconds)}\n{end}")
    assert (found, len(left)) == (status, 1), left
    assert f"sleep {seconds}" in left[0]
    assert runs(seconds) == []


def test_slow_end_is_no_leftover() -> None:
    """A process that exits soon after the command is not reported."""
    assert stage("sh", "-c", "setsid sleep 1 &") == (0, [])


def test_networks_and_cgroups() -> None:
    """A network namespace and a cgroup of an exited process are removed; those of another run are kept."""
    require(os.geteuid() == 0 and shutil.which("ip"), "root, iproute2")
    script = "mkdir {0}/oomtrace-test-$$ {0}/oomtrace-test-$$/inner && ip netns add oomt$$n1 && echo $$"
    other = Hierarchy.find().make(f"oomtrace-test-{os.getpid()}")
    try:
        done = subprocess.run(
            [*STAGE, "sh", "-c", script.format(other.path.parent)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert other.path.exists()
    finally:
        other.remove()
    pid = done.stdout.strip()
    left = {line.removeprefix("stage: left behind: ") for line in done.stderr.splitlines()}
    assert f"netns /run/netns/oomt{pid}n1" in left
    assert f"cgroup {other.path.parent}/oomtrace-test-{pid}" in left
    assert not Path(f"/run/netns/oomt{pid}n1").exists()
    assert not (other.path.parent / f"oomtrace-test-{pid}").exists()


def test_mounts(tmp_path: Path) -> None:
    """A mount is reported, even in the checkout, and is not visible to other processes."""
    require(os.geteuid() == 0, "root")
    (tmp_path / "a b").mkdir()
    script = f"mount -t tmpfs none '{tmp_path}/a b' && grep -c '{tmp_path}' /proc/self/mounts {PARENT}"
    done = subprocess.run([*STAGE, "sh", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == ["/proc/self/mounts:1", f"{PARENT}:0"]
    assert (done.returncode, done.stderr) == (1, f"stage: left behind: mount {tmp_path}/a b\n")


PARENT = f"/proc/{os.getpid()}/mounts"

TORN_DOWN = """
import pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
try:
    (folder / "begun").touch()
    time.sleep(600)
finally:
    (folder / "torn-down").touch()
"""


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_ended(tmp_path: Path, by: signal.Signals) -> None:
    """On any signal the command's teardown runs, also in a shell's background, where SIGINT is ignored."""
    background = ["sh", "-c", 'exec "$@" & echo $!; wait', "sh"]
    with subprocess.Popen(
        [*background, *STAGE, sys.executable, "-c", TORN_DOWN, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE
    ) as shell:
        assert shell.stdout is not None
        pid = int(shell.stdout.readline())
        wait_until("the command has started", (tmp_path / "begun").exists, 60)
        os.kill(pid, by)
        shell.wait(60)
    assert (tmp_path / "torn-down").exists()
    assert runs(str(tmp_path)) == []


LOG = """\
$ .venv/bin/python -m tests.stage pytest tests/kernel -q
........F                                                                [100%]
FAILED tests/kernel/test_a.py::test_x[core] - AssertionError: 3 passed in 4s
1 failed, 8 passed, 2 skipped in 61.20s (0:01:01)
ERROR tests/kernel/test_b.py::test_y - Failed: not within 10 s
==================== 5 passed, 1 error in 3.1s ====================
stage: left behind: process 17 'sleep 600 '
"""


def test_count() -> None:
    """All summary lines of pytest are counted, and nothing similar."""
    assert count(LOG) == {"passed": 13, "failed": 2, "skipped": 2}
    assert failures(LOG) == {
        "tests/kernel/test_a.py::test_x[core]",
        "tests/kernel/test_b.py::test_y",
        "left behind: process",
    }
