# SPDX-License-Identifier: Apache-2.0
"""sinks/file.py and sinks/rotated.py: files that oomtrace rotates itself."""

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import zstandard

from tracer.errors import TracerError
from tracer.sinks.open import open_sink

from .lines import PATIENCE_S, numbers, record, wait_for

WRITER = """
import sys
from tests.unit.lines import record
from tracer.sinks.open import open_sink
sink = open_sink(sys.argv[1])
for number in range(int(sys.argv[2]), 1_000_000):
    sink.write([record(number, 500)])
    print(number, flush=True)
"""
"""Writes records and says which are delivered, until it is killed."""


def parts(path: Path) -> list[Path]:
    """The older files, the oldest first."""
    return sorted(path.parent.glob(f"{path.name}.*"))


def read(path: Path) -> bytes:
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    if path.suffix == ".zst":
        return zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).read()
    return path.read_bytes()


def everything(path: Path) -> bytes:
    return b"".join(map(read, [*parts(path), path]))


def names(path: Path) -> list[str]:
    return [part.name for part in parts(path)]


def test_by_size(tmp_path: Path) -> None:
    """No file is larger than it may be, and the order of names is that of the records."""
    path = tmp_path / "x"
    sink = open_sink(f"file:{path}?rotate-bytes=2000")
    for number in range(10):
        sink.write([record(number, 900)])
    sink.close()
    assert names(path) == [f"x.{number:06d}" for number in range(1, 5)]
    assert all(part.stat().st_size <= 2000 for part in parts(path))
    assert numbers(everything(path)) == list(range(10))


def test_a_line_that_is_larger(tmp_path: Path) -> None:
    """It has a file to itself, and no file is empty."""
    path = tmp_path / "x"
    sink = open_sink(f"file:{path}?rotate-bytes=1K")
    for number in range(3):
        sink.write([record(number, 1500)])
    sink.close()
    assert [part.stat().st_size for part in [*parts(path), path]] == [1500] * 3


def test_by_time(tmp_path: Path) -> None:
    """By the time of the first record in it, over restarts, too."""
    path = tmp_path / "x"
    line = b'{"schema":1,"type":"start","time":"2020-01-01T00:00:00.000000000Z"}\n'
    path.write_bytes(line)
    for number in range(3):
        sink = open_sink(f"file:{path}?rotate-seconds=1h")
        sink.write([record(number)])
        sink.close()
    assert read(parts(path)[0]) == line
    assert len(parts(path)) == 1
    assert numbers(path.read_bytes()) == [0, 1, 2]


def test_time_that_nobody_told(tmp_path: Path) -> None:
    """A file that does not begin with a record is as old as this run."""
    path = tmp_path / "x"
    path.write_bytes(b'[1]\n{"time":"x"}\n')
    sink = open_sink(f"file:{path}?rotate-seconds=1")
    sink.write([record(0)])
    assert parts(path) == []
    time.sleep(1.1)
    sink.write([record(1)])
    sink.close()
    assert numbers(path.read_bytes()) == [1]


@pytest.mark.parametrize(("compress", "end"), [("gzip", ".gz"), ("zstd", ".zst"), ("none", "")])
def test_kept_and_compressed(compress: str, end: str, tmp_path: Path) -> None:
    """The newest ones are kept; all but the newest of them are compressed, and are the same inside."""
    path = tmp_path / "x"
    sink = open_sink(f"file:{path}?rotate-bytes=2000&keep=3&compress={compress}")
    path.chmod(0o604)
    for number in range(20):
        sink.write([record(number, 900)])
        wanted = [f"x.{part:06d}{end}" for part in range(max(1, number // 2 - 2), number // 2)]
        wait_for(lambda: names(path)[:-1] == wanted)  # noqa: B023
    sink.close()
    assert numbers(everything(path)) == list(range(12, 20))
    assert {part.stat().st_mode & 0o777 for part in [*parts(path), path]} == {0o604}


def test_nothing_kept(tmp_path: Path) -> None:
    path = tmp_path / "x"
    sink = open_sink(f"file:{path}?rotate-bytes=1K&keep=0")
    for number in range(3):
        sink.write([record(number, 900)])
    wait_for(lambda: not parts(path))
    sink.close()


@pytest.mark.parametrize("compress", ["none", "gzip", "zstd"])
def test_recent(compress: str, tmp_path: Path) -> None:
    """What is known to be there already is so across rotations."""
    uri = f"file:{tmp_path}/x?rotate-bytes=2000&compress={compress}"
    sink = open_sink(uri)
    lines = [json.dumps({"type": "oom_kill", "id": str(number)}).encode().ljust(500) + b"\n" for number in range(40)]
    for line in lines:
        sink.write([line])
    wanted = {("oom_kill", str(number)) for number in range(40)}
    assert sink.recent() == wanted
    sink.close()
    again = open_sink(uri)
    assert again.recent() == wanted
    again.close()


def test_leftovers(tmp_path: Path) -> None:
    """What a run left that was killed while it compressed is put in order: half a file goes, of two one stays."""
    path = tmp_path / "x"
    path.write_bytes(record(3))
    (tmp_path / "x.000001").write_bytes(record(0))
    (tmp_path / "x.000001.gz.part").write_bytes(b"half")
    (tmp_path / "x.000002").write_bytes(record(1))
    (tmp_path / "x.000002.gz").write_bytes(gzip.compress(record(1)))
    (tmp_path / "x.000003").write_bytes(record(2))
    others = [tmp_path / name for name in ("x.1", "x.000001.bak", "y.000001", "x.000001x")]
    for other in others:
        other.touch()
    sink = open_sink(f"file:{path}?rotate-bytes=1K&compress=gzip")
    ours = [f"x.{number:06d}{end}" for number, end in ((1, ".gz"), (2, ".gz"), (3, ""))]
    wait_for(lambda: set(names(path)) == {*ours, "x.1", "x.000001.bak", "x.000001x"})
    sink.close()
    assert all(other.exists() for other in others)
    assert [numbers(read(tmp_path / name)) for name in ours] == [[0], [1], [2]]


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """SIGKILL while it rotates, compresses and removes: every record that was delivered is there, and in order."""
    path, chance, delivered = tmp_path / "x", random.Random(7), -1
    uri = f"file:{path}?rotate-bytes=20K&compress=gzip"
    for _ in range(12):
        command = [sys.executable, "-c", WRITER, uri, str(delivered + 1)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
        assert child.stdout is not None
        said = child.stdout.readline()
        time.sleep(chance.uniform(0, 0.1))
        child.kill()
        said += child.communicate()[0]
        delivered = int(said.decode().rpartition("\n")[0].rpartition("\n")[2])
    sink = open_sink(uri)
    wait_for(lambda: all(part.suffix == ".gz" for part in parts(path)[:-1]))
    sink.close()
    found = numbers(everything(path))
    assert sorted(set(found)) == list(range(found[-1] + 1))
    assert found[-1] >= delivered
    assert found == sorted(found)
    assert len(found) - len(set(found)) <= 12, "at most the last one of each run comes again"


def test_killed_while_it_compresses(tmp_path: Path) -> None:
    """The next start begins anew with the file, and nothing of it is lost."""
    path = tmp_path / "x"
    (tmp_path / "x.000001").write_bytes(b"".join(record(number, 1000) for number in range(60_000)))
    (tmp_path / "x.000002").write_bytes(record(60_000))
    whole = (tmp_path / "x.000001").read_bytes()
    uri = f"file:{path}?rotate-bytes=1M&compress=gzip"
    child = subprocess.Popen(
        [sys.executable, "-c", WRITER, uri, "60001"], stdout=subprocess.DEVNULL, cwd=Path(__file__).parents[2]
    )
    unfinished = tmp_path / "x.000001.gz.part"
    wait_for(unfinished.exists)
    child.send_signal(signal.SIGKILL)
    child.wait(PATIENCE_S)
    assert unfinished.exists()
    assert (tmp_path / "x.000001").read_bytes() == whole
    sink = open_sink(uri)
    wait_for(lambda: not (tmp_path / "x.000001").exists())
    sink.close()
    assert read(tmp_path / "x.000001.gz") == whole
    assert not unfinished.exists()


def test_two_compress(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Outputs to the same file do not take away each other's halves: one compresses, and the other finds it done."""
    path = tmp_path / "x"
    wholes = []
    for part in range(1, 7):
        wholes.append(b"".join(record(number, 1000) for number in range(3000 * part, 3000 * part + 3000)))
        (tmp_path / f"x.{part:06d}").write_bytes(wholes[-1])
    sinks = [open_sink(f"file:{path}?rotate-bytes=1M&compress=gzip") for _ in range(4)]
    wait_for(lambda: names(path)[:-1] == [f"x.{part:06d}.gz" for part in range(1, 6)])
    for sink in sinks:
        sink.close()
    assert list(map(read, parts(path))) == wholes
    assert capfd.readouterr().err == ""


def test_rotated_by_others_as_well(tmp_path: Path) -> None:
    """Who renames the file does no harm: the next one is begun under the name."""
    path = tmp_path / "x"
    sink = open_sink(f"file:{path}?rotate-bytes=2000")
    sink.write([record(0, 900)])
    path.rename(tmp_path / "x.1")
    path.touch()
    for number in range(1, 4):
        sink.write([record(number, 900)])
    sink.close()
    assert numbers((tmp_path / "x.1").read_bytes() + read(parts(path)[0]) + path.read_bytes()) == [0, 1, 2, 3]


def test_two_at_once(tmp_path: Path) -> None:
    """Two tracers with the same file: none renames the other's away, and nothing is lost."""
    uri = f"file:{tmp_path}/x?rotate-bytes=3K"
    first, second = open_sink(uri), open_sink(uri)
    for number in range(0, 60, 2):
        first.write([record(number, 900)])
        second.write([record(number + 1, 900)])
    first.close()
    second.close()
    assert numbers(everything(tmp_path / "x")) == list(range(60))


def test_cannot_rename(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It goes on in the file that it has, and says so once."""
    folder = tmp_path / ("d" * 200)
    folder.mkdir()
    path = folder / ("x" * 250)  # a longer name there cannot be
    sink = open_sink(f"file:{path}?rotate-bytes=1K")
    for number in range(5):
        sink.write([record(number, 900)])
    sink.close()
    assert numbers(path.read_bytes()) == list(range(5))
    assert capfd.readouterr().err.count("cannot rotate") == 1


def test_fifo(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x")
    with pytest.raises(TracerError, match="no file, which alone can be rotated"):
        open_sink(f"file:{tmp_path}/x?rotate-bytes=1M")


def test_zstd_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(TracerError, match=r"oomtrace\[zstd\]"):
        open_sink(f"file:{tmp_path}/x?compress=zstd")
