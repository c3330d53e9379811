# SPDX-License-Identifier: Apache-2.0
"""spool.py: lines survive the process; damage is counted and does not stop delivery."""

import errno
import io
import os
import resource
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.harness.lines import numbers, record
from tracer.base.errors import TracerError
from tracer.delivery import spool as spool_module
from tracer.delivery import spool_segment
from tracer.delivery.spool import Spool, sync
from tracer.delivery.spool_dir import fnv1a, redact_uri

URI = "file:/var/log/oom.json"


def drain(spool: Spool, count: int = 1 << 30) -> list[int]:
    """Deliver so many lines, and return their numbers."""
    delivered: list[int] = []
    while len(delivered) < count and (lines := spool.peek(min(7, count - len(delivered)))):
        delivered += numbers(b"".join(lines))
        spool.advance(len(lines))
    return delivered


def keep(spool: Spool, first: int, end: int, bytes_: int = 0) -> None:
    for number in range(first, end):
        assert spool.append(record(number, bytes_))


def test_order(tmp_path: Path) -> None:
    """First in, first out; afterwards only the directory is left."""
    spool = Spool(str(tmp_path), URI)
    keep(spool, 0, 100)
    assert drain(spool, 30) == list(range(30))
    keep(spool, 100, 200)
    assert drain(spool) == list(range(30, 200))
    assert spool.is_empty
    assert os.listdir(spool.path) == ["uri"]
    keep(spool, 200, 210)
    assert drain(spool) == list(range(200, 210))
    spool.close()


def test_next_run(tmp_path: Path) -> None:
    """A later run continues where delivery stopped, and appends new lines."""
    for begin in range(0, 1000, 100):
        spool = Spool(str(tmp_path), URI)
        keep(spool, begin, begin + 100)
        assert drain(spool, 60) == list(range(begin // 100 * 60, begin // 100 * 60 + 60))
        spool.close()
    spool = Spool(str(tmp_path), URI)
    assert drain(spool) == list(range(600, 1000))
    assert spool.damaged == 0
    spool.close()


def test_segments(tmp_path: Path) -> None:
    """Delivered segments are removed; each is synced when complete."""
    spool = Spool(str(tmp_path), URI)
    keep(spool, 0, 2000, 4000)
    files = sorted(Path(spool.path).glob("*.ndjson"))
    assert len(files) == 8
    sync(spool.take_complete())
    drain(spool, 1500)
    assert sorted(Path(spool.path).glob("*.ndjson")) == files[-3:]
    assert drain(spool) == list(range(1500, 2000))
    spool.close()


def test_cap(tmp_path: Path) -> None:
    """The spool does not exceed its limit; it has room again once a segment is delivered."""
    spool = Spool(str(tmp_path), URI, max_bytes=3 << 20)
    count = 0
    while spool.append(record(count, 4096)):
        count += 1
    assert (3 << 20) - 4096 < sum(file.stat().st_size for file in Path(spool.path).glob("*.ndjson")) <= 3 << 20
    assert drain(spool, 300) == list(range(300))
    assert spool.append(record(count, 4096))
    assert drain(spool) == list(range(300, count + 1))
    spool.close()


def test_set_aside(tmp_path: Path) -> None:
    """Rejected lines have a limit of their own."""
    spool = Spool(str(tmp_path), URI)
    kept = [number for number in range(30) if spool.set_aside(record(number, 100_000))]
    spool.close()
    aside = Path(spool.path) / "rejected.ndjson"
    assert kept == list(range(spool_module.REJECTED_MAX_BYTES // len(record(0, 100_000))))
    assert numbers(aside.read_bytes()) == kept
    assert Spool(str(tmp_path), URI).is_empty


def test_disk_full(tmp_path: Path) -> None:
    """A line that could not be written completely leaves nothing."""
    spool = Spool(str(tmp_path), URI)
    keep(spool, 0, 10, 1000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_500, hard))
        assert not spool.append(record(10, 1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    (segment,) = Path(spool.path).glob("*.ndjson")
    assert segment.stat().st_size == 10_000
    keep(spool, 10, 20, 1000)
    assert drain(spool) == list(range(20))
    assert spool.damaged == 0
    spool.close()


def segments(spool: Spool) -> list[Path]:
    return sorted(Path(spool.path).glob("*.ndjson"))


@pytest.mark.parametrize(
    ("damage", "rest", "skipped"),
    [
        (lambda data: data[:-5], range(9), 1),
        (lambda data: b"\0" * 40 + data, range(1, 10), 1),
        (lambda data: b"garbage\n[1]\n\n{}x\n" + data, range(10), 4),
        (lambda data: data + b"\0" * 5_000, range(10), 1),
        (lambda data: data + b"\xff" * 5_000_000, range(10), 1),
        (lambda data: b"x" * 50_000_000, range(0), 1),
        (lambda data: b"", range(0), 0),
        (lambda data: data.replace(b"k-4", b"k-\n"), [*range(4), *range(5, 10)], 2),
    ],
)
def test_damaged_segment(damage: Callable[[bytes], bytes], rest: list[int], skipped: int, tmp_path: Path) -> None:
    """Lines that are not records are skipped and counted; the others are delivered."""
    spool = Spool(str(tmp_path), URI)
    keep(spool, 0, 10)
    spool.close()
    (segment,) = segments(spool)
    segment.write_bytes(damage(segment.read_bytes()))
    spool = Spool(str(tmp_path), URI)
    keep(spool, 10, 20)
    assert drain(spool) == [*rest, *range(10, 20)]
    assert spool.damaged == skipped
    assert spool.is_empty
    assert os.listdir(spool.path) == ["uri"]
    spool.close()


@pytest.mark.parametrize(
    "cursor", [b"", b"\0" * 64, b"7 0 00000000\n", b"99999999999999999999 1", bytes(range(64)), b"x" * 100_000]
)
def test_damaged_cursor(cursor: bytes, tmp_path: Path) -> None:
    """With an invalid cursor everything is delivered: a duplicate is better than a loss."""
    spool = Spool(str(tmp_path), URI)
    keep(spool, 0, 10)
    assert drain(spool, 5) == list(range(5))
    spool.close()
    (Path(spool.path) / "cursor").write_bytes(cursor)
    spool = Spool(str(tmp_path), URI)
    assert drain(spool) == list(range(10))
    spool.close()


def test_missing_segment(tmp_path: Path) -> None:
    """A removed segment is noticed."""
    spool = Spool(str(tmp_path), URI)
    keep(spool, 0, 1500, 4000)
    spool.close()
    for segment in (segments(spool)[0], segments(spool)[2]):
        segment.unlink()
    spool = Spool(str(tmp_path), URI)
    assert spool.damaged == 2
    assert drain(spool) == [*range(263, 526), *range(789, 1500)]
    spool.close()


def test_segment_is_something_else(tmp_path: Path) -> None:
    """A directory, a FIFO or a link in place of a segment is skipped."""
    spool = Spool(str(tmp_path), URI)
    spool.close()
    folder = Path(spool.path)
    (folder / "0000000000000003.ndjson").mkdir()
    os.mkfifo(folder / "0000000000000004.ndjson")
    (tmp_path / "target").write_bytes(record(7))
    (folder / "0000000000000005.ndjson").symlink_to(tmp_path / "target")
    spool = Spool(str(tmp_path), URI)
    keep(spool, 0, 3)
    assert drain(spool) == [0, 1, 2]
    assert spool.damaged == 3
    spool.close()


def test_folder_removed_meanwhile(tmp_path: Path) -> None:
    """If nothing can be kept, append() returns False."""
    spool = Spool(str(tmp_path), URI)
    keep(spool, 0, 3)
    for file in Path(spool.path).iterdir():
        file.unlink()
    Path(spool.path).rmdir()
    assert not spool.append(record(3))
    assert drain(spool) == []
    assert spool.damaged == 3
    spool.close()


@contextmanager
def no_descriptor() -> Iterator[None]:
    """No file can be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("again", [False, True])
def test_no_descriptor_is_free(again: bool, tmp_path: Path) -> None:
    """A segment that cannot be opened now stays, and is delivered later, by this run or the next one."""
    spool = Spool(str(tmp_path), URI)
    keep(spool, 0, 600, 4000)
    if again:
        spool.close()
        spool = Spool(str(tmp_path), URI)
    with no_descriptor(), pytest.raises(OSError, match="Too many open files"):
        spool.peek(1)
    assert drain(spool, 250) == list(range(250))
    with no_descriptor():
        spool.advance(100)  # of which most are in a segment that is not open
        with pytest.raises(OSError, match="Too many open files"):
            spool.peek(1)
    assert len(segments(spool)) == 2
    assert drain(spool) == list(range(350, 600))
    assert spool.damaged == 0
    assert spool.is_empty
    spool.close()


def test_no_descriptor_is_free_at_the_start(tmp_path: Path) -> None:
    """Delivered lines stay delivered."""
    spool = Spool(str(tmp_path), URI)
    keep(spool, 0, 10)
    drain(spool, 5)
    spool.close()
    with no_descriptor(), pytest.raises(TracerError):
        Spool(str(tmp_path), URI)
    spool = Spool(str(tmp_path), URI)
    assert drain(spool) == list(range(5, 10))
    spool.close()


@pytest.mark.parametrize("number", [errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.EIO, errno.EINTR])
def test_error_that_passes(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A single error at any step of reading neither loses nor reorders lines."""
    spool = Spool(str(tmp_path), URI)
    keep(spool, 0, 600, 4000)
    delivered: list[int] = []
    calls = 0

    def failing(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls % 3 == 0:
                raise OSError(number, os.strerror(number))
            return real(*arguments, **named)

        return call

    class Reader(io.FileIO):
        readinto = failing("readinto", io.FileIO.readinto)

    monkeypatch.setattr(spool_segment, "open", lambda file, _mode: io.BufferedReader(Reader(file)), raising=False)
    monkeypatch.setattr(os, "open", failing("open", os.open))
    while not spool.is_empty:
        with suppress(OSError):
            lines = spool.peek(7)
            delivered += numbers(b"".join(lines))
            spool.advance(len(lines))
    assert calls > 100
    assert delivered == list(range(600))
    assert spool.damaged == 0
    monkeypatch.undo()
    spool.close()


def test_segment_goes_while_it_is_delivered(tmp_path: Path) -> None:
    """The number of lines lost by removing or truncating segments is known."""
    spool = Spool(str(tmp_path), URI)
    keep(spool, 0, 1000, 4000)
    assert drain(spool, 100) == list(range(100))
    segments(spool)[1].unlink()
    os.truncate(segments(spool)[1], 500_500)  # the third: 125 lines and half a line are left
    assert drain(spool) == [*range(100, 263), *range(526, 651), *range(789, 1000)]
    assert spool.damaged == 263 + 138
    spool.close()


def test_modes(tmp_path: Path) -> None:
    """Command lines may contain secrets: only the owner can read the spool."""
    spool = Spool(f"{tmp_path}/state", URI)
    keep(spool, 0, 1)
    drain(spool, 1)
    keep(spool, 0, 1)
    assert stat.S_IMODE(Path(spool.path).stat().st_mode) == 0o700
    assert {0o600} == {stat.S_IMODE(file.stat().st_mode) for file in Path(spool.path).iterdir()}
    assert (Path(spool.path) / "uri").read_text() == f"{URI}\n"
    spool.close()


def test_folders_of_outputs(tmp_path: Path) -> None:
    """Each output has a fixed directory of its own; digests match those of the authors of FNV-1a."""
    assert (fnv1a(b""), fnv1a(b"foobar")) == (0xCBF29CE484222325, 0x85944171F73967E8)
    spools = [Spool(str(tmp_path), uri) for uri in ("stdout", "file:/a", "file:/b")]
    assert [Path(spool.path).name.partition("-")[0] for spool in spools] == ["stdout", "file", "file"]
    assert len({spool.path for spool in spools}) == 3
    for spool in spools:
        spool.close()


def test_in_use(tmp_path: Path) -> None:
    """Two runs at once would deliver each other's lines: the second one is refused."""
    spool = Spool(str(tmp_path), URI)
    with pytest.raises(TracerError, match=r"in use by another oomtrace: .*--state"):
        Spool(str(tmp_path), URI)
    spool.close()
    Spool(str(tmp_path), URI).close()


def test_links(tmp_path: Path) -> None:
    """Root does not follow another user's link."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(TracerError, match=r"not a directory: .*links are not followed"):
        Spool(f"{tmp_path}/link", URI)
    spool = Spool(f"{tmp_path}/real", URI)
    spool.close()
    Path(spool.path).rename(tmp_path / "elsewhere")
    Path(spool.path).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TracerError, match="not a directory"):
        Spool(f"{tmp_path}/real", URI)
    (tmp_path / "file").touch()
    with pytest.raises(TracerError, match="not a directory"):
        Spool(f"{tmp_path}/file", URI)
    with pytest.raises(TracerError, match=r"No such file.*--state"):
        Spool(f"{tmp_path}/no/such", URI)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("stdout", "stdout"),
        ("file:/a@b?c", "file:/a@b?c"),
        ("https://user:pass@word@host:8080/path/T0KEN?token=x#y", "https://host:8080"),
        ("http://host?token=x", "http://host"),
        ("kafka://u:p@one:1,two:2/topic", "kafka://one:1,two:2"),
    ],
)
def test_no_secret_is_written(uri: str, shown: str) -> None:
    """The directory shows its output's URI, without password or token."""
    assert redact_uri(uri) == shown


operations = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 12)),
        st.tuples(st.just("deliver"), st.integers(1, 12)),
        st.tuples(st.just("crash"), st.just(0)),
        st.tuples(st.just("close"), st.just(0)),
        st.tuples(st.sampled_from(["cut", "nulls", "garbage", "remove", "cursor"]), st.integers(0, 1 << 20)),
    ),
    max_size=40,
)


class Model:
    """A spool, and the lines that it must deliver."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.spool = Spool(folder, URI, max_bytes=8000)
        self.number = 0
        self.delivered: set[int] = set()
        self.kept: set[int] = set()
        self.last = -1
        """The line delivered last in this run."""
        self.is_damaged = self.is_removed = self.is_cursor_damaged = False
        self.skipped = 0

    def append(self, count: int) -> None:
        for _ in range(count):
            if self.spool.append(record(self.number, 300)):
                self.kept.add(self.number)
            self.number += 1

    def deliver(self, count: int) -> None:
        for number in drain(self.spool, count):
            assert number > self.last, "never in another order"
            assert number in self.kept, "nothing is invented"
            assert self.is_damaged or number not in self.delivered, "once, unless the cursor was damaged"
            self.last = number
            self.delivered.add(number)

    def again(self, in_order: bool) -> None:
        """End the process, regularly or by a signal, which leaves all files as they are."""
        self.skipped += self.spool.damaged
        if in_order:
            self.spool.close()
        else:  # as the kernel does: descriptors are closed, and nothing else happens
            self.spool._close_reader()
            for descriptor in {self.spool._directory, self.spool._appending, self.spool._cursor} - {None}:
                os.close(descriptor)  # type: ignore[arg-type]
        self.spool = Spool(self.folder, URI, max_bytes=8000)
        self.last = -1

    def damage(self, how: str, where: int) -> None:
        folder = Path(self.spool.path)
        files = segments(self.spool)
        if how == "cursor":
            (folder / "cursor").write_bytes(os.urandom(where % 100))
            self.is_damaged = self.is_cursor_damaged = True
        elif files:
            self.is_damaged = True
            file = files[where % len(files)]
            size = file.stat().st_size
            if how == "remove":
                self.is_removed = file != files[-1]
                if self.is_removed:  # the loss of a later part cannot be noticed
                    file.unlink()
            elif how == "cut":
                begin = file.read_bytes()[: where % (size + 1)]
                if begin:
                    os.truncate(file, len(begin) - begin.endswith(b"\n"))  # as any power cut, and not between two lines
            else:
                with file.open("r+b") as opened:
                    opened.seek(where % (size + 1))
                    opened.write(b"\0" * 200 if how == "nulls" else b'\n{"x"\xff\n}{' * 20)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(operations)
def test_whatever_happens(wanted: list[tuple[str, int]]) -> None:
    """Any sequence of events: never raises, never reorders, and loses nothing without counting."""
    before = spool_module.SEGMENT_BYTES
    spool_module.SEGMENT_BYTES = 1000
    with TemporaryDirectory() as folder:
        model = Model(folder)
        for what, number in wanted:
            if what == "append":
                model.append(number)
            elif what == "deliver":
                model.deliver(number)
            elif what in ("crash", "close"):
                model.again(what == "close")
            else:
                model.damage(what, number)
        model.deliver(1 << 20)
        lost = model.kept - model.delivered
        assert model.is_damaged or not lost
        if not (model.is_removed and model.is_cursor_damaged):  # a missing first segment cannot be noticed
            assert not lost or model.skipped + model.spool.damaged, "what is lost is counted"
        assert model.spool.is_empty
        model.spool.close()
    spool_module.SEGMENT_BYTES = before
