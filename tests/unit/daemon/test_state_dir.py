# SPDX-License-Identifier: Apache-2.0
"""state_dir.py: one oomtrace at a time keeps its state in a folder that nobody else can write to."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import ROOT
from tracer.base.errors import EXIT_FAILED, TracerError
from tracer.daemon.state_dir import open_state_dir


def test_made(tmp_path: Path) -> None:
    """A folder that is missing is made, for its owner."""
    state = open_state_dir(f"{tmp_path}/state")
    os.close(state.lock)
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) & 0o027 == 0
    assert state.ledger.startswith(f"{tmp_path}/state/")


def test_second(tmp_path: Path) -> None:
    """While one process has it, another one is told whose it is and what to do; afterwards it is free."""
    folder = f"{tmp_path}/state"
    holder = subprocess.Popen(
        [sys.executable, "-c",
         f"from tracer.daemon.state_dir import open_state_dir; open_state_dir({folder!r}); print(); input()"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout is not None
    holder.stdout.readline()
    try:
        with pytest.raises(TracerError) as caught:
            open_state_dir(folder)
    finally:
        holder.kill()
        holder.communicate()
    assert f"another oomtrace runs (pid {holder.pid})" in caught.value.message
    assert "--no-keep" in caught.value.hint
    assert caught.value.exit_code == EXIT_FAILED
    os.close(open_state_dir(folder).lock)


@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_others_may_write(tmp_path: Path, mode: int) -> None:
    """What somebody else may have put there is not trusted."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(mode)
    with pytest.raises(PermissionError):
        open_state_dir(f"{tmp_path}/state")


def test_link(tmp_path: Path) -> None:
    """Nor is where somebody's link leads."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "state").symlink_to("elsewhere")
    with pytest.raises(OSError, match=r"directory|symbolic"):
        open_state_dir(f"{tmp_path}/state")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_lock_is_a_link(tmp_path: Path) -> None:
    """A link in the place of the lock is not written through."""
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state/lock").symlink_to("../target")
    with pytest.raises(OSError, match="symbolic"):
        open_state_dir(f"{tmp_path}/state")
    assert not (tmp_path / "target").exists()
