# SPDX-License-Identifier: Apache-2.0
"""systemd-journald takes the records, and journalctl finds them."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.cgroups import Cgroup, Hierarchy
from tests.harness.daemon import Daemon
from tests.harness.environment import require, wait_until
from tests.harness.oracles import Record
from tests.kernel.conftest import Eat
from tracer.delivery.sinks.open import open_uri

from .configuration import CONFIGURATIONS
from .conftest import Kill, Start
from .delivery import check_delivered, killed
from .program import Program, accepts

JOURNALD = Path("/lib/systemd/systemd-journald")
ARRIVES_S = 30.0
OWN_PLACES = """
for place in /run/systemd/journal /run/log/journal /etc/systemd/journald.conf.d /usr/lib/systemd/catalog \
    /var/lib/systemd/catalog; do
    mkdir -p "$0$place" "$place" && mount --bind "$0$place" "$place" || exit 125
done
exec "$@"
"""
"""Bind-mounts the directories that journald and journalctl share to the test's own."""


class Journal:
    """journald, started with sockets as by systemd, and journalctl."""

    def __init__(self, folder: Path, start: Start) -> None:
        self.folder = folder / "j"
        self.socket = self.folder / "run/systemd/journal/socket"
        settings = self.folder / "etc/systemd/journald.conf.d/test.conf"
        settings.parent.mkdir(parents=True)
        settings.write_text((CONFIGURATIONS / "journald/journald.conf").read_text())
        with settings.open("a") as file:
            file.write("Storage=volatile\nReadKMsg=no\nAudit=no\nForwardToSyslog=no\n")
        catalog = self.folder / "usr/lib/systemd/catalog"
        catalog.mkdir(parents=True)
        (catalog / "oomtrace.catalog").write_bytes((CONFIGURATIONS / "journald/oomtrace.catalog").read_bytes())
        self._start = start

    def start(self) -> Program:
        return self._start("journald", self._command(str(JOURNALD)), accepts(self.socket))

    def journalctl(self, *arguments: str) -> str:
        return subprocess.run(
            self._command("journalctl", "--no-pager", "--quiet", *arguments),
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout

    def entries(self, *matches: str) -> list[dict[str, Any]]:
        entries = self.journalctl("--output=json", "--all", "--identifier=oomtrace", *matches)
        return [json.loads(line) for line in entries.splitlines()]

    def records(self) -> list[Record]:
        return [json.loads(entry["OOMTRACE_RECORD"]) for entry in self.entries()]

    def _command(self, *command: str) -> list[str]:
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", OWN_PLACES, str(self.folder), *command]


@pytest.fixture
def journal(tmp_path: Path, start_program: Start) -> Journal:
    require(JOURNALD.exists(), "systemd-journald")
    return Journal(tmp_path, start_program)


@pytest.fixture
def unit(hierarchy: Hierarchy) -> Iterator[Cgroup]:
    """A cgroup named as that of a systemd service."""
    group = hierarchy.make(f"oomtrace-test-{os.getpid()}.slice")
    yield group.child("shop.service", 8)
    group.remove()


def test_journald(daemon: Daemon, journal: Journal, kill: Kill) -> None:
    """All records arrive in order although journald is killed, each field by its name."""
    program = journal.start()
    daemon.start("--output", f"journald:{journal.socket}")
    victims = kill(5)
    wait_until("the kills", lambda: victims <= killed(journal.records()), ARRIVES_S)
    program.kill()
    victims |= kill(5)
    program.start()
    wait_until("all kills", lambda: victims <= killed(journal.records()), ARRIVES_S)
    daemon.stop()
    wait_until("the stop record", lambda: journal.records()[-1]["type"] == "stop", ARRIVES_S)
    check_delivered(daemon, journal.records())
    for entry in journal.entries("OOMTRACE_TYPE=oom_kill"):
        record = json.loads(entry["OOMTRACE_RECORD"])
        assert entry["PRIORITY"] == "3"
        assert entry["MESSAGE"].startswith(f"The kernel killed {record['victim']['comm']} (pid ")
        assert entry["OOMTRACE_VICTIM_RSS_BYTES"] == str(record["victim"]["rss_bytes"])
        assert json.loads(entry["OOMTRACE_VICTIM_CMDLINE"]) == record["victim"]["cmdline"]
        assert entry["OBJECT_COMM"] == record["victim"]["comm"]


def test_what_journalctl_shows(daemon: Daemon, journal: Journal, unit: Cgroup, eat: Eat) -> None:
    """A unit's log has the kill of its process, whose name has a newline, with the catalog's explanation."""
    journal.start()
    daemon.start("--output", f"journald:{journal.socket}")
    name = "a\nMESSAGE=evil"
    victim = eat(16, unit, comm=name, extra=["two\nlines"]).die().pid
    wait_until("the kill", lambda: victim in killed(journal.records()), ARRIVES_S)
    daemon.stop()
    (entry,) = journal.entries("--unit=shop.service", "OOMTRACE_TYPE=oom_kill")
    assert entry["OOMTRACE_VICTIM_PID"] == str(victim)
    assert entry["OOMTRACE_VICTIM_COMM"] == entry["OBJECT_COMM"] == name
    assert json.loads(entry["OOMTRACE_VICTIM_CMDLINE"])[-1] == "two\nlines"
    assert "\n" not in entry["MESSAGE"]
    assert r"a\nMESSAGE=evil" in entry["MESSAGE"]
    journal.journalctl("--update-catalog")
    explained = journal.journalctl("--catalog", "--unit=shop.service")
    assert f"the process {name.splitlines()[0]}" in explained
    assert "Defined-By: oomtrace" in explained


def test_large_entry(journal: Journal) -> None:
    """A record larger than a datagram arrives complete."""
    journal.start()
    record = {"schema": 1, "type": "oom_kill", "x": "y" * 400_000 + "\nz"}
    sink = open_uri(f"journald:{journal.socket}")
    assert sink.write([json.dumps(record).encode() + b"\n", b'{"type":"stop"}\n']) == 2
    sink.close()
    wait_until("both records", lambda: len(journal.records()) == 2, ARRIVES_S)
    assert journal.records() == [record, {"type": "stop"}]
    assert journal.entries()[0]["OOMTRACE_X"] == record["x"]
