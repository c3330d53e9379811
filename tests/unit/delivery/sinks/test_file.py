# SPDX-License-Identifier: Apache-2.0
"""sinks/file.py: whole lines in the file at the path, however it is rotated."""

import os
import resource
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness.lines import TIMEOUT_S, numbers, numbers_in, record, settle, wait_for
from tracer.delivery.output import Output
from tracer.delivery.sinks.open import open_uri
from tracer.delivery.spool import Spool

OURS = record(1)


@contextmanager
def longest_file(size: int) -> Iterator[None]:
    """A limit of the file size, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", b""),
        (OURS, OURS),
        (OURS + OURS[:40], OURS),
        (OURS + OURS[:4], OURS),
        (OURS[:-1], b""),
        (OURS + b"somebody", OURS + b"somebody\n"),
        (b"somebody", b"somebody\n"),
        (OURS + b"x" * (5 << 20) + OURS[:40], OURS + b"x" * (5 << 20) + OURS[:40] + b"\n"),
        (b"{", b""),
    ],
)
def test_torn_last_line(before: bytes, after: bytes, tmp_path: Path) -> None:
    """A torn line of an earlier run is removed, because its record is delivered again; another's line is ended."""
    (tmp_path / "x").write_bytes(before)
    sink = open_uri(f"file:{tmp_path}/x")
    sink.write([record(2)])
    sink.close()
    assert (tmp_path / "x").read_bytes() == after + record(2)


def test_half_written_line_is_completed(tmp_path: Path) -> None:
    """Once there is room, the rest of the line follows."""
    sink = open_uri(f"file:{tmp_path}/x")
    sink.write([record(0)])
    with longest_file(len(record(0)) + 20):
        for _ in range(3):
            with pytest.raises(OSError, match="File too large"):
                sink.write([record(1)])
    sink.write([record(1)])
    sink.write([record(2)])
    sink.close()
    assert numbers_in(tmp_path / "x") == [0, 1, 2]


def test_half_written_line_before_another(tmp_path: Path) -> None:
    """A partial line is completed before the next one."""
    sink = open_uri(f"file:{tmp_path}/x")
    with longest_file(20), pytest.raises(OSError, match="File too large"):
        sink.write([record(1)])
    sink.write([record(2)])
    sink.close()
    assert numbers_in(tmp_path / "x") == [1, 2]


@pytest.mark.parametrize(
    ("meanwhile", "found"), [(b"", [1, 2]), (OURS[:20] + b"somebody", [1, 2]), (OURS[:20] + b"somebody\n", [1, 2])]
)
def test_half_written_line_of_a_file_that_changed(meanwhile: bytes, found: list[int], tmp_path: Path) -> None:
    """After a truncation (copytruncate) or another's write, the whole line is written again."""
    sink = open_uri(f"file:{tmp_path}/x")
    with longest_file(20), pytest.raises(OSError, match="File too large"):
        sink.write([record(1)])
    (tmp_path / "x").write_bytes(meanwhile)
    sink.write([record(1)])
    sink.write([record(2)])
    sink.close()
    data = (tmp_path / "x").read_bytes()
    assert data.startswith(meanwhile)
    assert numbers(data[len(meanwhile) :].lstrip(b"\n")) == found


def test_removed(tmp_path: Path) -> None:
    """A removed file is created again before the next line."""
    sink = open_uri(f"file:{tmp_path}/x")
    sink.write([record(0)])
    (tmp_path / "x").unlink()
    sink.write([record(1)])
    sink.close()
    assert numbers_in(tmp_path / "x") == [1]


def test_replaced(tmp_path: Path) -> None:
    """Lines go to the file that is now at the path."""
    sink = open_uri(f"file:{tmp_path}/x")
    sink.write([record(0)])
    (tmp_path / "y").write_bytes(b"")
    (tmp_path / "y").rename(tmp_path / "x")
    sink.write([record(1)])
    sink.close()
    assert numbers_in(tmp_path / "x") == [1]


def test_cannot_be_made_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A file that was moved with its directory remains in use, which is reported once."""
    (tmp_path / "a").mkdir()
    sink = open_uri(f"file:{tmp_path}/a/x")
    (tmp_path / "a").rename(tmp_path / "b")
    for number in range(3):
        sink.write([record(number)])
    assert numbers_in(tmp_path / "b" / "x") == [0, 1, 2]
    assert capfd.readouterr().err.count("its directory does not exist") == 1
    (tmp_path / "a").mkdir()
    sink.write([record(3)])
    sink.close()
    assert numbers_in(tmp_path / "a" / "x") == [3]


def test_removed_with_its_folder(tmp_path: Path) -> None:
    """Lines in a removed file are lost: writes fail until the directory exists again."""
    (tmp_path / "a").mkdir()
    sink = open_uri(f"file:{tmp_path}/a/x")
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(OSError, match=r"the file was removed, and .* directory does not exist"):
        sink.write([record(0)])
    (tmp_path / "a").mkdir()
    sink.write([record(0)])
    sink.close()
    assert numbers_in(tmp_path / "a" / "x") == [0]


def test_link_in_its_place(tmp_path: Path) -> None:
    """Root does not follow another user's link."""
    (tmp_path / "target").touch()
    sink = open_uri(f"file:{tmp_path}/x")
    (tmp_path / "x").rename(tmp_path / "old")
    (tmp_path / "x").symlink_to("target")
    sink.write([record(0)])
    sink.close()
    assert (numbers_in(tmp_path / "target"), numbers_in(tmp_path / "old")) == ([], [0])


def test_recent(tmp_path: Path) -> None:
    """The end of a large file is searched."""
    sink = open_uri(f"file:{tmp_path}/x")
    for number in range(5000):
        sink.write([record(number, 1024)])
    found = {int(name.removeprefix("k-")) for kind, name in sink.recent() if kind == "oom_kill"}
    sink.close()
    assert found == set(range(5000 - 4096, 5000))


def test_recent_while_it_is_opened_anew(tmp_path: Path) -> None:
    """recent() in one thread does not depend on the output's own thread."""
    sink, ends = open_uri(f"file:{tmp_path}/x"), threading.Event()
    sink.write([record(0)])

    def reopen() -> None:
        while not ends.is_set():
            sink.reopen()

    thread = threading.Thread(target=reopen)
    thread.start()
    try:
        assert all(sink.recent() == {("oom_kill", "k-0")} for _ in range(10_000))
    finally:
        ends.set()
        thread.join()
        sink.close()


LOGROTATE = """
{path} {{
    {how}
    rotate 9
    size 1
}}
"""


@pytest.mark.parametrize("how", ["create", "create with a signal", "copytruncate", "nocreate"])
def test_logrotate(how: str, tmp_path: Path) -> None:
    """With logrotate itself, while lines are written: with create, each line is in one of the files, in order."""
    logrotate = shutil.which("logrotate", path=os.environ["PATH"] + ":/usr/sbin")
    assert logrotate, "no logrotate: make packages, or apt install logrotate"
    path, config, uri = tmp_path / "log" / "x", tmp_path / "conf", f"file:{tmp_path}/log/x"
    path.parent.mkdir(mode=0o755)
    (tmp_path / "state").mkdir()
    config.write_text(LOGROTATE.format(path=path, how=how.split()[0]))
    config.chmod(0o644)
    output = Output(open_uri(uri), Spool(f"{tmp_path}/state", uri))
    count = 0
    for _ in range(5):
        wait_for(path.exists)
        until_s = time.monotonic() + 0.05
        while time.monotonic() < until_s:
            output.put(record(count, 200))
            count += 1
            time.sleep(0.0002)
        if how == "copytruncate":  # it loses what is written between copy and truncate, as its manual says
            settle(output, count)
            subprocess.run([logrotate, "-s", tmp_path / "status", config], check=True, timeout=TIMEOUT_S)
            continue
        with subprocess.Popen([logrotate, "-s", tmp_path / "status", config]) as process:
            while process.poll() is None:
                output.put(record(count, 200))
                count += 1
                time.sleep(0.0002)
            assert process.returncode == 0
        if "signal" in how:
            output.reopen()
    output.put(record(count, 200))
    output.close(5)
    assert output.acknowledged == count + 1
    files = sorted(path.parent.iterdir(), key=lambda file: -int(file.suffix.removeprefix(".") or 0))
    assert len(files) == 6
    assert [number for file in files for number in numbers_in(file)] == list(range(count + 1))
