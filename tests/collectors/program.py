# SPDX-License-Identifier: Apache-2.0
"""Programs of others that a test starts, kills and starts again."""

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
"""How long a program may take until it listens."""
SAID_BYTES = 8192


class Program:
    """A program in the foreground, in a session of its own.  What it says goes into ``FOLDER/NAME.said``."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        folder: Path,
        ready: Callable[[], object],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """``ready`` tells whether it listens: see ``accepts`` and ``bound_udp``."""
        self.name = name
        self.process: subprocess.Popen[bytes] | None = None
        self._command = [str(word) for word in command]
        self._folder = folder
        self._ready = ready
        self._environment = {**os.environ, **(environment or {})}
        self._said = folder / f"{name}.said"

    def start(self) -> "Program":
        """Start it, and wait until it listens."""
        assert self.process is None, f"{self.name} runs already"
        with self._said.open("ab") as said:
            self.process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        for _ in attempts(READY_S, 0.05):
            if self.process.poll() is not None:
                break
            if self._ready():
                return self
        pytest.fail(f"{self.name} does not listen; status {self.process.poll()}: {self.said()}")

    def kill(self) -> None:
        """SIGKILL, to it and to those that it has started."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in order."""
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        """SIGKILL, and the next one with the same files."""
        self.kill()
        self.start()

    def close(self) -> None:
        if self.process is not None:
            self.kill()

    def said(self) -> str:
        """The end of what it has written to standard output and standard error."""
        return self._said.read_bytes()[-SAID_BYTES:].decode(errors="replace") if self._said.exists() else ""

    def wait_for(self, said: str) -> None:
        """Until it has said this."""
        wait_until(f"{self.name} says {said}", lambda: said in self.said(), READY_S)

    def _end(self, by: signal.Signals) -> None:
        assert self.process is not None, f"{self.name} does not run"
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, by)
        try:
            self.process.wait(READY_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            pytest.fail(f"{self.name} did not end by {by.name}: {self.said()}")
        finally:
            self.process = None


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port of 127.0.0.1 that nobody has now."""
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def accepts(address: int | str | Path) -> Callable[[], bool]:
    """Whether somebody listens at a TCP port of 127.0.0.1, or at a socket's path (a stream or for datagrams)."""

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
    """Whether somebody has this UDP port of 127.0.0.1."""
    mark = f"0100007F:{port:04X}"
    return lambda: any(line.split()[1] == mark for line in Path("/proc/net/udp").read_text().splitlines()[1:])
