# SPDX-License-Identifier: Apache-2.0
"""The tracer as its users run it: a process that writes JSON lines, read back and checked against the schema."""

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from jsonschema.validators import validator_for

from tracer.records.json_schema import json_schema

from .eater import Eater
from .environment import ENGINE, PATIENCE_S, ROOT, START_S, attempts
from .oracles import Record

LONGEST_LINE = 8192
"""Log shippers cut longer lines, and what is left of one is no JSON."""

_schema = json_schema()
_validator = validator_for(_schema)(_schema)


def check_line(line: bytes) -> None:
    """Whatever the names in it, a line is JSON without control characters that fits the schema."""
    assert len(line) < LONGEST_LINE
    assert min(line) >= 0x20, "control characters in a line"
    _validator.validate(json.loads(line))


class Daemon:
    """A running tracer, and the records in the first of its output files (if it has a configuration, that names it)."""

    def __init__(
        self,
        folder: Path,
        *outputs: Path,
        engine: str = ENGINE,
        arguments: Sequence[str] = (),
        root: Path = ROOT,
        by: Sequence[str] = (),
    ) -> None:
        """``by`` is a command that becomes the one behind it."""
        self.outputs = outputs or (folder / "records.json",)
        # Started before the tracer: what it executed can only be known from /proc.
        self.early_eater = Eater(30, gate=True, life=3600, comm="early", extra=["early", "bird"])
        self.early_eater.start()
        self.errors = folder / "stderr.txt"
        # Most tests want a tracer that knows nothing of those before.
        keep = ["--state", f"{self.outputs[0]}.state", "--no-backfill"] if "--pins" in arguments else ["--no-keep"]
        command = [*by, sys.executable, "-m", "tracer", "run", "--engine", engine, *keep, *arguments]
        for output in () if "--config" in arguments else self.outputs:
            command += ["--output", f"file:{output}"]
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(command, cwd=root, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors)
        self.records: list[Record] = []
        self._rest = b""
        self._offset = self.outputs[0].stat().st_size if self.outputs[0].exists() else 0

    def poll(self) -> list[Record]:
        """Read what is new; all records so far."""
        if self.outputs[0].exists():
            with self.outputs[0].open("rb") as file:
                file.seek(self._offset)
                new = file.read()
            self._offset += len(new)
            *lines, self._rest = (self._rest + new).split(b"\n")
            self.records += map(json.loads, lines)
            for line in lines:
                check_line(line)
        return self.records

    def of_type(self, kind: str) -> list[Record]:
        return [record for record in self.poll() if record["type"] == kind]

    def wait_for(self, kind: str, seconds: float = PATIENCE_S) -> Record:
        """The first record of this type, as soon as there is one."""
        for _ in attempts(seconds):
            if found := self.of_type(kind):
                return found[0]
            if self.process.poll() is not None:
                break
        pytest.fail(f"no {kind} record; status {self.process.poll()}, stderr: {self.errors.read_text()[-4000:]}")

    def start(self) -> Record:
        """Wait until it is attached; the start record."""
        return self.wait_for("start", START_S)

    def stop(self, by: signal.Signals = signal.SIGTERM) -> Record:
        """End it in order, as a service manager does; the stop record."""
        self.process.send_signal(by)
        self.end()
        assert self.process.returncode == 0, self.errors.read_text()[-4000:]
        assert self._rest == b""
        stop = self.poll()[-1]
        assert stop["type"] == "stop"
        return stop

    def end(self) -> None:
        """Wait for its end, or bring it about."""
        try:
            self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            pytest.fail(f"the tracer did not stop; stderr: {self.errors.read_text()[-4000:]}")
        finally:
            self.early_eater.close()
