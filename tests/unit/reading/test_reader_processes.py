# SPDX-License-Identifier: Apache-2.0
"""reader_processes.py: processes that read what may hang, and are given up."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness.lines import TIMEOUT_S
from tracer.linux.safe_files import UnreadableError
from tracer.reading import directory_reader, processes
from tracer.reading.directory_reader import DirectoryReader
from tracer.reading.hung_sources import HungSources
from tracer.reading.process_list import ProcessList
from tracer.reading.reader_processes import IDLE_MAX, ReaderPool, ReadTimeoutError

LONG = "é" * 200_000


def read(path: str, _subject: str = "") -> str:
    """Waits for a writer if the path is a FIFO's."""
    return Path(path).read_text()


def pid() -> int:
    return os.getpid()


def long() -> str:
    return LONG


def fail() -> None:
    raise ValueError("what was \ud800 there")


def hangs(read: Callable[[], object]) -> None:
    with pytest.raises(UnreadableError, match="no answer within"):
        read()


@pytest.fixture
def readers() -> Iterator[ReaderPool]:
    made = ReaderPool((read, pid, long, fail))
    yield made
    made.close()


@pytest.fixture
def fifo(tmp_path: Path) -> str:
    os.mkfifo(tmp_path / "fifo")
    return str(tmp_path / "fifo")


def test_answers(readers: ReaderPool, tmp_path: Path) -> None:
    """The function's result, however long, or its error."""
    (tmp_path / "file").write_text("text")
    assert readers.ask(TIMEOUT_S, read, str(tmp_path / "file")) == "text"
    assert readers.ask(TIMEOUT_S, long) == LONG
    with pytest.raises(UnreadableError, match="No such file"):
        readers.ask(TIMEOUT_S, read, str(tmp_path / "none"))
    with pytest.raises(UnreadableError, match=r"what was .* there"):
        readers.ask(TIMEOUT_S, fail)


def test_hangs(readers: ReaderPool, fifo: str) -> None:
    """No call exceeds its timeout; a process that hangs is killed, and the next call has an answer."""
    first = readers.ask(TIMEOUT_S, pid)
    began_s = time.monotonic()
    with pytest.raises(ReadTimeoutError) as hangs:
        readers.ask(0.1, read, fifo)
    assert 0.1 <= time.monotonic() - began_s < TIMEOUT_S
    assert readers.ask(TIMEOUT_S, pid) != first
    until_s = time.monotonic() + TIMEOUT_S
    while not hangs.value.has_ended():
        assert time.monotonic() < until_s


def test_others_do_not_wait(readers: ReaderPool, fifo: str) -> None:
    """A call that hangs in one thread delays no other thread; processes are reused."""
    asking = threading.Thread(target=hangs, args=(lambda: readers.ask(1.0, read, fifo),))
    asking.start()
    seen = {readers.ask(TIMEOUT_S, pid) for _ in range(20)}
    assert asking.is_alive()
    assert len(seen) == 1
    asking.join()


def test_idle(readers: ReaderPool) -> None:
    """No more idle processes stay than allowed."""
    threads = [threading.Thread(target=readers.ask, args=(TIMEOUT_S, long)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(readers._idle) <= IDLE_MAX


def test_ended_by_somebody(readers: ReaderPool) -> None:
    """A process that was killed while idle is replaced."""
    first = readers.ask(TIMEOUT_S, pid)
    os.kill(first, signal.SIGKILL)
    assert readers.ask(TIMEOUT_S, pid) != first


def test_nobody_left(readers: ReaderPool, tmp_path: Path) -> None:
    """If no process can be started the read fails; signals for the parent do not end readers."""
    first = readers.ask(TIMEOUT_S, pid)
    forker = int(Path(f"/proc/{first}/stat").read_text().split()[3])
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(first, number)
        os.kill(forker, number)
    assert readers.ask(TIMEOUT_S, pid) == first
    os.kill(forker, signal.SIGKILL)
    until_s = time.monotonic() + TIMEOUT_S
    while Path(f"/proc/{first}").exists():  # it ends with the one that forked it
        assert time.monotonic() < until_s
    with pytest.raises(UnreadableError, match="no process can be started"):
        readers.ask(TIMEOUT_S, pid)


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM])
def test_ends_with_the_asker(fifo: str, by: signal.Signals) -> None:
    """Readers end with their parent, however it ends, and keep none of its descriptors: a reader of its output sees the
    end."""
    program = (
        "from tests.unit.reading.test_reader_processes import *\n"
        "readers = ReaderPool((read, pid))\n"
        "print(readers.ask(10, pid), flush=True)\n"
        f"readers.ask(60, read, {fifo!r})\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as asker:
        assert asker.stdout is not None
        reader = int(asker.stdout.readline())
        asker.send_signal(by)
        assert asker.stdout.read() == b""
        assert asker.wait() == -by
    until_s = time.monotonic() + TIMEOUT_S
    while Path(f"/proc/{reader}").exists():
        assert time.monotonic() < until_s


def test_folder(readers: ReaderPool, fifo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that hung is not read again at once, others are; neither is one that is slow at the moment."""
    monkeypatch.setattr(directory_reader, "READ_S", 0.5)
    (tmp_path / "file").write_text("text")
    hung = HungSources()
    folders = DirectoryReader(readers, hung)
    asking = threading.Thread(target=hangs, args=(lambda: folders.read(read, fifo, ""),))
    asking.start()
    time.sleep(0.3)
    for _ in range(2):
        began_s = time.monotonic()
        with pytest.raises(UnreadableError, match="no answer"):
            folders.read(read, fifo, "")
        assert time.monotonic() - began_s < 0.2
        assert folders.read(read, str(tmp_path / "file"), "") == "text"
        asking.join()
    assert hung.has_directory(fifo)
    assert not hung.has_directory(str(tmp_path / "file"))


def test_processes_without_a_reader() -> None:
    """If no reader can be started, all processes are listed without command lines."""
    readers = ReaderPool((processes.read_as_plain,))
    readers.close()
    found = {each.pid: each for each in ProcessList(readers, HungSources()).read()}
    own = found[os.getpid()]
    assert own.comm
    assert own.cmdline == ()
    assert os.getppid() in found
