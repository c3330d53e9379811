# SPDX-License-Identifier: Apache-2.0
"""sinks/pipe.py: readers that are slow, close, and come back."""

import fcntl
import os
import pty
import select
import socket
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness.lines import TIMEOUT_S, numbers, record, settle, wait_for, whole_numbers
from tracer.base.errors import TracerError
from tracer.delivery.output import Output
from tracer.delivery.sinks import Sink
from tracer.delivery.sinks.open import open_uri
from tracer.delivery.spool import Spool


@contextmanager
def standard_output(descriptor: int) -> Iterator[Sink]:
    """The sink, while ``descriptor`` is standard output."""
    before = os.dup(1)
    os.dup2(descriptor, 1)
    os.close(descriptor)
    try:
        yield open_uri("stdout")
    finally:
        os.dup2(before, 1)
        os.close(before)


def read(descriptor: int, count: int = 1 << 30) -> bytes:
    """All available bytes."""
    data = b""
    while len(data) < count and select.select([descriptor], [], [], 0)[0]:
        piece = os.read(descriptor, 65536)
        if not piece:
            break
        data += piece
    return data


def fill(sink: Sink, first: int, bytes_: int) -> int:
    """Write until the pipe is full; return the number of the line that did not fit."""
    for number in range(first, first + 10_000):
        try:
            sink.write([record(number, bytes_)])
        except TimeoutError:
            return number
    pytest.fail("nobody reads, and it takes all")


@pytest.mark.parametrize("kind", ["pipe", "socket"])
@pytest.mark.parametrize("bytes_", [100, 5000, 100_000])
def test_slow_reader(kind: str, bytes_: int) -> None:
    """A reader that does not read is a failure after 1 s; the partial line is completed later."""
    if kind == "pipe":
        reader, writer = os.pipe()
    else:
        left, right = socket.socketpair()
        reader, writer = left.detach(), right.detach()
    with standard_output(writer) as sink:
        assert not fcntl.fcntl(1, fcntl.F_GETFL) & os.O_NONBLOCK
        stuck = fill(sink, 0, bytes_)
        before = time.monotonic()
        with pytest.raises(TimeoutError, match="the reader does not read"):
            sink.write([record(stuck, bytes_)])
        assert 0.9 < time.monotonic() - before < TIMEOUT_S
        assert not sink.dead
        assert not fcntl.fcntl(1, fcntl.F_GETFL) & os.O_NONBLOCK, "others share it"
        data = read(reader)
        while True:  # the stuck line may be larger than the pipe
            try:
                sink.write([record(stuck, bytes_)])
                break
            except TimeoutError:
                data += read(reader)
        sink.write([record(stuck + 1, 100)])
        data += read(reader)
    os.close(reader)
    assert numbers(data) == list(range(stuck + 2))


def test_reader_of_stdout_leaves() -> None:
    """No process can reopen an inherited pipe."""
    reader, writer = os.pipe()
    with standard_output(writer) as sink:
        sink.write([record(0)])
        os.close(reader)
        with pytest.raises(BrokenPipeError):
            sink.write([record(1)])
        assert sink.dead


@pytest.mark.parametrize("is_spooled", [False, True])
def test_dead_output(is_spooled: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The output acknowledges nothing more, and says so once; undelivered lines are in the spool, if there is one."""
    reader, writer = os.pipe()
    with standard_output(writer) as sink:
        spool = Spool(str(tmp_path), "stdout") if is_spooled else None
        output = Output(sink, spool)
        output.put(record(0))
        settle(output, 1)
        os.close(reader)
        output.put(record(1))
        wait_for(lambda: output.dead)
        for number in range(2, 10):
            output.put(record(number))
        output.close(1)
    assert (output.acknowledged, output.dropped) == (1 + is_spooled, 0)
    assert capfd.readouterr().err == "oomtrace: stdout is closed permanently: Broken pipe\n"
    reader, writer = os.pipe()
    with standard_output(writer) as sink:  # the next start
        output = Output(sink, Spool(str(tmp_path), "stdout"))
        output.put(record(2))
        output.close(TIMEOUT_S)
    assert numbers(read(reader)) == [1, 2][1 - is_spooled :]
    os.close(reader)


def test_stdout_on_a_full_disk() -> None:
    """The failure can be repaired."""
    with standard_output(os.open("/dev/full", os.O_WRONLY)) as sink:
        with pytest.raises(OSError, match="No space left"):
            sink.write([record(0)])
        assert not sink.dead


def test_stdout_closed() -> None:
    """One clear error at the start."""
    before = os.dup(1)
    os.close(1)
    try:
        with pytest.raises(TracerError, match="standard output is closed"):
            open_uri("stdout")
    finally:
        os.dup2(before, 1)
        os.close(before)


def test_terminal(tmp_path: Path) -> None:
    """A terminal stopped by ^S is a slow reader; it continues with ^Q."""
    controller, terminal = pty.openpty()
    path = os.ttyname(terminal)
    attributes = termios.tcgetattr(terminal)
    attributes[1] &= ~termios.OPOST
    termios.tcsetattr(terminal, termios.TCSANOW, attributes)
    sink = open_uri(f"file:{path}")
    termios.tcflow(terminal, termios.TCOOFF)
    with pytest.raises(TimeoutError):
        sink.write([record(0)])
    termios.tcflow(terminal, termios.TCOON)
    sink.write([record(0)])
    assert numbers(read(controller)) == [0]
    sink.close()
    os.close(terminal)
    os.close(controller)


def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def test_fifo(tmp_path: Path) -> None:
    """Without a reader writes fail, and recover with one; unread data is left for the next reader."""
    path = fifo(tmp_path)
    sink = open_uri(f"file:{path}")
    with pytest.raises(OSError, match="it has no reader"):
        sink.write([record(0)])
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    for number in range(3):
        sink.write([record(number)])
    data = os.read(reader, len(record(0)))
    os.close(reader)
    with pytest.raises(OSError, match="the reader has closed it"):
        sink.write([record(3)])
    assert not sink.dead
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    sink.write([record(3)])
    assert numbers(data + read(reader)) == [0, 1, 2, 3]
    sink.close()
    os.close(reader)


@pytest.mark.parametrize("is_read", [False, True])
def test_fifo_left_in_the_middle_of_a_line(is_read: bool, tmp_path: Path) -> None:
    """The next reader gets the whole line, after the part that may still be in the pipe."""
    path = fifo(tmp_path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    sink = open_uri(f"file:{path}")
    stuck = fill(sink, 0, 9000)  # three pieces a line: not a divisor of the pipe's 16
    if is_read:
        read(reader)
    os.close(reader)
    with pytest.raises(OSError, match="the reader has closed it"):
        sink.write([record(stuck, 9000)])
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    data = b"" if is_read else read(reader)
    sink.write([record(stuck, 9000)])
    sink.write([record(stuck + 1)])
    data += read(reader)
    assert data.startswith(b"{")
    assert whole_numbers(data) == list(range(stuck if is_read else 0, stuck + 2))
    sink.close()
    os.close(reader)


def test_fifo_replaced(tmp_path: Path) -> None:
    """A new FIFO at the path is opened; a removed one is used as long as it has a reader."""
    path = fifo(tmp_path)
    old = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    sink = open_uri(f"file:{path}")
    path.unlink()
    sink.write([record(0)])
    fifo(tmp_path)
    with pytest.raises(OSError, match="it has no reader"):
        sink.write([record(1)])
    new = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    sink.write([record(1)])
    assert (numbers(read(old)), numbers(read(new))) == ([0], [1])
    path.unlink()
    path.touch()
    with pytest.raises(OSError, match="no longer a FIFO"):
        sink.write([record(2)])
    sink.close()
    os.close(old)
    os.close(new)


def test_fifo_output(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Readers come and go: every line arrives, in order, and stderr has two lines per cycle."""
    path = fifo(tmp_path)
    (tmp_path / "state").mkdir()
    output = Output(open_uri(f"file:{path}"), Spool(f"{tmp_path}/state", f"file:{path}"))
    data, count = b"", 0
    for _ in range(3):
        for number in range(count, count + 300):
            output.put(record(number, 1000))
        count += 300
        settle(output, count)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        output.reopen()  # or it would be tried seconds later
        while len(data) < count * 1000:
            select.select([reader], [], [], TIMEOUT_S)
            data += os.read(reader, 65536)
        wait_for(lambda: "works again" in capfd.readouterr().err)
        os.close(reader)
    output.close(1)
    assert numbers(data) == list(range(900))


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/urandom"])
def test_devices(path: str) -> None:
    """Opening a device may have any effect, so it is refused."""
    with pytest.raises(TracerError, match="a device or a socket: name a file, a FIFO or a terminal"):
        open_uri(f"file:{path}")
