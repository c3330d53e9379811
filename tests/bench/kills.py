# SPDX-License-Identifier: Apache-2.0
"""OOM kills in temporary memory cgroups, and the times of the kernel."""

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.harness.cgroups import Cgroup, Hierarchy
from tests.harness.eater import binary

TRACEFS = Path("/sys/kernel/tracing")
PRINTK = Path("/proc/sys/kernel/printk")
LIMIT_BYTES = 512 << 10
"""Small, for fast kills; the eaters allocate MIB."""
MIB = 1
LIFE_S = 600

_MARK = re.compile(r" (\d+)\.(\d{6}): mark_victim: pid=(\d+)")


class Marks:
    """The kernel's times: every oom:mark_victim, in a separate ftrace instance."""

    def __init__(self, instance: Path) -> None:
        self._trace = instance / "trace"

    def clear(self) -> None:
        self._trace.write_text("")

    def times(self) -> dict[int, int]:
        """Victim's pid -> time of the mark, CLOCK_MONOTONIC in ns, with a resolution of 1 us."""
        text = self._trace.read_text(errors="replace")
        return {int(pid): 1000 * (1_000_000 * int(s) + int(us)) for s, us, pid in _MARK.findall(text)}


@contextmanager
def marks() -> Iterator[Marks]:
    instance = TRACEFS / "instances" / f"oomtrace-bench-{os.getpid()}"
    instance.mkdir()
    event = instance / "events/oom/mark_victim/enable"
    try:
        (instance / "trace_clock").write_text("mono")
        (instance / "buffer_size_kb").write_text("2048")
        event.write_text("1")
        yield Marks(instance)
    finally:
        event.write_text("0")
        instance.rmdir()


@contextmanager
def groups(count: int) -> Iterator[list[Cgroup]]:
    """This many cgroups with a small limit each."""
    top = Hierarchy.find().make(f"oomtrace-bench-{os.getpid()}")
    try:
        made = [top.child(f"victims-{number}") for number in range(count)]
        for group in made:
            group.limit(LIMIT_BYTES)
        yield made
    finally:
        top.remove()


@contextmanager
def quiet_console() -> Iterator[None]:
    """Keep OOM reports off the console; a serial one blocks its CPU for milliseconds per line. Restored afterwards."""
    before = PRINTK.read_text()
    PRINTK.write_text("1")
    try:
        yield
    finally:
        PRINTK.write_text(before)


class KillLoad:
    """Processes that get OOM killed: ``each`` of them in each cgroup, ``jobs`` at a time."""

    def __init__(
        self,
        groups: Sequence[Cgroup],
        each: int,
        *,
        wait_ms: int = 0,
        jobs: int = 1,
        mib: int = MIB,
        hold: bool = False,
    ) -> None:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._eaters: list[subprocess.Popen[bytes]] = []
        for group in groups:
            command = [str(binary()), "-a", "0", "-l", str(LIFE_S), "-g", str(group.path), "-c", str(each)]
            command += ["-j", str(jobs), "-w", str(wait_ms), *(["-H"] if hold else []), str(mib)]
            self._eaters.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._output))

    def __enter__(self) -> "KillLoad":
        return self

    def __exit__(self, *_: object) -> None:
        for eater in self._eaters:
            eater.kill()  # its children are killed with it
            eater.wait()
        self._output.close()

    def ended(self) -> bool:
        return all(eater.poll() is not None for eater in self._eaters)

    def pids(self) -> set[int]:
        output = os.pread(self._output.fileno(), 1 << 24, 0).decode()
        return {int(line.split()[1]) for line in output.splitlines() if line.startswith("child ")}


def oom_kills(groups: Sequence[Cgroup]) -> int:
    """The kernel's count in these cgroups."""
    return sum(group.oom_kills() for group in groups)


def vmstat_oom_kills() -> int:
    """The kernel's count on the whole host."""
    for line in Path("/proc/vmstat").read_text().splitlines():
        name, value = line.split()
        if name == "oom_kill":
            return int(value)
    raise LookupError("/proc/vmstat has no oom_kill")
