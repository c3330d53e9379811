# SPDX-License-Identifier: Apache-2.0
"""boltdb.py: keys are found; a torn or hostile database is an error, in little time and memory."""

import contextlib
import os
import struct
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.harness.bolt_file import BRANCH, FIRST_PAGE, LEAF, Tree, Writer, fnv
from tracer.identity import boltdb
from tracer.identity.boltdb import ATTEMPTS_MAX, READ_MAX_BYTES, VALUE_MAX_BYTES, Bucket
from tracer.linux.safe_files import UnreadableError

MANY: Tree = {b"%05d" % number: b"value %d" % number for number in range(0, 5000, 2)}
TREE: Tree = {
    b"a value": b"1",
    b"ctr": {
        b"id%03d" % number: {b"config": b"{}" * number, b"labels": {b"a": b"b", b"c": b""}} for number in range(40)
    },
    b"empty": {},
    b"large": {b"first": b"x" * 100_000, b"second": b"y", b"third": b"z" * 5000},
    b"many": MANY,
    b"small": {b"a": b"1", b"b": b""},
}
PAGE = 4096


def read(bucket: Bucket) -> Tree:
    """All keys and values, recursively."""
    values: dict[bytes, bytes | Tree] = dict(bucket.values())
    return values | {key: read(inner) for key, inner in bucket.buckets()}


def whole(folder: Path) -> Tree | None:
    return boltdb.query_database(str(folder), "db", read)


def value(folder: Path, *path: bytes) -> bytes | None:
    def question(top: Bucket) -> bytes | None:
        bucket = top.bucket(*path[:-1])
        return None if bucket is None else bucket.value(path[-1])

    return boltdb.query_database(str(folder), "db", question)


@pytest.mark.parametrize(("page_size", "most"), [(1024, 10_000), (4096, 10_000), (4096, 4), (16384, 20), (65536, 10)])
def test_all_is_found(page_size: int, most: int, tmp_path: Path) -> None:
    """Inline buckets, leaves, branches several levels deep, and values larger than a page."""
    (tmp_path / "db").write_bytes(Writer(page_size, most).file({**TREE, b"many": dict(list(MANY.items())[:500])}))
    assert {**TREE, b"many": dict(list(MANY.items())[:500])} == whole(tmp_path)


@pytest.mark.parametrize("most", [4, 10_000])
def test_each_key(most: int, tmp_path: Path) -> None:
    """An existing key is found; keys beside it, before all and after all are not."""
    (tmp_path / "db").write_bytes(Writer(most=most).file(TREE))
    for number in range(0, 5000, 66):
        assert b"value %d" % number == value(tmp_path, b"many", b"%05d" % number)
        assert value(tmp_path, b"many", b"%05d" % (number + 1)) is None
    for key in (b"", b"00", b"\xff"):
        assert value(tmp_path, b"many", key) is None


def test_paths(tmp_path: Path) -> None:
    """A path consists of buckets only; a bucket is not a value, nor a value a bucket."""
    (tmp_path / "db").write_bytes(Writer().file(TREE))

    def question(top: Bucket) -> bool:
        labels = top.bucket(b"ctr", b"id007", b"labels")
        assert labels is not None
        assert labels.value(b"a") == b"b"
        assert labels.value(b"c") == b""
        assert top.value(b"a value") == b"1"
        assert top.value(b"ctr") is None
        assert top.bucket(b"a value") is None
        assert top.bucket(b"ctr", b"id007", b"config") is None
        assert top.bucket(b"none", b"id007") is None
        return True

    assert boltdb.query_database(str(tmp_path), "db", question)


def test_only_pages_on_the_way(tmp_path: Path) -> None:
    """One key of a file of 300 MB takes a few pages."""
    file = Writer().file(TREE)
    with (tmp_path / "db").open("wb") as output:
        output.write(file)
        output.truncate(300 << 20)
    tracemalloc.start()
    found = value(tmp_path, b"many", b"04000")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == b"value 4000"
    assert peak < 20 * PAGE


def test_last_transaction(tmp_path: Path) -> None:
    """The later of the two meta pages is used, unless it is half written."""
    writer = Writer()
    old, new = writer.root({b"a": b"old"}), writer.root({b"a": b"new"})
    for transaction in (8, 9):
        metas = {transaction % 2: writer.meta(transaction, new), 1 - transaction % 2: writer.meta(transaction - 1, old)}
        file = bytearray(b"".join(page for _, page in sorted({**metas, **writer.pages}.items())))
        (tmp_path / "db").write_bytes(file)
        assert whole(tmp_path) == {b"a": b"new"}
        file[transaction % 2 * PAGE + 40] ^= 1
        (tmp_path / "db").write_bytes(file)
        assert whole(tmp_path) == {b"a": b"old"}


@pytest.mark.parametrize("page_size", [1024, 4096, 65536])
def test_first_meta_page_is_damaged(page_size: int, tmp_path: Path) -> None:
    """If the first meta page is damaged, the page size is unknown, and the second is searched for."""
    file = bytearray(Writer(page_size).file(TREE))
    file[20] ^= 1
    (tmp_path / "db").write_bytes(file)
    assert whole(tmp_path) == TREE


def test_none(tmp_path: Path) -> None:
    """A missing file yields None."""
    assert whole(tmp_path) is None
    assert whole(tmp_path / "missing") is None


@pytest.mark.parametrize("content", [b"", b"x", bytes(100_000), b"SQLite format 3\0" * 1000, Writer().file({})[:PAGE]])
def test_no_database(content: bytes, tmp_path: Path) -> None:
    """A file that is not a database is an error that names it."""
    (tmp_path / "db").write_bytes(content)
    with pytest.raises(UnreadableError, match="/db: "):
        whole(tmp_path)


def test_no_regular_file(tmp_path: Path) -> None:
    """Only a regular file below the directory is opened, and nothing blocks."""
    for name, make in (("fifo", os.mkfifo), ("folder", os.mkdir)):
        make(tmp_path / name)
        with pytest.raises(UnreadableError, match=name):
            boltdb.query_database(str(tmp_path), name, read)
    (tmp_path / "link").symlink_to("/etc/hostname")
    with pytest.raises(UnreadableError, match="link"):
        boltdb.query_database(str(tmp_path), "link", read)


def test_written_meanwhile(tmp_path: Path) -> None:
    """A result from overwritten pages is discarded, and the query is repeated."""
    path = tmp_path / "db"
    path.write_bytes(Writer().file({b"a": b"old"}))
    answers = []

    def question(top: Bucket) -> bytes | None:
        answers.append(top.value(b"a"))
        if len(answers) == 1:
            path.write_bytes(Writer().file({b"a": b"new"}, transaction=8))
        return answers[-1]

    assert boltdb.query_database(str(tmp_path), "db", question) == b"new"
    assert answers == [b"old", b"new"]


def test_torn_meanwhile(tmp_path: Path) -> None:
    """An error from overwritten pages is discarded, too."""
    path = tmp_path / "db"
    path.write_bytes(Writer().file(MANY))
    problems = []

    def question(top: Bucket) -> bytes | None:
        path.write_bytes(Writer().file({b"04000": b"new"}, transaction=8))
        try:
            return top.value(b"04000")
        except UnreadableError as error:
            problems.append(error)
            raise

    assert boltdb.query_database(str(tmp_path), "db", question) == b"new"
    assert len(problems) == 1


def test_written_all_the_time(tmp_path: Path) -> None:
    """A database that changes all the time is an error after ATTEMPTS_MAX attempts."""
    path = tmp_path / "db"
    path.write_bytes(Writer().file(TREE))
    asked: list[Bucket] = []

    def question(top: Bucket) -> None:
        asked.append(top)
        path.write_bytes(Writer().file(TREE, transaction=100 + len(asked)))

    with pytest.raises(UnreadableError, match="changed repeatedly"):
        boltdb.query_database(str(tmp_path), "db", question)
    assert len(asked) == ATTEMPTS_MAX


def test_large_values(tmp_path: Path) -> None:
    """A value of the maximum size is read, and so is one beside a larger one."""
    tree: Tree = {b"larger": b"x" * (VALUE_MAX_BYTES + 1), b"largest": b"x" * VALUE_MAX_BYTES, b"other": b"1"}
    (tmp_path / "db").write_bytes(Writer().file(tree))
    for key in (b"largest", b"other"):
        assert tree[key] == value(tmp_path, key)
    with pytest.raises(UnreadableError, match="1048577 bytes, more than 1048576"):
        value(tmp_path, b"larger")


def hostile_files() -> Iterator[tuple[str, bytes]]:
    """Hostile files with valid meta pages, by name."""
    for name, child in (("itself", FIRST_PAGE), ("meta", 0), ("freelist", 2), ("nowhere", 2**63), ("end", 4)):
        writer = Writer()
        writer.add(BRANCH, [(0, b"%d" % number, struct.pack("=Q", child)) for number in range(100)])
        yield name, _file(writer)
    writer = Writer(most=2)
    for level in range(30):  # each page twice: 2 ** 30 paths
        below = struct.pack("=Q", FIRST_PAGE + level + 1)
        writer.add(BRANCH, [(0, b"a", below), (0, b"b", below)])
    writer.add(LEAF, [(0, b"a", b"b")])
    yield "wide", _file(writer)
    writer = Writer()
    for _ in range(3):
        writer.add(BRANCH, [(0, b"%d" % number, struct.pack("=Q", writer.next + 1)) for number in range(200)])
    writer.add(LEAF, [(0, b"%d" % number, b"") for number in range(200)])
    yield "many ways", _file(writer)
    writer = Writer()
    writer.add(LEAF, [(0, b"%07d" % number, b"") for number in range(60_000)])
    yield "many keys", _file(writer)
    writer = Writer()
    writer.add(LEAF, [(0, b"%d" % number, b"x" * VALUE_MAX_BYTES) for number in range(9)])
    yield "large", _file(writer)
    for name, header in (
        ("no leaf", struct.pack("=QHHI", FIRST_PAGE, 16, 1, 0)),
        ("two kinds", struct.pack("=QHHI", FIRST_PAGE, 3, 1, 0)),
        ("other number", struct.pack("=QHHI", 9, LEAF, 1, 0)),
        ("flows over", struct.pack("=QHHI", FIRST_PAGE, LEAF, 1, 2**32 - 1)),
        ("too many", struct.pack("=QHHI", FIRST_PAGE, LEAF, 2**16 - 1, 0)),
        ("no way", struct.pack("=QHHI", FIRST_PAGE, BRANCH, 0, 0)),
        ("far", struct.pack("=QHHI4I", FIRST_PAGE, LEAF, 1, 0, 0, 2**32 - 1, 1, 1)),
        ("long key", struct.pack("=QHHI4I", FIRST_PAGE, LEAF, 1, 0, 0, 16, 2**32 - 1, 1)),
        ("long value", struct.pack("=QHHI4I", FIRST_PAGE, LEAF, 1, 0, 0, 16, 1, 2**32 - 1)),
        ("short bucket", struct.pack("=QHHI4I", FIRST_PAGE, LEAF, 1, 0, 1, 16, 1, 15)),
        ("empty bucket", struct.pack("=QHHI4I", FIRST_PAGE, LEAF, 1, 0, 1, 16, 1, 16)),
        ("bucket in bucket", struct.pack("=QHHI4I", FIRST_PAGE, LEAF, 1, 0, 1, 16, 0, 2000)),
    ):
        writer = Writer()
        writer.add(LEAF, [])
        writer.pages[FIRST_PAGE] = header + bytes(PAGE - len(header))
        yield name, _file(writer)


def _file(writer: Writer) -> bytes:
    pages = {0: writer.meta(8, FIRST_PAGE), 1: writer.meta(7, FIRST_PAGE), **writer.pages}
    return b"".join(pages[number] for number in sorted(pages))


HOSTILE = dict(hostile_files())


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(name: str, tmp_path: Path) -> None:
    """It is rejected quickly, with little memory."""
    (tmp_path / "db").write_bytes(HOSTILE[name])
    tracemalloc.start()
    began = time.monotonic()
    with pytest.raises(UnreadableError, match="/db: "):
        whole(tmp_path)
    assert time.monotonic() - began < 5
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * READ_MAX_BYTES
    with contextlib.suppress(UnreadableError):
        assert value(tmp_path, b"no such key") is None


BASE = Writer(1024, 4).file({**TREE, b"many": dict(list(MANY.items())[:50]), b"large": {b"a": b"x" * 3000}})
PLACES = st.integers(0, len(BASE) - 1)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(PLACES, st.sampled_from([0, 1, 2, 3, 16, 127, 255])), max_size=12), PLACES, st.booleans())
def test_damaged(tmp_path_factory: pytest.TempPathFactory, wrong: list[tuple[int, int]], end: int, cut: bool) -> None:
    """Damage below valid checksums, or a missing end, yields a result or UnreadableError, quickly."""
    file = bytearray(BASE)
    for place, byte in wrong:
        file[place] = byte
    for start in (16, 1024 + 16):
        file[start + 56 : start + 64] = struct.pack("=Q", fnv(bytes(file[start : start + 56])))
    path = tmp_path_factory.getbasetemp() / "db"
    path.write_bytes(file[:end] if cut else file)
    began = time.monotonic()
    with contextlib.suppress(UnreadableError):
        whole(path.parent)
    with contextlib.suppress(UnreadableError):
        value(path.parent, b"ctr", b"id007", b"labels", b"a")
    assert time.monotonic() - began < 5


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=3000))
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """Random bytes after two valid meta pages."""
    writer = Writer(1024)
    writer.next = 10
    path = tmp_path_factory.getbasetemp() / "db"
    header = struct.pack("=QH", FIRST_PAGE, LEAF)
    path.write_bytes(writer.meta(8, FIRST_PAGE) + writer.meta(7, FIRST_PAGE) + writer.pages[2] + header + data)
    with contextlib.suppress(UnreadableError):
        whole(path.parent)


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    """No descriptor stays open, neither after success nor after an error."""
    (tmp_path / "db").write_bytes(Writer().file(TREE))
    (tmp_path / "wrong").write_bytes(HOSTILE["itself"])
    before = os.listdir("/proc/self/fd")
    for name in ("db", "wrong", "missing"):
        with contextlib.suppress(UnreadableError):
            boltdb.query_database(str(tmp_path), name, read)
    assert before == os.listdir("/proc/self/fd")
