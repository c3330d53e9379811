# SPDX-License-Identifier: Apache-2.0
"""sinks/file.py and sinks/rotated.py: files that oomtrace rotates itself."""

import fcntl
import gzip
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import zstandard

from tests.harness import ROOT
from tests.harness.environment import require
from tests.harness.events import incident, victim
from tests.harness.lines import TIMEOUT_S, numbers, record, wait_for
from tests.harness.records import complete
from tracer.base.errors import TracerError
from tracer.delivery.sinks import rotated
from tracer.delivery.sinks.open import open_uri
from tracer.encoding import encoder as lines
from tracer.encoding.styles import STYLES
from tracer.pipeline.incidents import JoinedKill

WRITER = """
import sys
from tests.harness.lines import record
from tracer.delivery.sinks.open import open_uri
sink = open_uri(sys.argv[1])
for number in range(int(sys.argv[2]), 1_000_000):
    sink.write([record(number, 500)])
    print(number, flush=True)
"""
"""Writes records and reports which are delivered, until it is killed."""
DAEMON = """
import sys
from tests.harness.lines import record
from tracer.delivery.sinks.open import open_uri
from tracer.linux import privileges
sink = open_uri(sys.argv[1])
privileges.drop_capabilities()
for number in range(6):
    sink.write([record(number, 900)])
sink.close()
"""
"""Writes to a file that it opened before it dropped its privileges, as the daemon does."""


def parts(path: Path) -> list[Path]:
    """The rotated files, the oldest first."""
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
    """No file exceeds the limit, and the order of names is that of the records."""
    path = tmp_path / "x"
    sink = open_uri(f"file:{path}?rotate-bytes=2000")
    for number in range(10):
        sink.write([record(number, 900)])
    sink.close()
    assert names(path) == [f"x.{number:06d}" for number in range(1, 5)]
    assert all(part.stat().st_size <= 2000 for part in parts(path))
    assert numbers(everything(path)) == list(range(10))


def test_a_line_that_is_larger(tmp_path: Path) -> None:
    """A line larger than the limit has a file to itself, and no file is empty."""
    path = tmp_path / "x"
    sink = open_uri(f"file:{path}?rotate-bytes=1K")
    for number in range(3):
        sink.write([record(number, 1500)])
    sink.close()
    assert [part.stat().st_size for part in [*parts(path), path]] == [1500] * 3


def test_by_time(tmp_path: Path) -> None:
    """Rotation by the time of the first record in the file, also across restarts."""
    path = tmp_path / "x"
    line = b'{"schema":1,"type":"start","time":"2020-01-01T00:00:00.000000000Z"}\n'
    path.write_bytes(line)
    for number in range(3):
        sink = open_uri(f"file:{path}?rotate-seconds=1h")
        sink.write([record(number)])
        sink.close()
    assert read(parts(path)[0]) == line
    assert len(parts(path)) == 1
    assert numbers(path.read_bytes()) == [0, 1, 2]


@pytest.mark.parametrize("style", STYLES)
def test_by_time_in_every_style(style: str, tmp_path: Path) -> None:
    """The time is found in every style."""
    path = tmp_path / "x"
    made = {**complete(JoinedKill(victim(), incident(), 1, (), (), ())), "time": "2020-01-01T00:00:00.000000000Z"}
    path.write_bytes(lines.encode(made, style=STYLES[style]))  # type: ignore[arg-type]
    sink = open_uri(f"file:{path}?rotate-seconds=1h&style={style}")
    sink.write([record(0)])
    sink.close()
    assert (len(parts(path)), numbers(path.read_bytes())) == (1, [0])


def test_time_that_nobody_told(tmp_path: Path) -> None:
    """A file that does not begin with a record is as old as this run."""
    path = tmp_path / "x"
    for seconds in (1, 4, 16):
        path.write_bytes(b'[1]\n{"time":"x"}\n')
        begun_s = time.time()
        sink = open_uri(f"file:{path}?rotate-seconds={seconds}")
        sink.write([record(0)])
        older = parts(path)
        if time.time() - begun_s < seconds:  # else the machine was busy with something else
            break
        sink.close()
        for part in older:
            part.unlink()
    assert older == []
    time.sleep(seconds + 0.1)
    sink.write([record(1)])
    sink.close()
    assert numbers(path.read_bytes()) == [1]


@pytest.mark.parametrize(("compress", "end"), [("gzip", ".gz"), ("zstd", ".zst"), ("none", "")])
def test_kept_and_compressed(compress: str, end: str, tmp_path: Path) -> None:
    """The newest files are kept; all but the newest are compressed, with the same content."""
    path = tmp_path / "x"
    sink = open_uri(f"file:{path}?rotate-bytes=2000&keep=3&compress={compress}")
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
    sink = open_uri(f"file:{path}?rotate-bytes=1K&keep=0")
    for number in range(3):
        sink.write([record(number, 900)])
    wait_for(lambda: not parts(path))
    sink.close()


@pytest.mark.parametrize("compress", ["none", "gzip", "zstd"])
def test_recent(compress: str, tmp_path: Path) -> None:
    """Records are recognized across rotations."""
    uri = f"file:{tmp_path}/x?rotate-bytes=2000&compress={compress}"
    sink = open_uri(uri)
    lines = [json.dumps({"type": "oom_kill", "id": str(number)}).encode().ljust(500) + b"\n" for number in range(40)]
    for line in lines:
        sink.write([line])
    wanted = {("oom_kill", str(number)) for number in range(40)}
    assert sink.recent() == wanted
    sink.close()
    again = open_uri(uri)
    assert again.recent() == wanted
    again.close()


def test_leftovers(tmp_path: Path) -> None:
    """After a kill during compression, the unfinished file is removed, and one of two copies."""
    path = tmp_path / "x"
    path.write_bytes(record(3))
    (tmp_path / "x.000001").write_bytes(record(0))
    (tmp_path / "x.000001.gz.part").write_bytes(b"half")
    (tmp_path / "x.000002").write_bytes(record(1))
    (tmp_path / "x.000002.gz").write_bytes(gzip.compress(record(1)))
    (tmp_path / "x.000003").write_bytes(record(2))
    foreign = {"x.1", "x.000001.bak", "x.000001x", "x.20261126", "x.0000001", "x.1764115200.gz"}  # logrotate's, too
    others = [tmp_path / name for name in (*foreign, "y.000001")]
    for other in others:
        other.touch()
    sink = open_uri(f"file:{path}?rotate-bytes=1K&compress=gzip&keep=3")
    sink.write([record(4)])
    ours = [f"x.{number:06d}{end}" for number, end in ((1, ".gz"), (2, ".gz"), (3, ""))]
    wait_for(lambda: set(names(path)) == {*ours, *foreign})
    sink.close()
    assert all(other.exists() for other in others)
    assert [numbers(read(tmp_path / name)) for name in ours] == [[0], [1], [2]]


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """SIGKILL during rotation, compression and removal: every delivered record is there, in order."""
    path, chance, delivered = tmp_path / "x", random.Random(7), -1
    uri = f"file:{path}?rotate-bytes=20K&compress=gzip"
    for _ in range(12):
        command = [sys.executable, "-c", WRITER, uri, str(delivered + 1)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
        assert child.stdout is not None
        said = child.stdout.readline()
        time.sleep(chance.uniform(0, 0.1))
        child.kill()
        said += child.communicate()[0]
        delivered = int(said.decode().rpartition("\n")[0].rpartition("\n")[2])
    sink = open_uri(uri)
    sink.write([record(delivered + 1, 500)])
    wait_for(lambda: all(part.suffix == ".gz" for part in parts(path)[:-1]))
    sink.close()
    found = numbers(everything(path))
    assert sorted(set(found)) == list(range(found[-1] + 1))
    assert found[-1] >= delivered
    assert found == sorted(found)
    assert len(found) - len(set(found)) <= 12, "at most the last one of each run comes again"


def test_killed_while_it_compresses(tmp_path: Path) -> None:
    """The next start compresses the file again, and nothing of it is lost."""
    path = tmp_path / "x"
    (tmp_path / "x.000001").write_bytes(b"".join(record(number, 1000) for number in range(60_000)))
    (tmp_path / "x.000002").write_bytes(record(60_000))
    whole = (tmp_path / "x.000001").read_bytes()
    uri = f"file:{path}?rotate-bytes=1M&compress=gzip"
    command = [sys.executable, "-c", WRITER, uri, "60001"]
    unfinished, finished = tmp_path / "x.000001.gz.part", tmp_path / "x.000001.gz"
    for _ in range(5):
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=ROOT)
        wait_for(lambda: unfinished.exists() or finished.exists())
        child.send_signal(signal.SIGKILL)
        child.wait(TIMEOUT_S)
        if unfinished.exists():
            break
        finished.unlink()  # it was quicker than this test
        (tmp_path / "x.000001").write_bytes(whole)
    assert unfinished.exists()
    assert (tmp_path / "x.000001").read_bytes() == whole
    sink = open_uri(uri)
    sink.write([record(0)])
    wait_for(lambda: not (tmp_path / "x.000001").exists())
    sink.close()
    assert read(tmp_path / "x.000001.gz") == whole
    assert not unfinished.exists()


def test_two_compress(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Outputs to the same file do not remove each other's unfinished files: one compresses, the other finds it done."""
    path = tmp_path / "x"
    wholes = []
    for part in range(1, 7):
        wholes.append(b"".join(record(number, 1000) for number in range(3000 * part, 3000 * part + 3000)))
        (tmp_path / f"x.{part:06d}").write_bytes(wholes[-1])
    sinks = [open_uri(f"file:{path}?rotate-bytes=1M&compress=gzip") for _ in range(4)]
    for sink in sinks:
        sink.write([record(0)])
    wait_for(lambda: names(path)[:-1] == [f"x.{part:06d}.gz" for part in range(1, 6)])
    for sink in sinks:
        sink.close()
    assert list(map(read, parts(path))) == wholes
    assert capfd.readouterr().err == ""


def test_rotated_by_others_as_well(tmp_path: Path) -> None:
    """A rename by another program does no harm: a new file is created at the path."""
    path = tmp_path / "x"
    sink = open_uri(f"file:{path}?rotate-bytes=2000")
    sink.write([record(0, 900)])
    path.rename(tmp_path / "x.1")
    path.touch()
    for number in range(1, 4):
        sink.write([record(number, 900)])
    sink.close()
    assert numbers((tmp_path / "x.1").read_bytes() + read(parts(path)[0]) + path.read_bytes()) == [0, 1, 2, 3]


def test_two_at_once(tmp_path: Path) -> None:
    """Two processes with the same file: neither renames the other's away, and nothing is lost."""
    uri = f"file:{tmp_path}/x?rotate-bytes=3K"
    first, second = open_uri(uri), open_uri(uri)
    for number in range(0, 60, 2):
        first.write([record(number, 900)])
        second.write([record(number + 1, 900)])
    first.close()
    second.close()
    assert numbers(everything(tmp_path / "x")) == list(range(60))


def test_cannot_rename(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The current file remains in use, and this is reported once."""
    folder = tmp_path / ("d" * 200)
    folder.mkdir()
    path = folder / ("x" * 250)  # a longer name there cannot be
    sink = open_uri(f"file:{path}?rotate-bytes=1K")
    for number in range(5):
        sink.write([record(number, 900)])
    sink.close()
    assert numbers(path.read_bytes()) == list(range(5))
    assert capfd.readouterr().err.count("cannot rotate") == 1


def test_fifo(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x")
    with pytest.raises(TracerError, match="only files can be rotated"):
        open_uri(f"file:{tmp_path}/x?rotate-bytes=1M")


def test_zstd_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra to install."""
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(TracerError, match="pipx inject oomtrace zstandard"):
        open_uri(f"file:{tmp_path}/x?compress=zstd")


def test_locked_by_others(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Users that can read file and directory can lock both, which blocks nothing."""
    path = tmp_path / "x"
    path.touch()
    held = [os.open(each, os.O_RDONLY) for each in (path, tmp_path)]
    for descriptor in held:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    sink = open_uri(f"file:{path}?rotate-bytes=1K&keep=2")
    for number in range(9):
        sink.write([record(number, 900)])
    wait_for(lambda: len(parts(path)) == 2)
    sink.close()
    for descriptor in held:
        os.close(descriptor)
    assert {each.name for each in tmp_path.iterdir()} == {"x", "x.000007", "x.000008"}
    assert capfd.readouterr().err == ""


def test_lock_is_its_owners(tmp_path: Path) -> None:
    """No other user can open the lock; it excludes processes, and is removed on release; stale files do no harm."""
    parts_of = rotated.RotatedFiles(f"{tmp_path}/x", None, "none")
    (tmp_path / ".x.tidy").touch(0o600)
    for _ in range(2):
        with parts_of.lock("tidy"):
            assert (tmp_path / ".x.tidy").stat().st_mode & 0o777 == 0o600
            with pytest.raises(BlockingIOError, match="another oomtrace holds"), parts_of.lock("tidy"):
                pass
        assert list(tmp_path.iterdir()) == []


def test_another_tidies(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits for the lock; after the timeout, it is reported once, and tried again at the next rotation."""
    monkeypatch.setattr(rotated, "LOCK_S", 0.0)
    path, said = tmp_path / "x", ""
    sink = open_uri(f"file:{path}?rotate-bytes=1K&keep=1")
    with rotated.RotatedFiles(str(path), None, "none").lock("tidy"):
        for number in range(4):
            sink.write([record(number, 900)])
            wait_for(lambda: not [thread for thread in threading.enumerate() if thread.name == "rotated"])
            said += capfd.readouterr().err
    assert len(parts(path)) == 3
    hint = f"another oomtrace holds {tmp_path}/.x.tidy"
    assert said == f"oomtrace: cannot remove or compress rotated files of {path}: {hint}; they are kept\n"
    sink.write([record(4, 900)])
    wait_for(lambda: names(path) == ["x.000004"])
    sink.close()


@pytest.mark.parametrize("what", ["link", "foreign"])
def test_lock_of_others(what: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A link or a FIFO in place of the lock is neither followed nor waited for; it is reported once."""
    require(os.geteuid() == 0, "root")
    path, target = tmp_path / "x", tmp_path / "target"
    for name in (".x.lock", ".x.tidy"):
        if what == "link":
            (tmp_path / name).symlink_to(target)
        else:
            (tmp_path / name).touch()
            os.chown(tmp_path / name, 65534, 65534)
    sink = open_uri(f"file:{path}?rotate-bytes=1K")
    for number in range(5):
        sink.write([record(number, 900)])
    wait_for(lambda: not [thread for thread in threading.enumerate() if thread.name == "rotated"])
    sink.close()
    assert numbers(path.read_bytes()) == list(range(5))
    assert not target.exists()
    said = capfd.readouterr().err
    assert (said.count("cannot rotate"), said.count("cannot remove or compress"), said.count("\n")) == (1, 1, 2)


@pytest.mark.parametrize("is_setgid", [False, True])
def test_owner(is_setgid: bool, tmp_path: Path) -> None:
    """Without CAP_CHOWN, a group that reads the file loses access to the next one: reported, with a remedy."""
    require(os.geteuid() == 0, "root")
    path = tmp_path / "x"
    path.touch(0o640)
    os.chown(path, 0, 4)
    if is_setgid:
        os.chown(tmp_path, 0, 4)
        tmp_path.chmod(0o2755)
    command = [sys.executable, "-c", DAEMON, f"file:{path}?rotate-bytes=1K&compress=gzip"]
    root = ROOT
    said = subprocess.run(
        command, cwd=root, stderr=subprocess.PIPE, text=True, check=True, timeout=3 * TIMEOUT_S
    ).stderr
    if is_setgid:
        assert said == ""
        assert {each.stat().st_gid for each in (path, *parts(path))} == {4}
    else:
        told = f"cannot give the new {path} the owner 0:4 of the previous one: Operation not permitted"
        assert said == f"oomtrace: {told}; give {tmp_path} that group, and chmod g+s\n"


def test_numbers_end(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """After the highest number nothing is overwritten."""
    path, last = tmp_path / "x", tmp_path / "x.9999998"
    last.touch()
    sink = open_uri(f"file:{path}?rotate-bytes=1K")
    for number in range(4):
        sink.write([record(number, 900)])
    sink.close()
    assert (names(path), numbers(path.read_bytes())) == (["x.9999998", "x.9999999"], [1, 2, 3])
    assert capfd.readouterr().err.count("move the rotated files away") == 1


def test_recent_while_it_compresses(tmp_path: Path) -> None:
    """A file that is compressed meanwhile is found by its new name."""
    older = rotated.RotatedFiles(f"{tmp_path}/x", None, "gzip")
    for number in (1, 2):
        (tmp_path / f"x.{number:06d}").write_bytes(record(number))
    ends = older.ends(1 << 20)
    assert next(ends) == record(2)
    (tmp_path / "x.000001.gz").write_bytes(gzip.compress(record(1)))
    (tmp_path / "x.000001").unlink()
    assert list(ends) == [record(1)]
