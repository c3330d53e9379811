# SPDX-License-Identifier: Apache-2.0
"""Third-party programs that a test starts, kills and restarts."""

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from tests.harness.environment import TIMEOUT_SCALE, attempts, wait_until

READY_S = 30.0 * TIMEOUT_SCALE
"""Timeout for a program to listen."""
OUTPUT_BYTES = 8192


class Program:
    """A program in the foreground, in its own session; its output goes to ``FOLDER/NAME.log``."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        folder: Path,
        ready: Callable[[], object],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """``ready`` returns whether it listens, see accepts() and bound_udp()."""
        self.name = name
        self.process: subprocess.Popen[bytes] | None = None
        self._command = [str(word) for word in command]
        self._folder = folder
        self._ready = ready
        self._environment = {**os.environ, **(environment or {})}
        self._log = folder / f"{name}.log"

    def start(self) -> "Program":
        """Start it, and wait until it listens."""
        assert self.process is None, f"{self.name} runs already"
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        for _ in attempts(READY_S, 0.05):
            if self.process.poll() is not None:
                break
            if self._ready():
                return self
        pytest.fail(f"{self.name} does not listen; exit code {self.process.poll()}: {self.output()}")

    def kill(self) -> None:
        """Send SIGKILL to it and its children."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Stop it with a signal, and wait."""
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        """Kill it, and start it again with the same files."""
        self.kill()
        self.start()

    def close(self) -> None:
        if self.process is not None:
            self.kill()

    def output(self) -> str:
        """The end of its standard output and standard error."""
        return self._log.read_bytes()[-OUTPUT_BYTES:].decode(errors="replace") if self._log.exists() else ""

    def wait_for(self, text: str) -> None:
        """Wait for a text in its output."""
        wait_until(f"{text} in the output of {self.name}", lambda: text in self.output(), READY_S)

    def _end(self, by: signal.Signals) -> None:
        assert self.process is not None, f"{self.name} does not run"
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, by)
        try:
            self.process.wait(READY_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            pytest.fail(f"{self.name} did not exit on {by.name}: {self.output()}")
        finally:
            self.process = None


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A free TCP port of 127.0.0.1."""
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def accepts(address: int | str | Path) -> Callable[[], bool]:
    """Whether a TCP port of 127.0.0.1, or a UNIX stream or datagram socket, accepts."""

    def check() -> bool:
        if isinstance(address, int):
            kinds = [(socket.AF_INET, socket.SOCK_STREAM)]
        else:
            kinds = [(socket.AF_UNIX, socket.SOCK_DGRAM), (socket.AF_UNIX, socket.SOCK_STREAM)]
        for family, kind in kinds:
            with socket.socket(family, kind) as probe, contextlib.suppress(OSError):
                probe.connect(("127.0.0.1", address) if isinstance(address, int) else str(address))
                return True
        return False

    return check


def bound_udp(port: int) -> Callable[[], bool]:
    """Whether a UDP port of 127.0.0.1 is in use."""
    mark = f"0100007F:{port:04X}"
    return lambda: any(line.split()[1] == mark for line in Path("/proc/net/udp").read_text().splitlines()[1:])
