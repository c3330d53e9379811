# SPDX-License-Identifier: Apache-2.0
"""Starts the memory eater (eat.c) and reads its output."""

import os
import select
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from .cgroups import Cgroup, as_text
from .environment import ROOT, attempts, wait_until

SOURCE = Path(__file__).with_name("eat.c")
CC = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread"]

FLAGS = {
    "comm": "-n",
    "thread_comm": "-T",
    "adj": "-a",
    "uid": "-u",
    "life": "-l",
    "gate": "-G",
    "wait_ms": "-w",
    "kill_first": "-K",
    "hold": "-H",
    "thread": "-t",
    "zombie_leader": "-z",
    "timer_ms": "-x",
    "share_mm": "-m",
    "file": "-f",
    "shared": "-s",
    "node": "-N",
    "cpu": "-C",
    "chunk_kib": "-k",
    "pause_us": "-p",
    "children": "-c",
    "jobs": "-j",
    "namespace": "-P",
    "inner_namespace": "-PP",
    "update_map": "-B",
    "kills": "-S",
    "extra_threads": "-e",
    "timers": "-i",
    "vfork": "-V",
    "execs": "-X",
    "networks": "-W",
}
"""Options of the eater by their names in the tests; see eat.c."""

Option = str | bytes | int | Path | None
Words = Sequence[str | bytes]


def binary() -> Path:
    """The program: $OOMTRACE_EAT, or build/eat, compiled if it is missing or older than its source."""
    if given := os.environ.get("OOMTRACE_EAT"):
        return Path(given).resolve()
    return compiled(SOURCE)


def compiled(source: Path) -> Path:
    """build/NAME, compiled if it is missing or older than its source."""
    built = ROOT / "build" / source.stem
    if not built.exists() or built.stat().st_mtime < source.stat().st_mtime:
        built.parent.mkdir(exist_ok=True)
        scratch = built.with_name(f"{source.stem}.{os.getpid()}")
        subprocess.run([*CC, "-static", "-o", scratch, source], check=True)
        scratch.rename(built)
    return built


class Eater:
    """A running eater.

    ``pid`` is that of the process started here, which may start others; ``command_line`` is spelled as in records.
    """

    def __init__(
        self,
        mib: int,
        groups: Sequence[Cgroup] = (),
        *,
        extra: Words = (),
        argv0: str | None = None,
        through: Words = (),
        **options: Option,
    ) -> None:
        """``through`` is a command that executes the command behind it."""
        program = binary()
        arguments: list[str | bytes] = [str(program) if argv0 is None else argv0]
        for name, value in {"adj": 0, **options}.items():
            if value is None or value is False:
                continue
            arguments.append(FLAGS[name])
            if value is not True:
                arguments.append(value if isinstance(value, bytes) else str(value))
        for group in groups:
            arguments += ["-g", os.fsencode(group.path)]
        arguments += [str(mib), *extra]
        self.command_line = [as_text(os.fsencode(argument)) for argument in arguments]
        self.process = subprocess.Popen(
            [*through, *arguments],
            executable=None if through else program,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self.pid = self.process.pid
        self._output = b""
        self._is_at_end = False

    def _read(self, seconds: float) -> None:
        stdout = self.process.stdout
        assert stdout is not None
        if not self._is_at_end and select.select([stdout], [], [], seconds)[0]:
            output = os.read(stdout.fileno(), 65536)
            self._is_at_end = not output
            self._output += output

    def _lines(self, word: str, count: int = 1) -> list[list[int]]:
        """Wait for ``count`` lines that start with the word; their numbers."""
        for left in attempts(pause=0):
            found = [line.split()[1:] for line in self._output.decode().splitlines() if line.startswith(word)]
            if len(found) >= count:
                return [[int(number) for number in numbers] for numbers in found]
            if self._is_at_end:
                break
            self._read(left)
        pytest.fail(f"eater {self.pid} did not print {word!r} {count} times: {self._output!r}")

    def start(self) -> tuple[int, int]:
        """Wait until it is set up; pid and tid of the allocating thread, in its own PID namespace."""
        pid, tid = self._lines("start")[0]
        return pid, tid

    def children(self, count: int = 1) -> list[int]:
        """Wait for this many children; the pids of all, in their parent's PID namespace."""
        return [pid for (pid,) in self._lines("child", count)]

    def full(self, count: int = 1) -> "Eater":
        """Wait until this many processes have allocated everything."""
        self._lines("ate", count)
        return self

    def go(self) -> None:
        """Open the gate."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")

    def ended(self) -> bool:
        """Whether it has exited; its output so far is read."""
        self._read(0.01)
        return self.process.poll() is not None

    def wait(self) -> int:
        """Wait for its exit; the exit code, negative for a signal."""
        wait_until(f"eater {self.pid} has exited", self.ended)
        return self.process.returncode

    def die(self) -> "Eater":
        """Wait until SIGKILL has killed it."""
        assert self.wait() == -signal.SIGKILL
        return self

    def close(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.communicate()
