# SPDX-License-Identifier: Apache-2.0
"""ledger.py: noted kills are known to the next run, and no content of the file does harm."""

import os
import struct
from binascii import crc32
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tracer.accounting.ledger import ENTRIES_MAX, Ledger, LedgerEntry

BOOT = "6a4ce4a0-ba47-11ea-b2a7-0cc47ac5979e"
OTHER_BOOT = "7a4ce4a0-ba47-11ea-b2a7-0cc47ac5979e"


def test_kills_are_remembered(tmp_path: Path) -> None:
    """A run after a SIGKILL continues where the last one was."""
    old = Ledger(f"{tmp_path}/ledger", BOOT)
    old.mark_explained(40, 1_000)
    old.note(5_000, 17, counts_twice=True)
    old.note(6_000, 18, counts_twice=False)
    old.save()
    for ledger in (old, Ledger(f"{tmp_path}/ledger", BOOT)):
        assert (ledger.explained, ledger.groups, ledger.kills, ledger.since_ns) == (42, 1, 2, 1_000)
        assert [LedgerEntry(5_000, 17), LedgerEntry(6_000, 18)] == list(ledger.entries())


def test_all_is_explained(tmp_path: Path) -> None:
    """The count starts again; the kills stay known."""
    ledger = Ledger(f"{tmp_path}/ledger", BOOT)
    assert (ledger.explained, ledger.since_ns) == (0, None)
    ledger.note(5_000, 17, counts_twice=True)
    ledger.mark_explained(2, 9_000)
    assert (ledger.explained, ledger.groups, ledger.kills, ledger.since_ns) == (2, 0, 0, 9_000)
    assert [LedgerEntry(5_000, 17)] == list(ledger.entries())


def saved(path: str, boot: str) -> None:
    """A ledger with one kill."""
    ledger = Ledger(path, boot)
    ledger.note(5_000, 17, counts_twice=False)
    ledger.save()


def test_another_boot(tmp_path: Path) -> None:
    """On a new boot the ledger counts from 0, as the kernel does."""
    saved(f"{tmp_path}/ledger", BOOT)
    ledger = Ledger(f"{tmp_path}/ledger", OTHER_BOOT)
    assert ledger.is_new
    ledger.save()
    assert (ledger.explained, ledger.since_ns, list(ledger.entries())) == (0, None, [])
    assert (Ledger(f"{tmp_path}/ledger", OTHER_BOOT).explained, ledger.since_ns) == (0, None)


def test_many(tmp_path: Path) -> None:
    """The file does not grow, and dropped entries are still counted."""
    for path in (f"{tmp_path}/ledger", None):
        ledger = Ledger(path, BOOT)
        for number in range(ENTRIES_MAX + 10):
            ledger.note(number, number, counts_twice=False)
        assert ledger.explained == ENTRIES_MAX + 10
        assert [LedgerEntry(number, number) for number in range(10, ENTRIES_MAX + 10)] == list(ledger.entries())
        ledger.save()
    assert (tmp_path / "ledger").stat().st_size < 300_000
    again = Ledger(f"{tmp_path}/ledger", BOOT)
    assert [entry.killed_ns for entry in again.entries()] == list(range(10, ENTRIES_MAX + 10))


def test_first_version(tmp_path: Path) -> None:
    """A file of the first version, which had room for fewer kills, is read and converted."""
    path, kills = tmp_path / "ledger", 5_000
    header = struct.Struct("=8s16sQQQQQQ").pack(
        b"oomled1\n", bytes.fromhex(BOOT.replace("-", "")), 7, 40, 1_000, 3, kills, 1
    )
    raw = bytearray(256 + 4096 * 16)
    raw[128 : 128 + len(header) + 4] = header + struct.pack("=I", crc32(header))
    for number in range(kills):
        struct.pack_into("=QI4x", raw, 256 + number % 4096 * 16, 10 * number, number)
    path.write_bytes(bytes(raw))
    expected = [LedgerEntry(10 * number, number) for number in range(kills - 4096, kills)]
    for _ in range(2):
        ledger = Ledger(str(path), BOOT)
        assert not ledger.is_damaged
        assert (ledger.explained, ledger.groups, ledger.kills, ledger.since_ns) == (40 + kills - 3, 1, kills - 3, 1_000)
        assert expected == list(ledger.entries())[-len(expected) :]
        assert set(list(ledger.entries())[: -len(expected)]) == {LedgerEntry(0, 0)}
        ledger.save()
    ledger.note(99, 99, counts_twice=False)
    ledger.save()
    assert [*expected, LedgerEntry(99, 99)] == list(Ledger(str(path), BOOT).entries())[-len(expected) - 1 :]


def test_unwritable(tmp_path: Path) -> None:
    """Without a file the ledger is in memory, with a warning."""
    (tmp_path / "ledger").mkdir()
    ledger = Ledger(f"{tmp_path}/ledger", BOOT)
    assert isinstance(ledger.error, IsADirectoryError)
    ledger.note(5_000, 17, counts_twice=False)
    assert ledger.explained == 1
    assert [LedgerEntry(5_000, 17)] == list(ledger.entries())


def test_disk_full(tmp_path: Path) -> None:
    """The file's full size is allocated at the start."""
    Ledger(f"{tmp_path}/ledger", BOOT)
    assert (tmp_path / "ledger").stat().st_blocks * 512 >= ENTRIES_MAX * 16


def test_broken_disk(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """If the file fails, noted kills stay known in this run, with one warning."""
    ledger = Ledger(f"{tmp_path}/ledger", BOOT)
    ledger.note(5_000, 17, counts_twice=False)
    ledger.save()
    assert ledger._file is not None
    reader = os.open(tmp_path / "ledger", os.O_RDONLY)
    os.dup2(reader, ledger._file)
    os.close(reader)
    for number in range(3):
        ledger.note(6_000 + number, 18, counts_twice=False)
        ledger.save()
    assert ledger.explained == 4
    assert [each.killed_ns for each in ledger.entries()] == [5_000, 6_000, 6_001, 6_002]
    assert capfd.readouterr().err.count("\n") == 1


def test_number_that_no_thread_has(tmp_path: Path) -> None:
    """No number from a log raises an error."""
    Ledger(f"{tmp_path}/ledger", BOOT).note(5_000, 9_999_999_999, counts_twice=False)


def test_link(tmp_path: Path) -> None:
    """A symbolic link is not followed."""
    (tmp_path / "ledger").symlink_to("target")
    assert Ledger(f"{tmp_path}/ledger", BOOT).error is not None
    assert not (tmp_path / "target").exists()


def test_killed_while_writing(tmp_path: Path) -> None:
    """A header with an invalid checksum is ignored, and the previous one counts."""
    path = tmp_path / "ledger"
    ledger = Ledger(str(path), BOOT)
    ledger.note(5_000, 17, counts_twice=False)
    ledger.save()
    before = path.read_bytes()
    ledger.note(6_000, 18, counts_twice=False)
    ledger.save()
    after = path.read_bytes()
    changed = [at for at in range(256) if after[at : at + 1] != before[at : at + 1]]
    path.write_bytes(after[: changed[-1]] + b"\xff" + after[changed[-1] + 1 :])
    assert Ledger(str(path), BOOT).explained == 1


def test_held(tmp_path: Path) -> None:
    """A kill whose record is not acknowledged is not on disk: the next run would take it for recorded."""
    path = f"{tmp_path}/ledger"
    ledger = Ledger(path, BOOT)
    ledger.note(5_000, 17, counts_twice=False)
    let_go = ledger.hold()
    ledger.note(6_000, 18, counts_twice=False)
    ledger.mark_explained(9, 7_000)
    also = ledger.hold()
    ledger.note(8_000, 19, counts_twice=True)
    for free, explained, is_saved in ((None, 1, False), (let_go, 9, False), (also, 10, True)):
        if free is not None:
            free()
        ledger.save()
        assert ledger.is_saved == is_saved
        assert (ledger.explained, Ledger(path, BOOT).explained) == (10, explained)
    assert [entry.tid for entry in Ledger(path, BOOT).entries()] == [17, 18, 19]
    assert Ledger(path, BOOT).groups == 1


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged(tmp_path: Path, data: st.DataObject) -> None:
    """Any content of the file: no error, and new kills are noted correctly."""
    path = tmp_path / "ledger"
    path.unlink(missing_ok=True)
    saved(str(path), BOOT)
    raw = bytearray(path.read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(raw) - 1), max_size=5)):
        raw[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(raw[: data.draw(st.integers(0, len(raw)))]))
    ledger = Ledger(str(path), BOOT)
    known = ledger.explained
    assert known in (0, 1)
    list(ledger.entries())
    ledger.note(6_000, 18, counts_twice=False)
    ledger.save()
    assert known + 1 == ledger.explained == Ledger(str(path), BOOT).explained
    assert LedgerEntry(6_000, 18) in ledger.entries()
    assert os.path.getsize(path) < 300_000
