# SPDX-License-Identifier: Apache-2.0
"""rsyslog takes the records, by each of its ways, and takes them apart."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kernel.environment import ROOT, wait_until
from tests.kernel.oracles import Record
from tests.reliability.runs import Runs

from .conftest import Kill, Start
from .delivery import check_delivered, killed
from .program import Program
from .unpacked import unpacked

CONFIGURATIONS = ROOT / "deploy" / "collectors" / "rsyslog"
PACKAGES = ("rsyslog", "rsyslog-gnutls")
ARRIVES_S = 30.0


class Rsyslog:
    """A configuration of deploy/, with this test's paths and ports in it, and what it has written."""

    def __init__(self, folder: Path, start: Start) -> None:
        self.folder = folder
        self.written = folder / "oom-kills.log"
        self._start = start

    def start(self, configuration: str, places: dict[str, str], ready: Callable[[], object]) -> Program:
        """``places`` are texts of the configuration, and what stands there in this test."""
        text = (CONFIGURATIONS / configuration).read_text()
        for place, here in {"/var/log/oom-kills.log": str(self.written), **places}.items():
            assert place in text, f"{configuration} has no {place}"
            text = text.replace(place, here)
        made = self.folder / configuration
        made.write_text(f'global(workDirectory="{self.folder}" processInternalMessages="on")\n{text}')
        pid = self.folder / "rsyslog.pid"
        command = [*unpacked("rsyslog", *PACKAGES), "sh", "-c", 'rm -f "$1"; exec rsyslogd -n -f "$0" -i "$1"']
        return self._start("rsyslog", [*command, made, pid], lambda: pid.exists() and ready())

    def received(self) -> list[Record]:
        """What has come so far, without a line that is just being written."""
        lines = self.written.read_bytes().split(b"\n")[:-1] if self.written.exists() else []
        return [json.loads(line) for line in lines]


@pytest.fixture
def rsyslog(tmp_path: Path, start_program: Start) -> Rsyslog:
    return Rsyslog(tmp_path, start_program)


def test_file(runs: Runs, rsyslog: Rsyslog, kill: Kill, tmp_path: Path) -> None:
    """imfile follows the file; what is written while rsyslog is dead it reads afterwards."""
    path = tmp_path / "oomtrace.jsonl"
    program = rsyslog.start("oomtrace-file.conf", {"/var/log/oomtrace/oomtrace.jsonl": str(path)}, lambda: True)
    runs.start("--output", f"file:{path}")
    victims = kill(5)
    wait_until("they are there", lambda: victims <= killed(rsyslog.received()), ARRIVES_S)
    program.kill()
    victims |= kill(5)
    program.start()
    runs.stop()
    wait_until("all are there", lambda: rsyslog.received()[-1]["type"] == "stop", ARRIVES_S)
    assert victims <= killed(rsyslog.received())
    check_delivered(runs, rsyslog.received())
