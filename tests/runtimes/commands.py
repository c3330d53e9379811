# SPDX-License-Identifier: Apache-2.0
"""Programs of the runtimes: commands that end, and daemons that the tests start and stop; every wait is bounded."""

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.harness.environment import IN_VM, TIMEOUT_SCALE, attempts

COMMAND_S = TIMEOUT_SCALE * (300.0 if IN_VM else 60.0)
"""The longest time that a command of a runtime may take."""

READY_S = TIMEOUT_SCALE * (300.0 if IN_VM else 30.0)
"""The longest wait for a daemon to answer."""

ENVIRONMENT = {**os.environ, "PATH": "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}

Command = Sequence[str | Path]


def run(*command: str | Path, check: bool = True, cwd: Path | None = None) -> str:
    """The output of a command; with `check` it must succeed."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=COMMAND_S, env=ENVIRONMENT, cwd=cwd, stdin=subprocess.DEVNULL
    )
    if check and done.returncode:
        pytest.fail(f"{' '.join(map(str, command))}: status {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout.strip()


def ask(*command: str | Path, cwd: Path | None = None) -> Any:
    """What a command answers in JSON."""
    return json.loads(run(*command, cwd=cwd))


class Service:
    """A daemon of this session."""

    def __init__(self, command: Command, log: Path, ready: Callable[[], object]) -> None:
        self._log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=ENVIRONMENT, start_new_session=True
            )
        for _ in attempts(READY_S, pause=0.1):
            if self._process.poll() is not None:
                break
            with contextlib.suppress(pytest.fail.Exception, OSError):
                ready()
                return
        self.stop()
        pytest.fail(f"{command[0]} did not start: {log.read_text(errors='replace')[-4000:]}")

    def stop(self) -> None:
        """End it, in order if it does that in time."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(READY_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
