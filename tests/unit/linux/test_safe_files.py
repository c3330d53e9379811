# SPDX-License-Identifier: Apache-2.0
"""safe_files.py: a hostile file neither blocks a read, nor leads it elsewhere, nor takes much memory."""

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tracer.linux import safe_files
from tracer.linux.safe_files import UnreadableError

SECRET = b"not below the folder"


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(100 << 20)


def fifo(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def link_out(path: Path) -> None:
    (path.parent.parent / "secret").write_bytes(SECRET)
    path.symlink_to("../secret")


def absolute_link(path: Path) -> None:
    path.symlink_to("/etc/hostname")


def device_link(path: Path) -> None:
    path.symlink_to("/dev/zero")


def magic_link(path: Path) -> None:
    path.symlink_to("/proc/self/exe")


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def folder(path: Path) -> None:
    path.mkdir()


HOSTILE = (huge, fifo, unix_socket, link_out, absolute_link, device_link, magic_link, loop, folder)


@pytest.mark.parametrize("make", HOSTILE)
def test_hostile(make: Callable[[Path], None], tmp_path: Path) -> None:
    """It is rejected at once, and the error names the file."""
    root = tmp_path / "root"
    root.mkdir()
    make(root / "config.json")
    began = time.monotonic()
    with pytest.raises(UnreadableError, match=r"config\.json: "):
        safe_files.read_file(str(root), "config.json")
    assert time.monotonic() - began < 1


def test_read(tmp_path: Path) -> None:
    """Files are read through links that stay below the directory, and in a directory that is a link itself."""
    (tmp_path / "root").mkdir()
    (tmp_path / "root/a").write_bytes(b"content")
    (tmp_path / "root/b").symlink_to("a")
    (tmp_path / "moved").symlink_to("root")
    for path in (tmp_path / "root", tmp_path / "moved"):
        assert safe_files.read_file(str(path), "a") == safe_files.read_file(str(path), "b") == b"content"


def test_missing(tmp_path: Path) -> None:
    """A missing file or directory is not an error."""
    assert safe_files.read_file(str(tmp_path), "no") is None
    assert safe_files.read_file(str(tmp_path), "no/such") is None
    assert safe_files.read_file(str(tmp_path / "no"), "file") is None
    assert list(safe_files.list_directory(str(tmp_path / "no"))) == []


def test_limit(tmp_path: Path) -> None:
    """A file of the maximum size is read, a larger one is an error."""
    (tmp_path / "a").write_bytes(b"12345")
    assert safe_files.read_file(str(tmp_path), "a", 5) == b"12345"
    with pytest.raises(UnreadableError, match="5 bytes, more than 4"):
        safe_files.read_file(str(tmp_path), "a", 4)


def test_path_out(tmp_path: Path) -> None:
    """A name with .. cannot leave the directory."""
    (tmp_path / "root").mkdir()
    (tmp_path / "secret").write_bytes(SECRET)
    for name in ("../secret", "/etc/hostname", "a/../../secret"):
        with pytest.raises(UnreadableError):
            raise UnreadableError if safe_files.read_file(str(tmp_path / "root"), name) is None else AssertionError


def test_names(tmp_path: Path) -> None:
    """Names of files and directories, at most ``count_max``; a file has none."""
    for name in "abc":
        (tmp_path / name).mkdir()
    (tmp_path / "a/file").touch()
    assert sorted(safe_files.list_directory(str(tmp_path))) == ["a", "b", "c"]
    assert list(safe_files.list_directory(str(tmp_path), "a")) == ["file"]
    assert len(list(safe_files.list_directory(str(tmp_path), count_max=2))) == 2
    assert list(safe_files.list_directory(str(tmp_path), "a/file")) == []


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    """No descriptor stays open, neither after success nor after an error."""
    (tmp_path / "root").mkdir()
    (tmp_path / "root/a").write_bytes(b"1")
    for make in HOSTILE:
        make(tmp_path / "root" / make.__name__)
    before = os.listdir("/proc/self/fd")
    for name in ("a", "missing", *(make.__name__ for make in HOSTILE)):
        try:
            safe_files.read_file(str(tmp_path / "root"), name)
            list(safe_files.list_directory(str(tmp_path / "root")))
        except UnreadableError:
            pass
    assert before == os.listdir("/proc/self/fd")


def test_read_once(tmp_path: Path) -> None:
    """A file is parsed again only if it was changed or replaced."""
    made: list[bytes] = []

    def make(data: bytes, source: str) -> int:
        assert source == f"{tmp_path}/a"
        made.append(data)
        return len(data)

    def ask() -> int | None:
        return safe_files.read_cached(str(tmp_path), "a", make)

    assert ask() is None
    path = tmp_path / "a"
    for text in ("one", "three", "seven"):
        path.write_text(text)
        assert ask() == len(text), "just changed"
        time.sleep(0.15)
        for _ in range(3):
            assert ask() == len(text)
        assert made == [text.encode()] * 2, "it is read a second time, as it was new at first"
        made.clear()
    (tmp_path / "b").write_text("eight")
    (tmp_path / "b").rename(path)
    assert (ask(), made) == (5, [b"eight"])
    path.unlink()
    assert ask() is None


def test_read_once_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache holds the files requested last."""
    monkeypatch.setattr(safe_files, "_NEW_NS", -1)
    for number in range(2 * safe_files.CACHED_MAX):
        (tmp_path / str(number)).write_text("x")
        safe_files.read_cached(str(tmp_path), str(number), lambda data, _: len(data))
    assert len(safe_files._cache) == safe_files.CACHED_MAX
