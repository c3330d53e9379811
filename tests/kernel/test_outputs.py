# SPDX-License-Identifier: Apache-2.0
"""Outputs on file systems that are full, frozen or owned by another user; making them needs root."""

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.harness.disks import fill, mounted
from tests.harness.environment import IN_VM, not_applicable, require, wait_until
from tests.harness.lines import numbers, numbers_in, record
from tracer.base.errors import TracerError
from tracer.delivery.output import Output
from tracer.delivery.sinks import RemoteSink
from tracer.delivery.sinks.open import open_uri
from tracer.delivery.spool import Spool, sync

SMALL_BYTES = 128 << 10


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 KiB."""
    yield from mounted(tmp_path / "small", "-t", "tmpfs", "-o", f"size={SMALL_BYTES}", "small")


@pytest.fixture
def freezable(tmp_path: Path) -> Iterator[Path]:
    """A file system that can be frozen: write(2) then hangs, as on a dead NFS server."""
    if IN_VM:
        not_applicable("the guest has no mkfs")
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    made = subprocess.run(["mkfs.ext4", "-q", str(image)], capture_output=True)
    require(made.returncode == 0 and Path("/dev/loop-control").exists(), "mkfs.ext4 and loop devices")
    yield from mounted(tmp_path / "freezable", "-o", "loop", str(image))


def put(output: Output, first: int, end: int) -> None:
    for number in range(first, end):
        output.put(record(number, 1000))


def test_full_disk(small: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Records wait in the spool, on another disk, until there is room; the file has each once; two warnings."""
    path, uri = small / "x", f"file:{small}/x"
    output = Output(open_uri(uri), Spool(f"{tmp_path}/state", uri))
    put(output, 0, 10)
    wait_until("ten are written", lambda: output.acknowledged == 10)
    filler = fill(small)
    put(output, 10, 60)
    wait_until("all are acknowledged", lambda: output.acknowledged == 60)
    assert path.stat().st_size < 60_000
    filler.unlink()
    output.reopen()
    wait_until("the file has them", lambda: path.stat().st_size == 60_000)
    output.close(1)
    assert numbers_in(path) == list(range(60))
    first, last = capfd.readouterr().err.splitlines()
    assert "No space left on device; records are kept on disk, in " in first
    assert last.startswith(f"oomtrace: {uri} works again: ")


def test_full_disk_for_all(small: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """When the spool's disk is full, too, lines stay in memory, unacknowledged, until there is room."""
    path, uri = small / "x", f"file:{small}/x"
    output = Output(open_uri(uri), Spool(f"{small}/state", uri))
    put(output, 0, 10)
    wait_until("ten are written", lambda: output.acknowledged == 10)
    filler = fill(small)
    put(output, 10, 60)
    time.sleep(1.5)
    acknowledged = output.acknowledged
    assert acknowledged < 60
    for segment in small.glob("state/*/*.ndjson"):
        numbers(segment.read_bytes())  # complete lines only
    filler.unlink()
    output.reopen()
    wait_until("all are acknowledged", lambda: output.acknowledged == 60)
    wait_until("the file has them", lambda: path.stat().st_size == 60_000)
    output.close(1)
    assert (output.dropped, output.damaged) == (0, 0)
    assert numbers_in(path) == list(range(60))


def test_restart_on_a_full_disk(small: Path, tmp_path: Path) -> None:
    """Lines that one daemon could not write are written by the next, in order, a partial line included."""
    path, uri = small / "x", f"file:{small}/x"
    output = Output(open_uri(uri), Spool(f"{tmp_path}/state", uri))
    put(output, 0, 200)
    wait_until("all are acknowledged", lambda: output.acknowledged == 200)
    output.close(0.2)
    assert not path.read_bytes().endswith(b"\n")
    subprocess.run(["mount", "-o", f"remount,size={4 * SMALL_BYTES}", str(small)], check=True)
    output = Output(open_uri(uri), Spool(f"{tmp_path}/state", uri))
    put(output, 200, 201)
    output.close(5)
    assert numbers_in(path) == list(range(201))


def test_frozen_disk(freezable: Path, tmp_path: Path) -> None:
    """A write(2) that hangs blocks its own thread only; its lines are in the file once or twice."""
    path, uri = freezable / "x", f"file:{freezable}/x"
    other = Output(open_uri(f"file:{tmp_path}/other"), None)
    output = Output(open_uri(uri), Spool(f"{tmp_path}/state", uri))
    put(output, 0, 10)
    wait_until("ten are written", lambda: output.acknowledged == 10)
    subprocess.run(["fsfreeze", "--freeze", str(freezable)], check=True)
    try:
        slowest_s = 0.0
        for number in range(10, 100):
            before = time.monotonic()
            put(output, number, number + 1)
            put(other, number - 10, number - 9)
            slowest_s = max(slowest_s, time.monotonic() - before)
            time.sleep(0.02)
        assert slowest_s < 0.3
        assert output.acknowledged >= 99
        wait_until("the other has all", lambda: other.acknowledged == 90)
        before = time.monotonic()
        output.close(0.2)
        assert time.monotonic() - before < 5
        assert (output.acknowledged, output.dropped) == (100, 0)
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", str(freezable)], check=True)
    wait_until("its thread has ended", lambda: not output._thread.is_alive())
    later = Output(open_uri(uri), Spool(f"{tmp_path}/state", uri))
    later.close(5)
    other.close(1)
    found = numbers_in(path)
    assert found in ([*range(100)], [*range(11), *range(10, 100)])


class Taker(RemoteSink):
    """Takes all lines, or none."""

    uri = "http://taker"
    batch_lines = 10

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.takes = False

    def write(self, lines: Sequence[bytes]) -> int:
        if not self.takes:
            raise OSError(111, "Connection refused")
        self.taken += lines
        return len(lines)

    def close(self) -> None:
        pass


def test_drained_from_a_frozen_disk(freezable: Path) -> None:
    """While the spool's disk hangs, new lines are delivered; nothing in the spool is lost."""
    sink = Taker()
    output = Output(sink, Spool(str(freezable), sink.uri))
    put(output, 0, 2500)  # more than a segment, which is synced
    wait_until("all are spooled", lambda: output.acknowledged == 2500)
    subprocess.run(["fsfreeze", "--freeze", str(freezable)], check=True)
    try:
        sink.takes = True
        output.reopen()
        wait_until("the spool drains", lambda: sink.taken)
        time.sleep(0.5)
        for number in range(2500, 2520):
            put(output, number, number + 1)
            time.sleep(0.05)
        wait_until("the new lines", lambda: set(numbers(b"".join(sink.taken))) >= set(range(2500, 2520)), 5)
        began_s = time.monotonic()
        output.close(1)
        assert time.monotonic() - began_s < 5
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", str(freezable)], check=True)
    wait_until("the spool is closed", lambda: output._lines._disk.wait_idle())
    later = Output(sink, Spool(str(freezable), sink.uri))
    wait_until("the rest of the spool", lambda: later.waiting == (0, 0))
    later.close(1)
    assert sorted(set(numbers(b"".join(sink.taken)))) == list(range(2520))


@pytest.mark.parametrize("passes", [True, False])
def test_unreadable_disk(freezable: Path, tmp_path: Path, passes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a disk returns EIO nothing is lost; lines that stay unreadable are counted."""
    spool = Spool(str(freezable), "stdout")
    for number in range(3000):
        assert spool.append(record(number, 1000))
    sync(spool.take_complete())
    subprocess.run(["sync", "--file-system", str(freezable)], check=True)
    last = sorted(Path(spool.path).glob("*.ndjson"))[-1]
    first_lost = numbers(last.read_bytes())[0]
    descriptor = os.open(last, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    image = tmp_path / "image"
    content = image.read_bytes()
    os.truncate(image, content.index(record(first_lost, 1000)))  # reads beyond its end fail
    delivered: list[int] = []

    def deliver() -> None:
        while lines := spool.peek(10):
            delivered.extend(numbers(b"".join(lines)))
            spool.advance(len(lines))

    with pytest.raises(OSError, match="Input/output error"):
        deliver()
    assert delivered == list(range(first_lost))
    if passes:
        with image.open("r+b") as file:
            file.write(content)
    else:
        monkeypatch.setattr("tracer.delivery.spool_segment.UNREADABLE_S", 0.0)
    deliver()
    assert delivered == list(range(3000 if passes else first_lost))
    assert spool.damaged == 3000 - len(delivered)
    assert spool.is_empty
    spool.close()


def test_folder_of_another_user(tmp_path: Path) -> None:
    """A state directory owned by another user is refused."""
    os.chown(tmp_path, 0, 0)
    spool = Spool(f"{tmp_path}/state", "stdout")
    spool.close()
    for folder in (spool.path, f"{tmp_path}/state"):
        os.chown(folder, 65534, 65534)
        with pytest.raises(TracerError, match=f"{folder} belongs to another user: .*--state"):
            Spool(f"{tmp_path}/state", "stdout")
        os.chown(folder, 0, 0)
    Spool(f"{tmp_path}/state", "stdout").close()
