# SPDX-License-Identifier: Apache-2.0
"""Runs the runtimes' programs: commands, and daemons that tests start and stop; every wait has a timeout."""

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
"""Timeout for a command of a runtime."""

READY_S = TIMEOUT_SCALE * (300.0 if IN_VM else 30.0)
"""Timeout for a daemon to answer."""

ENVIRONMENT = {**os.environ, "PATH": "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}

Command = Sequence[str | Path]


def run(*command: str | Path, check: bool = True, cwd: Path | None = None) -> str:
    """Run a command; its output. With ``check`` it must succeed."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=COMMAND_S, env=ENVIRONMENT, cwd=cwd, stdin=subprocess.DEVNULL
    )
    if check and done.returncode:
        pytest.fail(f"{' '.join(map(str, command))}: exit code {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout.strip()


def ask(*command: str | Path, cwd: Path | None = None) -> Any:
    """Run a command that prints JSON; the parsed output."""
    return json.loads(run(*command, cwd=cwd))


class Service:
    """A runtime's daemon, started for this session."""

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
        """Stop it with SIGTERM, or SIGKILL at the timeout."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(READY_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
