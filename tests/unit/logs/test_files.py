# SPDX-License-Identifier: Apache-2.0
"""logs/log_file.py: the format of a pipe is detected however slowly its bytes come; refusals name no command."""

import bz2
import gzip
import lzma
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness.environment import require
from tracer.base.errors import TracerError
from tracer.logs.log_file import LogFile, UnopenedError
from tracer.watch.feed import RecordFeed

TEXT = b"[    1.000000] usb 1-1: new device\n" * 100
COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
}


@contextmanager
def pipe(folder: Path, *pieces: bytes) -> Iterator[str]:
    """A FIFO into which these pieces are written, one after the other is read."""
    path = folder / "pipe"
    os.mkfifo(path)

    def write() -> None:
        with open(path, "wb", buffering=0) as file:
            for piece in pieces:
                file.write(piece)
                time.sleep(0.05)

    writer = threading.Thread(target=write)
    writer.start()
    yield str(path)
    writer.join(20)


@pytest.mark.parametrize("form", COMPRESSED)
@pytest.mark.parametrize("begin", [1, 2, 7])
def test_pipe_that_begins_slowly(form: str, begin: int, tmp_path: Path) -> None:
    """The first bytes show the compression, though they come one by one."""
    data = COMPRESSED[form](TEXT)
    pieces = [data[at : at + 1] for at in range(begin)]
    with pipe(tmp_path, *pieces, data[begin:]) as path:
        file = LogFile(path)
        assert b"".join(file.blocks()) == TEXT
        file.close()


@pytest.mark.parametrize("text", [b"", b"\n", b"a", b"1234567", b"12345678"])
def test_pipe_with_little_in_it(text: bytes, tmp_path: Path) -> None:
    """Nothing is lost."""
    with pipe(tmp_path, *(text[at : at + 1] for at in range(len(text)))) as path:
        file = LogFile(path)
        assert b"".join(file.blocks()) == text
        file.close()


def test_pipe_that_goes_on(tmp_path: Path) -> None:
    """A live pipe gives each piece as it comes; an empty one stands for a pause."""
    pieces = (b"12345678", b"a\n", b"b\n")
    with pipe(tmp_path, *pieces) as path:
        file = LogFile(path)
        assert b"".join(file.follow()) == b"".join(pieces)
        file.close()


def test_zstd_in_a_pipe(tmp_path: Path) -> None:
    """The error names the pipe, and no command: it may come from any."""
    program = shutil.which("zstd")
    require(program is not None, "zstd")
    data = subprocess.run([str(program), "-qc"], input=TEXT, capture_output=True, check=True, timeout=20).stdout
    with pipe(tmp_path, data) as path, pytest.raises(UnopenedError) as raised:
        LogFile(path)
    assert raised.value.message == f"{path} is compressed by zstd"
    assert "oomtrace" not in raised.value.hint


def test_compressed_file_cannot_grow(tmp_path: Path) -> None:
    """Following is refused at once, also by the watch, and the error names no option that a command may lack."""
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(TEXT))
    attempts: list[Callable[[], object]] = [LogFile(str(path)).follow, lambda: RecordFeed(str(path))]
    for follow in attempts:
        with pytest.raises(TracerError, match="cannot grow") as raised:
            follow()
        assert "--" not in raised.value.hint


def test_journal(tmp_path: Path) -> None:
    """The error names the program that makes a log of it, and no command."""
    path = tmp_path / "system.journal"
    path.write_bytes(b"LPKSHHRH" + bytes(1000))
    with pytest.raises(UnopenedError) as raised:
        LogFile(str(path))
    assert f"journalctl --file={path} -k -o json" in raised.value.hint
    assert "oomtrace" not in raised.value.hint
