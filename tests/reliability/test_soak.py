# SPDX-License-Identifier: Apache-2.0
"""A soak: continuous kills for minutes or hours, while the daemon's memory, descriptors and threads stay constant.

OOMTRACE_SOAK_MINUTES is its duration (3); `make soak MINUTES=60` also prints the figures of every minute.
"""

import json
import os
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.collectors.program import free_port
from tests.harness.cgroups import Cgroup
from tests.harness.daemon import Daemon
from tests.harness.eater import binary
from tests.harness.environment import IN_VM, TIMEOUT_SCALE, not_applicable, wait_until
from tests.harness.oracles import vmstat_oom_kills

from .tally import Tally

MINUTES = float(os.environ.get("OOMTRACE_SOAK_MINUTES", "3"))
WORKERS = 2
PAUSE_S = 0.0 if MINUTES <= 5 else 0.1
"""None in a short soak, to fill all bounded buffers; in a long one kills must not fill the disk."""
DEPTH, NAME_LENGTH = 12, 240
"""Levels above each victim's cgroup, and the length of their names: its path has nearly 4 KB."""
CONNECTIONS = 64
QUIET = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
LIMIT_MIB = 128
"""The memory limit of the DaemonSet, kernel memory included."""
GROWTH_KB = 2048
"""Allowed growth of RSS from the second third to the last; bounded buffers are full after some 4,096 kills.
Without bounds a third of the kills of a few minutes took 10 MB."""


class Sample(NamedTuple):
    rss_kb: int
    descriptors: int
    threads: int
    cpu_s: float

    @classmethod
    def of(cls, pid: int) -> "Sample":
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        cpu_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        opened = len(os.listdir(f"/proc/{pid}/fd"))
        return cls(int(status["VmRSS"].split()[0]), opened, int(status["Threads"]), cpu_s)


class Killer(threading.Thread):
    """Makes a container's cgroup and file, lets a process be killed in it, and removes both, repeatedly."""

    def __init__(self, above: Path, docker: Path, until_s: float) -> None:
        super().__init__(daemon=True)
        self._above, self._docker, self._until_s = above, docker, until_s
        self.kills = 0
        """Sum of the cgroups' counts."""
        self.errors: list[Exception] = []

    def run(self) -> None:
        try:
            while time.monotonic() < self._until_s:
                self._kill()
                time.sleep(PAUSE_S)
        except Exception as error:
            self.errors.append(error)

    def _kill(self) -> None:
        container = secrets.token_hex(32)
        group, file = self._above / f"docker-{container}.scope", self._docker / container / "config.v2.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"Name": f"/{container[:8]}", "Config": {"Image": "web:1", "Labels": {}}}))
        group.mkdir()
        is_v1 = (group / "memory.limit_in_bytes").exists()
        (group / ("memory.limit_in_bytes" if is_v1 else "memory.max")).write_text(str(2 << 20))
        command = ["eat", "-g", str(group), "-n", "soak", "-a", "0", "8"]
        pid = os.posix_spawn(binary(), command, os.environ, file_actions=QUIET)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status), f"status {status}"
        counts = (group / ("memory.oom_control" if is_v1 else "memory.events")).read_text()
        self.kills += int(counts.rpartition("oom_kill ")[2].split()[0])
        shutil.rmtree(file.parent)
        for _ in range(1000):
            with suppress(OSError):  # the last process still exits
                group.rmdir()
                return
            time.sleep(0.002)
        group.rmdir()


@pytest.fixture
def deep(cgroup: Cgroup) -> Iterator[Path]:
    """A cgroup many levels down, with a long path."""
    made = [cgroup.path / "deep"]
    for level in range(DEPTH):
        made.append(made[-1] / f"{level:02}".ljust(NAME_LENGTH, "x"))
    for path in made:
        if cgroup.hierarchy.version == 2:
            (path.parent / "cgroup.subtree_control").write_text("+memory")
        path.mkdir()
    if cgroup.hierarchy.version == 2:
        (made[-1] / "cgroup.subtree_control").write_text("+memory")
    yield made[-1]
    for path in reversed(made):
        path.rmdir()


@pytest.fixture
def limited(cgroup: Cgroup) -> Cgroup:
    return cgroup.child("daemon", LIMIT_MIB)


def hold_connections(port: int, stack: ExitStack) -> None:
    """Open more idle connections than the metrics server allows, and close them."""
    held = stack.enter_context(ExitStack())
    for _ in range(CONNECTIONS):
        with suppress(OSError):
            held.enter_context(socket.create_connection(("127.0.0.1", port), timeout=1))
    held.close()


def tally(output: Path, kills: int) -> Tally:
    """The tally, by ids because pids recur, and without the schema because of the number of lines."""
    ids: list[str] = []
    from_log = missing = 0
    with output.open("rb") as lines:
        for line in lines:
            record = json.loads(line)
            if record["type"] == "oom_kill":
                ids.append(record["id"])
                from_log += record["source"] == "kernel_log"
            elif record["type"] == "gap":
                missing += record["missing"]
    fault = "kills without a second of silence"
    return Tally(fault, 1, kills, len(ids), from_log, len(ids) - len(set(ids)), missing)


def median(values: list[int]) -> int:
    return sorted(values)[len(values) // 2]


def test_soak(daemon: Daemon, deep: Path, limited: Cgroup, tmp_path: Path) -> None:
    """Every kill is recorded, and memory, descriptors and threads stay constant."""
    if IN_VM:
        not_applicable("does not depend on the kernel")
    docker, port = tmp_path / "docker" / "containers", free_port()
    rotated = f"file:{tmp_path}/rotated.json?rotate-bytes=256K&keep=3&compress=gzip"
    arguments = ["--metrics", f"127.0.0.1:{port}", "--network", "--runtime-root", f"docker={docker.parent}"]
    into = ["sh", "-c", f'echo 0 >{limited.path}/cgroup.procs && exec "$@"', "sh"]
    docker.mkdir(parents=True)
    daemon.start(*arguments, "--output", rotated, wrapper=into)
    before = vmstat_oom_kills()
    began_s = time.monotonic()
    until_s = began_s + 60 * MINUTES
    killers = [Killer(deep, docker, until_s) for _ in range(WORKERS)]
    for killer in killers:
        killer.start()
    samples: list[Sample] = []
    shown = 0
    while time.monotonic() < until_s:
        with ExitStack() as stack:
            hold_connections(port, stack)
        time.sleep(1)
        samples.append(Sample.of(daemon.process.pid))
        if (minute := int((time.monotonic() - began_s) / 60)) > shown:
            shown = minute
            kills = sum(killer.kills for killer in killers)
            print(f"minute {minute}: {kills} kills, {daemon.count('oom_kill')} records, {samples[-1]}", flush=True)
    for killer in killers:
        killer.join(60)
        assert not killer.errors, killer.errors
    kills = sum(killer.kills for killer in killers)
    assert vmstat_oom_kills() - before == kills, "other processes were killed"
    daemon.wait_for_kills(kills, 30 * TIMEOUT_SCALE)
    wait_until("the exits", lambda: daemon.count("oom_exit") == kills, 10 * TIMEOUT_SCALE)
    stop = daemon.stop()
    assert kills > 120 * MINUTES / TIMEOUT_SCALE, "too few kills for a soak"
    tally(daemon.output, kills).write().check()
    assert (stop["lost"], daemon.count("lost")) == (0, 0)
    assert "Traceback" not in daemon.stderr()

    third = len(samples) // 3
    middle, last = samples[third : 2 * third], samples[-third:]
    growth_kb = median([each.rss_kb for each in last]) - median([each.rss_kb for each in middle])
    print(f"{kills} kills; RSS {samples[0].rss_kb} kB at the start, {last[-1].rss_kb} kB at the end, {growth_kb:+} kB")
    assert growth_kb < GROWTH_KB, samples
    for kind in ("descriptors", "threads"):
        assert max(getattr(each, kind) for each in last) <= max(getattr(each, kind) for each in middle) + 2, samples
