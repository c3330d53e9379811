# SPDX-License-Identifier: Apache-2.0
"""Runs ``oomtrace run`` as its users do, and reads and checks the JSON lines in its output file."""

import json
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tracer.accounting.ledger import Ledger
from tracer.base.clock import boottime_ns
from tracer.records.host import read_boot_id

from .environment import ENGINE, ROOT, START_TIMEOUT_S, TIMEOUT_S, attempts, wait_until
from .hanging import process_state
from .oracles import Record, vmstat_oom_kills
from .schema import check_line

BPFFS = Path("/sys/fs/bpf")
_TYPE = re.compile(rb'"type":"(\w+)"')


class _Tail:
    """The lines appended to a file since the last read; a line without its newline is left for the next read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = path.stat().st_size if path.is_file() else 0
        self.rest = b""
        """A partial line at the end of the last read."""

    def lines(self) -> Iterator[bytes]:
        self.rest = b""
        if not self._path.is_file():  # to open a FIFO would block
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    self.rest = line
                    return
                self._offset += len(line)
                yield line[:-1]


class Daemon:
    """The daemon, and the records in the first of its output files.

    Several processes may run one after the other. They append to the same files, and share the pinned capture and the
    state. Without ``pins`` they keep neither (``--no-keep``).
    """

    def __init__(self, folder: Path, *outputs: Path, pins: Path | None = None, state: Path | None = None) -> None:
        """Nothing runs yet. What earlier processes have written to the first output is not read."""
        self.folder = folder
        self.output, *self._other_outputs = outputs or (folder / "records.json",)
        self.pins = pins
        self.state = state or Path(f"{self.output}.state")
        self._stderr = folder / "stderr.txt"
        self._process: subprocess.Popen[bytes] | None = None
        self._earlier_starts = 0
        self._records: list[Record] = []
        self._counts: Counter[str] = Counter()
        self._last_line = b""

    def account_for_past_kills(self) -> None:
        """Write a ledger as of an earlier process that has recorded all OOM kills of this boot."""
        self.state.mkdir(mode=0o750)
        ledger = Ledger(f"{self.state}/ledger", read_boot_id())
        ledger.mark_explained(vmstat_oom_kills(), boottime_ns())
        ledger.save()

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        """The process that was started last."""
        assert self._process is not None, "the daemon was never started"
        return self._process

    @process.setter
    def process(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process

    @property
    def is_running(self) -> bool:
        """False once the main thread has exited: a thread in uninterruptible sleep may delay the end of the process."""
        return self._process is not None and self._process.poll() is None and process_state(self._process.pid) != "Z"

    def spawn(self, *arguments: str, wrapper: Sequence[str] = (), root: Path = ROOT) -> "subprocess.Popen[bytes]":
        """Start a process and do not wait.

        ``wrapper`` is a command that executes the command behind it; ``root`` has the source code to run. The output
        files are passed as options unless ``arguments`` name a configuration file.
        """
        if self._process is None:
            self._stderr.write_bytes(b"")
            self._counted, self._parsed, self._checked = (_Tail(self.output) for _ in range(3))
        self._earlier_starts = self.count("start")
        keep = ["--no-keep"] if self.pins is None else ["--pins", str(self.pins), "--state", str(self.state)]
        command = [*wrapper, sys.executable, "-m", "tracer", "run", "--engine", ENGINE, *keep, *arguments]
        for output in () if "--config" in arguments else (self.output, *self._other_outputs):
            command += ["--output", f"file:{output}"]
        with self._stderr.open("ab") as stderr:
            self._process = subprocess.Popen(command, cwd=root, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr)
        return self._process

    def start(self, *arguments: str, wrapper: Sequence[str] = (), root: Path = ROOT) -> Record:
        """Start a process and wait until it is attached; its start record."""
        assert not self.is_running, "the last process still runs"
        self.spawn(*arguments, wrapper=wrapper, root=root)
        return self.wait_ready()

    def wait_ready(self) -> Record:
        """Wait until the process is attached; its start record."""
        for _ in attempts(START_TIMEOUT_S):
            if self.count("start") > self._earlier_starts:
                return self.of_type("start")[self._earlier_starts]
            if self.process.poll() is not None:
                break
        pytest.fail(f"no start record; {self._status()}")

    def terminate(self, by: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the exit; the exit code, negative for a signal."""
        self.process.send_signal(by)
        try:
            return self.process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            pytest.fail(f"the daemon did not exit within {TIMEOUT_S:.0f} s of {by.name}; {self._status()}")

    def stop(self, by: signal.Signals = signal.SIGTERM) -> Record:
        """Stop it as a service manager does; its stop record."""
        assert self.terminate(by) == 0, self._status()
        self.check_lines()
        assert self._checked.rest == b"", "the last line is not complete"
        stop: Record = json.loads(self._last_line)
        assert stop["type"] == "stop"
        return stop

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """Kill it if it runs, and remove what is pinned."""
        if self.is_running:
            self.kill()
        if self.pins is not None:
            command = [sys.executable, "-m", "tracer", "detach", "--pins", str(self.pins)]
            subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)

    def _status(self) -> str:
        return f"exit code {self.process.poll()}, stderr: {self.stderr()[-4000:]}"

    def stderr(self) -> str:
        """All that its processes have written to stderr."""
        return self._stderr.read_text() if self._stderr.exists() else ""

    def check_lines(self) -> None:
        """Check the lines that were not checked before."""
        for line in self._checked.lines():
            check_line(line)
            self._last_line = line

    def records(self) -> list[Record]:
        """All records so far, each line checked."""
        self.check_lines()
        return self._parse()

    def of_type(self, kind: str) -> list[Record]:
        """All records of a type so far; check_lines(), records() and stop() check their lines."""
        return [record for record in self._parse() if record["type"] == kind]

    def _parse(self) -> list[Record]:
        self._records += map(json.loads, self._parsed.lines())
        return self._records

    def count(self, kind: str) -> int:
        """How many records of a type there are, without parsing them."""
        self._counts.update(match[1].decode() for match in map(_TYPE.search, self._counted.lines()) if match)
        return self._counts[kind]

    def wait_for(self, kind: str, seconds: float = TIMEOUT_S) -> Record:
        """Wait for a record of a type; the first one."""
        for _ in attempts(seconds):
            if self.count(kind):
                return self.of_type(kind)[0]
            if self.process.poll() is not None:
                break
        pytest.fail(f"no {kind} record; {self._status()}")

    def wait_for_kills(self, count: int, seconds: float = TIMEOUT_S) -> None:
        """Wait until there are this many oom_kill records."""
        wait_until(f"{count} oom_kill records", lambda: self.count("oom_kill") >= count, seconds)


class SharedDaemon:
    """The daemon that most tests of a session share: started when a test asks for it, and again after stop()."""

    def __init__(self, make: Callable[[], Daemon], on_start: Callable[[Record], None] = lambda _: None) -> None:
        """``make`` returns a daemon whose process is started; ``on_start`` gets its start record."""
        self._make = make
        self._on_start = on_start
        self._daemon: Daemon | None = None
        self._has_failed = False

    def get(self) -> Daemon:
        assert not self._has_failed, "the daemon did not start, see above"
        if self._daemon is not None and not self._daemon.is_running:
            dead, self._daemon = self._daemon, None
            pytest.fail(f"the daemon died: {dead.stderr()[-4000:]}")
        if self._daemon is None:
            self._has_failed = True  # until it is attached: not every test should wait for the timeout
            self._daemon = self._make()
            self._on_start(self._daemon.wait_ready())
            self._has_failed = False
        return self._daemon

    def stop(self) -> None:
        """Stop it if it runs, and check its count of records."""
        daemon, self._daemon = self._daemon, None
        if daemon is None:
            return
        if self._has_failed:
            daemon.kill()
            return
        stop = daemon.stop()
        assert daemon.count("oom_kill") == stop["records"]
        assert stop["lost"] == 0
        assert [record["seq"] for record in daemon.records()] == list(range(len(daemon.records())))
