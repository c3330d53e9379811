# SPDX-License-Identifier: Apache-2.0
"""hung_sources.py: what is not read again, in this run and later ones of this boot."""

import os
from pathlib import Path

import pytest

from tracer.base.hung_disk import DiskWorker
from tracer.linux import procfs
from tracer.reading import hung_sources as module
from tracer.reading.hung_sources import AGAIN_FIRST_S, HungSources

BOOT = "6a4ce4a0-ba47-11ea-b2a7-0cc47ac5979e"
OWN = os.getpid()


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds since boot; the test changes them."""
    clock = [1000.0]
    monkeypatch.setattr(module, "boottime_ns", lambda: int(clock[0] * 1e9))
    return clock


def own_start_ns() -> int:
    start_ns = procfs.read_start_ns(OWN)
    assert start_ns is not None
    return start_ns


def test_process() -> None:
    """By pid and start, to the clock tick."""
    hung = HungSources()
    hung.add_process(7, 120_000_001)
    assert hung.has_pid(7)
    assert hung.has_process(7, 120_000_000)
    assert hung.has_process(7, 129_999_999)
    assert not hung.has_process(7, 130_000_000)
    assert not hung.has_process(8, 120_000_000)


def test_folder(now: list[float]) -> None:
    """A directory is read again after a time that doubles, and not before the reader that hung in it has ended."""
    hung = HungSources()
    ended: list[int] = []
    hung.add_directory("/user", lambda: bool(ended))
    now[0] += AGAIN_FIRST_S + 1
    assert hung.has_directory("/user")
    ended.append(1)
    assert not hung.has_directory("/user")
    hung.add_directory("/user")
    now[0] += AGAIN_FIRST_S + 1
    assert hung.has_directory("/user")
    now[0] += AGAIN_FIRST_S
    assert not hung.has_directory("/user")
    hung.remove_directory("/user")
    hung.add_directory("/user")
    now[0] += AGAIN_FIRST_S + 1
    assert not hung.has_directory("/user")


def test_kept(tmp_path: Path, now: list[float]) -> None:
    """The next run remembers it, unless the process has exited or the host was rebooted."""
    path, disk = str(tmp_path / "hung"), DiskWorker()
    first = HungSources(path, BOOT, disk)
    first.add_process(OWN, own_start_ns())
    first.add_process(2**22 + 1, 5)  # a pid that cannot be
    first.add_directory("/user")
    assert disk.wait_idle()
    second = HungSources(path, BOOT, disk)
    assert second.has_process(OWN, own_start_ns())
    assert second.has_directory("/user")
    assert not second.has_pid(2**22 + 1)
    third = HungSources(path, BOOT.replace("6", "7"), disk)
    assert not third.has_pid(OWN)
    assert not third.has_directory("/user")


def test_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the latest are remembered."""
    monkeypatch.setattr(module, "PROCESSES_MAX", 3)
    monkeypatch.setattr(module, "DIRECTORIES_MAX", 3)
    hung = HungSources()
    for number in range(5):
        hung.add_process(number, 0)
        hung.add_directory(f"/{number}")
    assert [number for number in range(5) if hung.has_pid(number)] == [2, 3, 4]
    assert [number for number in range(5) if hung.has_directory(f"/{number}")] == [2, 3, 4]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"boot": 1}',
        f'{{"boot": "{BOOT}", "processes": [["a"]], "folders": []}}',
        f'{{"boot": "{BOOT}", "processes": [], "folders": [["/", 1]]}}',
        "[" * 100_000,
    ],
)
def test_damaged(tmp_path: Path, text: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A damaged file is ignored, and written anew."""
    (tmp_path / "hung").write_text(text)
    disk = DiskWorker()
    hung = HungSources(str(tmp_path / "hung"), BOOT, disk)
    hung.add_process(OWN, own_start_ns())
    assert disk.wait_idle()
    assert HungSources(str(tmp_path / "hung"), BOOT, disk).has_pid(OWN)


def test_no_links(tmp_path: Path) -> None:
    """Nothing is read or written through a link."""
    (tmp_path / "other").write_text("mine")
    (tmp_path / "hung").symlink_to(tmp_path / "other")
    (tmp_path / "hung.new").symlink_to(tmp_path / "other")
    disk = DiskWorker()
    HungSources(str(tmp_path / "hung"), BOOT, disk).add_process(OWN, own_start_ns())
    disk.wait_idle()
    assert (tmp_path / "other").read_text() == "mine"
