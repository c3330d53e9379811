# SPDX-License-Identifier: Apache-2.0
"""A command reports which runtime files it could not read, so an answer with fewer names does not look complete."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.harness.environment import require
from tests.harness.hanging import dead_server
from tests.unit.commands.test_cli import oomtrace
from tests.unit.why.test_verdict import ID, line_of, sigkill
from tracer.identity.runtimes import Runtimes
from tracer.linux.privileges import reader_capabilities
from tracer.linux.safe_files import UnreadableError
from tracer.reading import processes
from tracer.reading.directory_reader import READ_S
from tracer.reading.sources import Reading
from tracer.top.snapshot import Snapshots, snapshot_json

MISSING = "names of Docker's containers may be missing"


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[Path]:
    """Docker's directory, which accepts requests and never answers."""
    require(os.geteuid() == 0, "root, to mount it")
    with dead_server(tmp_path / "docker") as asked:
        yield tmp_path / "docker"
        assert asked.is_set()


@pytest.mark.parametrize("arguments", [("why", ID), ("why", "no-such-name"), ("resolve", f"/docker/{ID}")])
def test_hanging_folder(arguments: tuple[str, ...], hanging: Path, tmp_path: Path) -> None:
    """Once on stderr, for any answer, and in the output of --json."""
    (tmp_path / "records.json").write_bytes(line_of(sigkill()) + b"\n")
    of_why = ["--records", str(tmp_path / "records.json")] if arguments[0] == "why" else []
    finished = oomtrace(*arguments, *of_why, "--json", "--runtime-root", f"docker={hanging}", stderr=-1)
    expected = f"{hanging}: no answer within {READ_S:g} s; {MISSING}"
    assert [line for line in finished.stderr.splitlines() if MISSING in line] == [f"oomtrace: {expected}"]
    if "no-such-name" in arguments:
        assert "nothing is known of 'no-such-name'" in finished.stderr
    else:
        assert json.loads(finished.stdout)["unread"] == [expected]


def test_hanging_folder_of_top(hanging: Path) -> None:
    """For as long as names may be missing."""
    own = processes.read_process(os.getpid())
    assert own is not None
    shown = [own._replace(cgroup=f"/docker/{ID}")]
    with closing(Reading(reader_capabilities(network=False))) as reading:
        reading.begin([("docker", str(hanging))])
        top = Snapshots(reading.runtimes, lambda: shown)
        host, entries = top.take()
        expected = [f"{hanging}: no answer within {READ_S:g} s; {MISSING}"]
        assert (top.unread, snapshot_json(host, entries, top.unread)["unread"]) == (expected, expected)
        top.take()
        assert top.unread == [f"{hanging}: no answer; {MISSING}"]
        shown[0] = own._replace(cgroup="/system.slice/mail.service")
        top.take()
        assert top.unread == []


def test_damaged_file(tmp_path: Path) -> None:
    """The same for a file that exists and cannot be read; one message per directory."""
    file = tmp_path / "containers" / ID / "config.v2.json"
    file.parent.mkdir(parents=True)
    file.write_text("{")
    command = ("resolve", f"/docker/{ID}", "--runtime-root", f"docker={tmp_path}")
    finished = oomtrace(*command, stderr=-1)
    assert finished.returncode == 0
    (line,) = finished.stderr.splitlines()
    assert line.startswith(f"oomtrace: {file}: ")
    assert line.endswith(MISSING)
    file.write_text('{"Name": "/cart"}')
    finished = oomtrace(*command, stderr=-1)
    assert ("name cart" in finished.stdout, finished.stderr) == (True, "")


def test_each_folder_is_named_once() -> None:
    """For any number of containers; the message names those whose names may be missing."""

    def hangs(_question: Callable[[str, str], object], folder: str, _subject: str) -> object:
        raise UnreadableError(f"{folder}: no answer")

    runtimes = Runtimes(read=hangs)  # type: ignore[arg-type]
    for container_id in (ID, "b" * 64):
        runtimes.fetch_metadata(container_id, None, "6a4ce4a0-ba47-11ea-b2a7-0cc47ac5979e")
    assert list(runtimes.list_containers()) == []
    assert runtimes.unread["/var/lib/docker"] == f"/var/lib/docker: no answer; {MISSING}"
    assert runtimes.unread["/var/log/pods"] == "/var/log/pods: no answer; names of pods may be missing"
    assert len(runtimes.unread) < runtimes.errors
