# SPDX-License-Identifier: Apache-2.0
"""Runs of the tracer, one after the other, with the same pins, state and output."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tracer.accounting.ledger import Ledger
from tracer.base.clock import boottime_ns
from tracer.records.host import read_boot_id

from .daemon import check_line
from .environment import ENGINE, PATIENCE_S, ROOT, START_S, attempts, wait_until
from .oracles import Record, vmstat_oom_kills

BPFFS = Path("/sys/fs/bpf")


class Runs:
    """`output` is what all of them write to; `errors` what they say on stderr."""

    def __init__(self, folder: Path, *, output: Path | None = None) -> None:
        self.output = output or folder / "records.jsonl"
        self.errors = folder / "stderr.txt"
        self.state = folder / "state"
        self.pins = BPFFS / f"oomtrace-test-{os.getpid()}"
        self.process: subprocess.Popen[bytes] | None = None

    def forget_the_past(self) -> None:
        """Let the first run take all kills so far for explained."""
        self.state.mkdir(mode=0o750)
        ledger = Ledger(f"{self.state}/ledger", read_boot_id())
        ledger.settle(vmstat_oom_kills(), boottime_ns())
        ledger.save()

    def options(self) -> list[str]:
        return ["--engine", ENGINE, "--pins", str(self.pins), "--state", str(self.state)]

    def spawn(
        self, *arguments: str, through: Sequence[str] = (), options: Sequence[str] | None = None, root: Path = ROOT
    ) -> "subprocess.Popen[bytes]":
        """A tracer that runs, perhaps not for long; `through` is a command that runs another one in its place.

        `root` is where its source is; `options` take the place of those that all runs have.
        """
        command = [*through, sys.executable, "-m", "tracer", "run", *(self.options() if options is None else options)]
        with self.errors.open("ab") as errors:
            return subprocess.Popen(
                [*command, "--output", f"file:{self.output}", *arguments],
                cwd=root, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors,
            )  # fmt: skip

    def start(
        self, *arguments: str, through: Sequence[str] = (), options: Sequence[str] | None = None, root: Path = ROOT
    ) -> Record:
        """A run that is attached; its start record."""
        assert self.process is None, "the last run goes on"
        before = self.count("start")
        self.process = self.spawn(*arguments, through=through, options=options, root=root)
        for _ in attempts(START_S):
            if self.count("start") > before:
                return self.of_type("start")[-1]
            if self.process.poll() is not None:
                break
        pytest.fail(f"no start record; status {self.process.poll()}, stderr: {self.said()[-4000:]}")

    def kill(self) -> None:
        """End it as nobody can prevent."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def stop(self) -> Record:
        """End it in order; its stop record."""
        assert self.process is not None
        self.process.terminate()
        assert self.process.wait(PATIENCE_S) == 0, self.said()[-4000:]
        self.process = None
        stop = self.records()[-1]
        assert stop["type"] == "stop"
        return stop

    def close(self) -> None:
        """Leave nothing behind, in the kernel neither."""
        if self.process is not None:
            self.kill()
        command = [sys.executable, "-m", "tracer", "detach", "--pins", str(self.pins)]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)

    def said(self) -> str:
        return self.errors.read_text() if self.errors.exists() else ""

    def lines(self) -> list[bytes]:
        """What is in the output, without a line that is just being written."""
        return self.output.read_bytes().split(b"\n")[:-1] if self.output.exists() else []

    def records(self) -> list[Record]:
        """All that was ever written, each line checked."""
        lines = self.lines()
        for line in lines:
            check_line(line)
        return [json.loads(line) for line in lines]

    def count(self, kind: str) -> int:
        """How many records there are of this type; much faster than reading them."""
        return self.output.read_bytes().count(f'"type":"{kind}"'.encode()) if self.output.exists() else 0

    def of_type(self, kind: str) -> list[Record]:
        marker = f'"type":"{kind}"'.encode()
        return [json.loads(line) for line in self.lines() if marker in line]

    def wait_for_kills(self, count: int, seconds: float = PATIENCE_S) -> None:
        """Wait until there are so many records of kills."""
        wait_until(f"{count} records of kills", lambda: self.count("oom_kill") >= count, seconds)
