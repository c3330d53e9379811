# SPDX-License-Identifier: Apache-2.0
"""A running tool, and a reader that notes the time of each of its lines."""

import contextlib
import os
import pty
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType

from tests.harness.environment import IN_VM, ROOT

from .tools import Tool

START_TIMEOUT_S = 180.0 if IN_VM else 30.0
STOP_S = 60.0 if IN_VM else 15.0
SLICE_S = 0.02
"""Interval for checking a condition while waiting for output."""


class BenchError(Exception):
    """A measurement is not possible here; the message has the reason."""


@contextmanager
def eager() -> Iterator[None]:
    """Run this process with a real-time policy, so that its scheduling delays do not count as the tools'."""
    os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


class RunningTool:
    """A started tool; leave the ``with`` block to stop it."""

    def __init__(self, tool: Tool) -> None:
        self.tool = tool
        self.chunks: list[tuple[int, bytes]] = []
        """CLOCK_MONOTONIC time right after a read, and the data."""
        self.ended = False
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop()
        self.output, child = pty.openpty() if tool.terminal else os.pipe()
        try:
            self.began_ns = time.monotonic_ns()
            self.process = subprocess.Popen(
                tool.command,
                cwd=ROOT,
                env=tool.environment(),
                stdin=subprocess.DEVNULL,
                stdout=child,
                stderr=self._errors,
            )
        except OSError as error:
            raise BenchError(f"{tool.name} cannot be started: {error}") from error
        finally:
            os.close(child)

    def __enter__(self) -> "RunningTool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self.process.pid

    def take(self) -> None:
        """Read the available data; the descriptor must be readable."""
        try:
            data = os.read(self.output, 1 << 16)
        except OSError:  # EIO of a terminal after its last writer has exited
            data = b""
        now_ns = time.monotonic_ns()
        if data:
            self.chunks.append((now_ns, data))
        else:
            self.ended = True

    def wait_ready(self) -> float:
        """Wait until it is ready; the time since its start in seconds."""
        output = b""
        seen = 0

        def ready() -> bool:
            nonlocal output, seen
            output += b"".join(data for _, data in self.chunks[seen:])
            seen = len(self.chunks)
            return self.tool.ready in output

        listen([self], START_TIMEOUT_S, lambda: ready() or self.ended)
        if not ready():
            raise BenchError(f"{self.tool.name} did not print {self.tool.ready!r}: {output[-500:]!r}, {self.stderr()}")
        return (self.chunks[-1][0] - self.began_ns) / 1e9

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Complete lines, and the time when the end of each was read."""
        rest = b""
        for now_ns, data in self.chunks:
            *complete, rest = (rest + data).split(b"\n")
            for line in complete:
                yield now_ns, line.rstrip(b"\r")

    def victims(self) -> dict[int, int]:
        """Pid -> time when its line was read, CLOCK_MONOTONIC in ns."""
        found: dict[int, int] = {}
        for now_ns, line in self.lines():
            pid = self.tool.read(line).pid
            if pid is not None:
                found.setdefault(pid, now_ns)
        return found

    def lost(self) -> int:
        """Kills that it reports as lost."""
        errors = self.stderr().encode().splitlines()
        return sum(self.tool.read(line).lost for line in [*(line for _, line in self.lines()), *errors])

    def stderr(self) -> str:
        """All that it has written to stderr."""
        return os.pread(self._errors.fileno(), 1 << 16, 0).decode("utf-8", "replace")

    def stop(self) -> None:
        """Stop it with SIGINT, or SIGKILL at the timeout."""
        if self._errors.closed:
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGINT)
        listen([self], STOP_S, lambda: self.ended or self.process.poll() is not None)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.output)
        self._errors.close()


def listen(tools: Sequence[RunningTool], seconds: float, until: Callable[[], bool] = lambda: False) -> None:
    """Read the tools' output until the condition holds or the timeout."""
    poll = select.poll()
    by_descriptor = {running.output: running for running in tools if not running.ended}
    for descriptor in by_descriptor:
        poll.register(descriptor, select.POLLIN)
    end = time.monotonic() + seconds
    looked = 0.0
    while True:
        now = time.monotonic()
        if now >= end:
            return
        if now - looked >= SLICE_S:
            if until():
                return
            looked = now
        for descriptor, _ in poll.poll(1000 * min(SLICE_S, end - now)):
            running = by_descriptor[descriptor]
            running.take()
            if running.ended:
                poll.unregister(descriptor)


def listen_until_quiet(tools: Sequence[RunningTool], quiet_s: float, seconds: float) -> None:
    """Read the tools' output until they print nothing for a while or the timeout."""
    count = [-1]
    changed = [time.monotonic()]

    def quiet() -> bool:
        chunks = sum(len(running.chunks) for running in tools)
        if chunks != count[0]:
            count[0], changed[0] = chunks, time.monotonic()
        return time.monotonic() - changed[0] >= quiet_s

    listen(tools, seconds, quiet)
