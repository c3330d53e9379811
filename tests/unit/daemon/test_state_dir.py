# SPDX-License-Identifier: Apache-2.0
"""state_dir.py: the state directory has one user, and others cannot write to it."""

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
    """A missing directory is created, for its owner only."""
    state = open_state_dir(f"{tmp_path}/state")
    os.close(state.lock)
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) & 0o027 == 0
    assert state.ledger.startswith(f"{tmp_path}/state/")


def test_second(tmp_path: Path) -> None:
    """While one process has it, another one gets an error with its pid and a hint; afterwards it is free."""
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
    """A directory that others can write to is refused."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(mode)
    with pytest.raises(PermissionError):
        open_state_dir(f"{tmp_path}/state")


def test_link(tmp_path: Path) -> None:
    """A symbolic link is refused."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "state").symlink_to("elsewhere")
    with pytest.raises(OSError, match=r"directory|symbolic"):
        open_state_dir(f"{tmp_path}/state")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_lock_is_a_link(tmp_path: Path) -> None:
    """A symbolic link in place of the lock is not followed."""
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state/lock").symlink_to("../target")
    with pytest.raises(OSError, match="symbolic"):
        open_state_dir(f"{tmp_path}/state")
    assert not (tmp_path / "target").exists()
