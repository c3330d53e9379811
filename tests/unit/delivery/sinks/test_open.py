# SPDX-License-Identifier: Apache-2.0
"""sinks/open.py: lines reach their file, or an error says why not."""

import errno
import os
import resource
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tracer.base.errors import EXIT_FAILED, EXIT_USAGE, TracerError
from tracer.delivery.sinks.open import open_uri, parse_destination


@pytest.fixture
def umask() -> Iterator[None]:
    """A umask of 0 during the test."""
    before = os.umask(0)
    yield
    os.umask(before)


def test_lines_are_appended(tmp_path: Path) -> None:
    """An existing file is appended to."""
    path = tmp_path / "records.jsonl"
    path.write_bytes(b"old\n")
    for line in (b"one\n", b"two\n"):
        sink = open_uri(f"file:{path}")
        assert f"file:{path}" == sink.uri
        sink.write([line])
        sink.close()
    assert path.read_bytes() == b"old\none\ntwo\n"


@pytest.mark.parametrize(("mask", "mode"), [(0, 0o640), (0o022, 0o640), (0o077, 0o600)])
def test_mode(mask: int, mode: int, umask: None, tmp_path: Path) -> None:
    """Command lines may contain secrets: a new file is not readable by all users."""
    os.umask(mask)
    open_uri(f"file:{tmp_path}/new").close()
    assert mode == stat.S_IMODE((tmp_path / "new").stat().st_mode)


def test_mode_of_an_old_file_stays(tmp_path: Path) -> None:
    """The mode of an existing file is kept."""
    (tmp_path / "old").touch()
    (tmp_path / "old").chmod(0o604)
    open_uri(f"file:{tmp_path}/old").close()
    assert stat.S_IMODE((tmp_path / "old").stat().st_mode) == 0o604


def test_file_is_not_inherited(tmp_path: Path) -> None:
    """Child processes do not inherit the descriptor."""
    sink = open_uri(f"file:{tmp_path}/new")
    listing = subprocess.run(["ls", "-l", "/proc/self/fd"], close_fds=False, capture_output=True, text=True, check=True)
    sink.close()
    assert f"{tmp_path}/new" not in listing.stdout


def refusal(uri: str) -> TracerError:
    """The error of opening a URI."""
    with pytest.raises(TracerError) as caught:
        open_uri(uri)
    return caught.value


def test_symbolic_link(tmp_path: Path) -> None:
    """Root does not follow another user's link."""
    (tmp_path / "target").touch()
    (tmp_path / "link").symlink_to("target")
    error = refusal(f"file:{tmp_path}/link")
    assert f"{tmp_path}/link is a symbolic link" == error.message
    assert error.exit_code == EXIT_FAILED
    assert (tmp_path / "target").read_bytes() == b""


def test_missing_directory(tmp_path: Path) -> None:
    """A missing directory is not created."""
    assert "its directory does not exist" in refusal(f"file:{tmp_path}/no/file").message


@pytest.mark.parametrize("name", ["", "/", "/file/below"])
def test_no_file(name: str, tmp_path: Path) -> None:
    """A directory, or a path below a file, cannot be written to."""
    (tmp_path / "file").touch()
    error = refusal(f"file:{tmp_path}{name}")
    assert f"{tmp_path}{name}" in error.message
    assert error.hint


@pytest.mark.parametrize(
    "uri", ["", "file:", "file", "stderr", "STDOUT", "gopher://example.org", "/var/log/x", "stdout:"]
)
def test_unknown_output(uri: str) -> None:
    """An unknown scheme is a usage error."""
    with pytest.raises(TracerError) as caught:
        parse_destination(uri)
    assert caught.value.exit_code == EXIT_USAGE
    assert repr(uri) in str(caught.value)
    assert refusal(uri).exit_code == EXIT_USAGE


def test_full_disk() -> None:
    """A failed write is an error of the system, not of the usage."""
    sink = open_uri("file:/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        sink.write([b"line\n"])
    assert caught.value.errno == errno.ENOSPC
    sink.close()


def test_line_torn_by_a_full_disk(tmp_path: Path) -> None:
    """A partly written line spoils no other line, once there is room again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    sink = open_uri(f"file:{tmp_path}/new")
    sink.write([b'{"seq":0}\n'])
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (15, hard))
        with pytest.raises(OSError, match="File too large"):
            sink.write([b'{"seq":1}\n'])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    sink.write([b'{"seq":2}\n'])
    sink.close()
    lines = (tmp_path / "new").read_bytes().splitlines()
    assert lines[0] == b'{"seq":0}'
    assert lines[-1] == b'{"seq":2}'


def test_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    """Standard output gets the line, and stays open."""
    sink = open_uri("stdout")
    sink.write([b"line\n"])
    sink.close()
    os.write(1, b"more\n")
    assert capfd.readouterr() == ("line\nmore\n", "")


def test_reopened(tmp_path: Path) -> None:
    """After a rename, a new file is created at the path: with a signal or without."""
    path, renamed = tmp_path / "records.jsonl", tmp_path / "records.jsonl.1"
    sink = open_uri(f"file:{path}")
    sink.write([b"one\n"])
    path.rename(renamed)
    sink.write([b"two\n"])
    assert (renamed.read_bytes(), path.read_bytes()) == (b"one\n", b"two\n")
    path.rename(renamed)
    sink.reopen()
    sink.write([b"three\n"])
    sink.close()
    assert (renamed.read_bytes(), path.read_bytes()) == (b"two\n", b"three\n")


def test_not_reopened(tmp_path: Path) -> None:
    """If the path can no longer be opened, the open file remains in use."""
    path, renamed = tmp_path / "folder" / "records.jsonl", tmp_path / "renamed"
    path.parent.mkdir()
    sink = open_uri(f"file:{path}")
    path.parent.rename(renamed)
    with pytest.raises(TracerError, match="directory does not exist"):
        sink.reopen()
    sink.write([b"one\n"])
    sink.close()
    assert (renamed / "records.jsonl").read_bytes() == b"one\n"
