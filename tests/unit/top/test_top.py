# SPDX-License-Identifier: Apache-2.0
"""``oomtrace top`` compared with ps and the kernel's scores, and on a real terminal."""

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.environment import ROOT, TIMEOUT_S, attempts, require, wait_until
from tracer.identity.enrich import ResolvedIdentity
from tracer.linux import procfs as proc
from tracer.reading import processes
from tracer.top import snapshot
from tracer.top.badness import badness
from tracer.top.table import render_table

PS = ("user", "pid", "pcpu", "pmem", "vsz", "rss", "tname", "stat", "start_time", "bsdtime")
TITLES = ("USER", "PID", "%CPU", "%MEM", "VSZ", "RSS", "TTY", "STAT", "START", "TIME")
THREADS = "import threading, time; threading.Thread(target=time.sleep, args=(600,)).start(); x = bytearray(20 << 20)"
BUSY = "import itertools, time; next(i for i in itertools.count() if time.process_time() > 1.2); time.sleep(600)"


@pytest.fixture(scope="module")
def shapes() -> Iterator[dict[str, int]]:
    """Processes of all kinds, by name, whose state does not change."""
    python = sys.executable
    commands: dict[str, dict[str, Any]] = {
        "plain": {"args": ["sleep", "561"]},
        "nice": {"args": ["nice", "-n", "5", "sleep", "562"]},
        "leader": {"args": ["sleep", "563"], "start_new_session": True},
        "threads": {"args": [python, "-c", THREADS]},
        "busy": {"args": [python, "-c", BUSY]},
        "stopped": {"args": ["sleep", "564"]},
        "dead": {"args": ["true"]},
        "odd": {"args": ["a b\n\x1b[31m", "565"], "executable": "/bin/sleep"},
    }
    made = {name: subprocess.Popen(**options) for name, options in commands.items()}
    made["stopped"].send_signal(signal.SIGSTOP)
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp("sleep", ["sleep", "566"])
    ready = {"dead": "Z", "stopped": "T", "nice": "SN", "threads": "Sl"}

    def settled() -> bool:
        found = {name: processes.read_process(each.pid) for name, each in made.items()}
        # Of a test run that is nice, all are: an N may be in between.
        states = all(each is not None and set(ready.get(name, "S")) <= set(each.state) for name, each in found.items())
        busy, threads = found["busy"], found["threads"]
        return states and bool(busy and busy.cpu_ns > 1e9) and bool(threads and threads.rss_bytes > 20 << 20)

    try:
        wait_until("all sleep", settled, 6 * TIMEOUT_S)
        yield {**{name: each.pid for name, each in made.items()}, "terminal": pid}
    finally:
        for process in made.values():
            process.kill()
            process.wait()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)


def ps(pid: int, *fields: str) -> list[str]:
    """Output of procps' ps; args must be the last column."""
    command = ["ps", "-ww", "-p", str(pid), *(word for field in fields for word in ("-o", f"{field}="))]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return told.split(None, len(fields) - 1)


def rows(*arguments: str) -> list[dict[str, str]]:
    """Cells of the table by title; COMMAND is the rest of the line."""
    command = [sys.executable, "-m", "tracer", "top", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=6 * TIMEOUT_S, check=True)
    assert done.stderr == ""
    head, *lines = done.stdout.splitlines()
    titles = head.split()
    return [dict(zip(titles, line.split(None, len(titles) - 1), strict=True)) for line in lines]


def test_as_ps(shapes: dict[str, int]) -> None:
    """Every column of ps aux has the value of ps, for processes of all kinds."""
    require(Path("/usr/bin/ps").exists() or Path("/bin/ps").exists(), "procps")
    before = {name: float(ps(pid, "pcpu")[0]) for name, pid in shapes.items()}
    found = {int(row["PID"]): row for row in rows()}
    for name, pid in shapes.items():
        row = found[pid]
        told = dict(zip((*TITLES, "COMMAND"), ps(pid, *PS, "args"), strict=True))
        least, most = sorted((before[name], float(told["%CPU"])))
        assert 0.9 * least - 0.3 <= float(row["%CPU"]) <= 1.1 * most + 0.3, name
        left_out = {"%CPU", *(("COMMAND",) if name == "odd" else ())}
        assert {title: value for title, value in told.items() if title not in left_out} == {
            title: row[title] for title in told if title not in left_out
        }
    assert float(found[shapes["busy"]]["%CPU"]) > 1
    assert found[shapes["dead"]]["COMMAND"] == "[true] <defunct>"
    assert found[shapes["odd"]]["COMMAND"] == r"a b\n\x1b[31m 565"
    assert found[shapes["terminal"]]["TTY"].startswith("pts/")


def test_all_processes() -> None:
    """All processes of the host are shown; kernel threads in brackets."""
    before = set(subprocess.run(["ps", "-eo", "pid="], capture_output=True, text=True, check=True).stdout.split())
    found = {row["PID"]: row for row in rows()}
    after = set(subprocess.run(["ps", "-eo", "pid="], capture_output=True, text=True, check=True).stdout.split())
    assert (before & after) <= found.keys()
    assert "2" not in found or found["2"]["COMMAND"].startswith("[")


@pytest.mark.parametrize("sort", ["rss", "mem", "vsz", "cpu", "oom"])
def test_sort(sort: str, shapes: dict[str, int]) -> None:
    """The highest values come first."""
    column = {"rss": "RSS", "mem": "RSS", "vsz": "VSZ", "cpu": "%CPU", "oom": "OOM"}[sort]
    values = [float(row[column]) for row in rows("--sort", sort)]
    assert len(values) > len(shapes)
    assert sorted(values, reverse=True) == values


@pytest.mark.parametrize("adj", [0, 1, 300, 999, 1000])
def test_badness_is_the_kernels(adj: int) -> None:
    """The kernel's oom_score, which it computes from oom_badness() for the host, follows from these points."""
    program = "import sys; x = bytearray(40 << 20); open('/proc/self/oom_score_adj', 'w').write(sys.argv[1]); input()"
    process = subprocess.Popen([sys.executable, "-c", program, str(adj)], stdin=subprocess.PIPE)
    try:
        found = None
        for _ in attempts():
            found = processes.read_process(process.pid)
            if found is not None and found.rss_bytes > 40 << 20 and found.oom_score_adj == adj and found.state == "S":
                break
        assert found is not None
        total_pages = snapshot.read_host_memory().total_pages
        points = badness(found, total_pages)
        assert points is not None
        # proc_oom_score() in fs/proc/base.c
        assert found.oom_score == pytest.approx((1000 + points * 1000 // total_pages) * 2 // 3, abs=1)
    finally:
        process.communicate(b"\n")


def test_never_killed() -> None:
    """Kernel threads, zombies, the host's init and protected processes are never chosen."""
    own = processes.read_process(os.getpid())
    assert own is not None
    assert badness(own, 1 << 20) is not None
    assert badness(own._replace(oom_score_adj=-1000), 1 << 20) is None
    assert badness(own._replace(oom_score_adj=None), 1 << 20) is None
    init = processes.read_process(1)
    if init is not None and processes._sees_host():
        assert badness(init, 1 << 20) is None
    found = map(processes.read_process, proc.list_pids())
    threads = [each for each in found if each is not None and each.ppid == 2]
    assert [badness(each, 1 << 20) for each in threads] == [None] * len(threads)


def test_json(shapes: dict[str, int]) -> None:
    """All values are numbers in base units, and equal the table's."""
    command = [sys.executable, "-m", "tracer", "top", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=6 * TIMEOUT_S, check=True)
    told = json.loads(done.stdout)
    assert told["memory_total_bytes"] == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    by_pid = {each["pid"]: each for each in told["processes"]}
    each = by_pid[shapes["threads"]]
    assert each["rss_bytes"] == int(ps(each["pid"], "rss")[0]) * 1024
    assert each["cmdline"] == [sys.executable, "-c", THREADS]
    assert each["ppid"] == os.getpid()
    assert by_pid[shapes["dead"]]["points"] is None


def test_secrets_stay_secret() -> None:
    """Command lines are redacted as in records."""
    # The shell itself waits for its input: a child that slept would outlive the test.
    command = ["sh", "-c", "read line; : --password=hunter2"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        try:
            (row,) = [row for row in rows() if row["PID"] == str(process.pid)]
            assert "hunter2" not in row["COMMAND"]
            assert "--password=[redacted]" in row["COMMAND"]
        finally:
            process.kill()


def test_nothing_found() -> None:
    """An unknown container is an error of one line."""
    command = [sys.executable, "-m", "tracer", "top", "--container", "no\nsuch"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=6 * TIMEOUT_S, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"oomtrace: no process is in container 'no\\nsuch': [^\n]+\n", done.stderr)


def test_narrow() -> None:
    """A narrow terminal keeps pid, size and command, and no line exceeds its width."""
    own = processes.read_process(os.getpid())
    assert own is not None
    entry = snapshot.ProcessEntry(
        own, "nobody", 1.0, 1.0, None, (), ResolvedIdentity(None, None, None, None, False), ["python3", "x" * 500]
    )
    for width in (40, 60, 80, 120):
        head, line = render_table([entry], width)
        assert len(line) == width
        assert {"PID", "RSS", "OOM", "COMMAND"} <= set(head.split())
        assert "CONTAINER" not in head
    assert "CONTAINER" in render_table([entry])[0]


def test_options_in_docs() -> None:
    """docs/top.md explains everything that the help shows."""
    command = [sys.executable, "-m", "tracer", "top", "--help"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=6 * TIMEOUT_S, check=True).stdout
    options = set(re.findall(r"(?<![\w-])(--[a-z-]+)", shown)) - {"--help"}
    page = (ROOT / "docs" / "top.md").read_text()
    assert options <= set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", page))


class Terminal:
    """A terminal with ``oomtrace top`` in it."""

    def __init__(self, columns: int, rows: int, *arguments: str) -> None:
        self._end, inner = pty.openpty()
        self.resize(columns, rows)
        self.mode = termios.tcgetattr(inner)
        self._inner = inner
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tracer", "top", *arguments],
            cwd=ROOT,
            stdin=inner,
            stdout=inner,
            stderr=inner,
            env={**os.environ, "TERM": "xterm"},
            preexec_fn=lambda: self._lead(inner),
        )
        self.seen = b""

    @staticmethod
    def _lead(terminal: int) -> None:
        os.setsid()
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._end, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self._end, keys)

    def screens(self, count: int) -> list[list[str]]:
        """Wait for this number of screens; returns the lines of each."""
        for _ in attempts(3 * TIMEOUT_S, pause=0):
            self._listen(0.1)
            parts = self.seen.split(b"\x1b[H")[1:]
            if sum(b"\x1b[J" in part for part in parts) >= count:
                whole = [part.partition(b"\x1b[J")[0].decode() for part in parts]
                return [screen.replace("\x1b[K", "").split("\r\n") for screen in whole]
        pytest.fail(f"no {count} screens in {self.seen!r}")

    def end(self) -> int:
        """Wait for its end; returns the exit status."""
        for _ in attempts(3 * TIMEOUT_S, pause=0):
            self._listen(0.05)
            if self.process.poll() is not None:
                break
        self._listen(0.05)
        return self.process.wait(TIMEOUT_S)

    def modes_restored(self) -> bool:
        return termios.tcgetattr(self._inner) == self.mode

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._end)
        os.close(self._inner)

    def _listen(self, seconds: float) -> None:
        while select.select([self._end], [], [], seconds)[0]:
            with contextlib.suppress(OSError):
                self.seen += os.read(self._end, 65536)
            seconds = 0


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal(100, 12)
    yield made
    made.close()


@pytest.mark.parametrize("by", ["q", "Ctrl-C", "SIGTERM"])
def test_terminal_ends(terminal: Terminal, by: str) -> None:
    """It runs until q or a signal, and restores the terminal."""
    (screen,) = terminal.screens(1)
    assert len(screen) == 12
    assert max(map(len, screen)) <= 100
    assert screen[1].split()[:2] == ["USER", "PID"]
    if by == "q":
        terminal.type(b"q")
    elif by == "Ctrl-C":
        terminal.type(b"\x03")
    else:
        terminal.process.terminate()
    assert terminal.end() == 0
    assert terminal.seen.startswith(b"\x1b[?1049h")
    assert terminal.seen.endswith(b"\x1b[?1049l")
    assert terminal.modes_restored()


def test_terminal_refreshes() -> None:
    """Two more screens follow, two seconds apart, without a key."""
    before = time.monotonic()
    terminal = Terminal(100, 12)
    try:
        terminal.screens(3)
        assert time.monotonic() - before > 4
    finally:
        terminal.close()


def test_terminal_resizes(terminal: Terminal) -> None:
    """A resized terminal is filled at once."""
    terminal.screens(1)
    terminal.resize(60, 6)
    screen = terminal.screens(2)[1]
    assert len(screen) == 6
    assert max(map(len, screen)) <= 60


def test_terminal_once() -> None:
    """-n 1 prints once, without escape sequences."""
    once = Terminal(100, 12, "-n", "1", "--lines", "3")
    try:
        assert once.end() == 0
        assert b"\x1b" not in once.seen
        assert len(once.seen.splitlines()) == 4
    finally:
        once.close()
