# SPDX-License-Identifier: Apache-2.0
"""logs/kills.py and logs/boots.py: kills by boot, process or name, from several sources."""

import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests.harness.kernel_log_files import FILES, lines
from tests.harness.log_formats import BOOT_ID, SPLIT, WHOLE, entry
from tracer.base.errors import TracerError
from tracer.logs.kills import KillFilter, KillSearch, ReadOptions
from tracer.logs.log_line import LogLine
from tracer.records.model import OomKill

KILLED = (
    b"Out of memory: Killed process %d (%s) total-vm:8kB, anon-rss:4kB, file-rss:4kB, shmem-rss:0kB, UID:0 "
    b"pgtables:4kB oom_score_adj:0"
)
START = b"Linux version 6.1.0-41-amd64 (debian-kernel@lists.debian.org) (gcc-12 (Debian 12.2.0-14) 12.2.0) #1 SMP"
SECOND_NS = 1_000_000_000


def tids(records: Iterable[OomKill]) -> list[int]:
    return [record["victim"]["tid"] for record in records]


def search(log: bytes, folder: Path, **wanted: str | int | None) -> list[int]:
    file = folder / "log"
    file.write_bytes(log)
    form = ReadOptions(boot_time="2026-11-24T06:00:00Z", timezone="UTC")
    return tids(KillSearch(KillFilter(**wanted), form).kills([str(file)]))  # type: ignore[arg-type]


def boot(*kills: int, start: bool = True, at_s: int = 100) -> list[LogLine]:
    """A boot's lines."""
    first = [LogLine(START, 0, "printk")] if start else []
    return [
        *first,
        *(LogLine(KILLED % (tid, b"x"), (at_s + n) * SECOND_NS, "printk") for n, tid in enumerate(kills)),
        LogLine(b"usb 1-1: new device", (at_s + 2 * len(kills)) * SECOND_NS, "printk"),
    ]


BOOTS = [boot(1, 2), boot(), boot(3, at_s=500), boot(4, 5)]
ASKED = [("1", [1, 2]), ("2", []), ("3", [3]), ("4", [4, 5]), ("0", [4, 5]), ("-1", [3]), ("-2", []), ("-3", [1, 2])]
FORMS = ["dmesg", "rsyslog", "rsyslog, RFC 3339", "journal short", "journal short-monotonic", "RFC 5424"]


@pytest.mark.parametrize(("asked", "expected"), [*ASKED, ("5", []), ("-4", []), ("-9", [])])
@pytest.mark.parametrize("form", FORMS)
def test_boot_by_number(form: str, asked: str, expected: list[int], tmp_path: Path) -> None:
    """Boots are separated by the kernel's first line, those without kills as well, and numbered as in journalctl."""
    log = {**WHOLE, **SPLIT}[form](line for each in BOOTS for line in each)
    assert search(log, tmp_path, boot=asked) == expected


@pytest.mark.parametrize(("asked", "expected"), ASKED)
@pytest.mark.parametrize("form", ["journal json", "journal export"])
def test_boot_of_the_journal(form: str, asked: str, expected: list[int], tmp_path: Path) -> None:
    """The journal has an id per boot, and may have lost the first line."""
    log = b"".join(
        WHOLE[form](lines if number else lines[1:]).replace(BOOT_ID.encode(), b"%032x" % (number + 1))
        for number, lines in enumerate(BOOTS)
    )
    assert search(log, tmp_path, boot=asked) == expected
    assert search(log, tmp_path, boot=f"{4:032x}") == [4, 5]


def test_boot_without_first_line(tmp_path: Path) -> None:
    """An uptime that goes back begins another boot; what precedes the first such line is of the first boot."""
    log = SPLIT["rsyslog"]([*boot(1, 2, start=False, at_s=500), *boot(3, start=False), *boot(4), *boot(5, start=False)])
    assert [search(log, tmp_path, boot=asked) for asked in ("1", "2", "3")] == [[1, 2], [3], [4, 5]]


def test_boots_of_two_hosts(tmp_path: Path) -> None:
    """Each host has its own last boot."""
    log = SPLIT["rsyslog"]([*boot(1), *boot(2)]) + SPLIT["rsyslog"](boot(3)).replace(b"node-1", b"node-2")
    assert search(log, tmp_path, boot="0") == [2, 3]
    assert search(log, tmp_path, boot="-1") == [1]


@pytest.mark.parametrize("form", ["rsyslog, RFC 3339", "journal json"])
def test_order_of_hosts(form: str, tmp_path: Path) -> None:
    """In a central log kills come in the order of time, and the latest are the latest of all hosts."""
    wrapped = {**WHOLE, **SPLIT}[form]
    log = b""
    for name, tid, at_s in ((b"a", 1, 100), (b"b", 2, 4300), (b"a", 3, 7300), (b"b", 4, 7400)):
        log += wrapped(boot(tid, start=False, at_s=at_s)).replace(b"node-1", b"node-" + name)
    assert search(log, tmp_path) == [1, 2, 3, 4]
    assert [search(log, tmp_path, last=count) for count in (1, 2, 3)] == [[4], [3, 4], [2, 3, 4]]
    assert search(log, tmp_path, boot="0") == [1, 2, 3, 4]
    assert [search(log, tmp_path, boot="0", last=count) for count in (1, 2, 3)] == [[4], [3, 4], [2, 3, 4]]


def test_hosts_that_kill_at_once(tmp_path: Path) -> None:
    """Reports of two hosts that are interleaved line by line stay complete, though one's clock is 5 s ahead."""
    logs = []
    for name, ahead_ns in ((b"a", 0), (b"b", 5_000_000_000)):
        log = [line._replace(time_ns=(line.time_ns or 0) + ahead_ns) for line in lines(FILES["7.2-group"])]
        logs.append(SPLIT["rsyslog, RFC 3339"](log).replace(b"node-1", b"node-" + name).splitlines(keepends=True))
    mixed = b"".join(line for pair in zip(*logs, strict=True) for line in pair)
    path = _write(tmp_path, mixed)
    found = list(KillSearch().kills([str(path)]))
    assert sorted(record["host"]["name"] or "" for record in found) == ["node-a"] * 3 + ["node-b"] * 3
    assert all(record["trigger"] is not None for record in found)


def test_boots_of_rotated_files(tmp_path: Path) -> None:
    """Files are one log, in the order in which they are given."""
    for name, each in zip("ab", (boot(1), boot(2, start=False, at_s=700)), strict=True):
        (tmp_path / name).write_bytes(SPLIT["rsyslog"](each))
    assert tids(KillSearch(KillFilter(boot="0")).kills([str(tmp_path / "a"), str(tmp_path / "b")])) == [1, 2]


@pytest.mark.parametrize("form", ["dmesg", "rsyslog", "journal json", "journal export"])
def test_report_in_two_files(form: str, tmp_path: Path) -> None:
    """A report within which a log was rotated is complete; other logs are no part of it."""
    log = list(lines(FILES["6.12-other"]))
    paths = [tmp_path / name for name in ("whole", "a", "b")]
    for path, part in zip(paths, (log, log[:-1], log[-1:]), strict=True):
        path.write_bytes({**WHOLE, **SPLIT}[form](part))
    whole, first, second = map(str, paths)
    expected = list(KillSearch().kills([whole]))
    assert expected[0]["limit"] is not None
    assert list(KillSearch().kills([first, second])) == expected
    assert list(KillSearch().kills([first, whole])) == expected
    (alone,) = KillSearch().kills([second])
    assert alone["limit"] is None
    assert list(KillSearch().kills([second, first])) == [alone]
    assert list(KillSearch().kills([second, second, whole])) == [alone, alone, *expected]


def test_many_kills_are_not_kept_in_memory(tmp_path: Path) -> None:
    """The last of the last boot, of more kills than are held in memory."""
    log = SPLIT["rsyslog"]([*boot(*range(1, 3000)), *boot(*range(3000, 6000))])
    assert search(log, tmp_path, boot="-1", last=2) == [2998, 2999]
    assert search(log, tmp_path, boot="0") == list(range(3000, 6000))


def test_boot_that_makes_no_sense() -> None:
    """The error names valid values."""
    for wrong in ("yesterday", "", "--1", BOOT_ID[:-1]):
        with pytest.raises(TracerError, match="invalid boot"):
            KillSearch(KillFilter(boot=wrong))
    with pytest.raises(TracerError, match="--follow"):
        KillSearch(KillFilter(boot="-1"), ReadOptions(follow=True))


def test_process(tmp_path: Path) -> None:
    """By pid, of the process and of the thread that the log names, and by comm."""
    log = SPLIT["rsyslog"](lines(FILES["7.2-group"]))
    assert len(search(log, tmp_path)) == 3
    (tid,) = search(log, tmp_path, comm="hog-main")
    assert search(log, tmp_path, pid=tid) == [tid]
    assert search(log, tmp_path, comm="hog") == []
    assert len(search(log, tmp_path, comm="hog-bystander?")) == 2
    for number in (100, 103):  # the process, and its thread that was killed
        thread = log.replace(b"[    236]     0   236", b"[    236]     0   100").replace(b"236", b"103")
        assert search(thread, tmp_path, pid=number) == [103]


def _write(folder: Path, log: bytes) -> Path:
    (folder / "log").write_bytes(log)
    return folder / "log"


def test_sources_that_cannot_be_read(tmp_path: Path) -> None:
    """Unreadable sources are passed to the callback, or raised; the others are searched."""
    log, none = str(_write(tmp_path, SPLIT["rsyslog"](boot(1)))), str(tmp_path / "none")
    told: list[TracerError] = []
    assert tids(KillSearch().kills([none, log], told.append)) == [1]
    assert [str(error) for error in told if "none" in str(error)] == [str(error) for error in told] != []
    with pytest.raises(TracerError, match="none"):
        list(KillSearch().kills([none]))


def test_first_kill_comes_before_the_log_ends(tmp_path: Path) -> None:
    """`kills` is an iterator: no kill waits for the rest."""
    log = SPLIT["rsyslog"](boot(*range(1, 20000)))
    assert next(iter(KillSearch().kills([str(_write(tmp_path, log))])))["victim"]["tid"] == 1


def test_needs_no_command_line() -> None:
    """Scripts can use it without typer."""
    program = "import sys, tracer.logs.kills; print('typer' in sys.modules)"
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, capture_output=True, check=True, timeout=60).stdout == b"False\n"


SPELL: Callable[[int, bytes], bytes] = lambda n, text: entry(  # noqa: E731
    {
        "__REALTIME_TIMESTAMP": str(1_795_500_000_000_000 + n),
        "_TRANSPORT": "kernel",
        "_HOSTNAME": "h",
        "_BOOT_ID": BOOT_ID,
    },
    text,
)


def test_name_that_is_no_text_in_an_open_report(tmp_path: Path) -> None:
    """In JSON a message that is not UTF-8 is a list of numbers, and is found as well."""
    log = b"".join(
        SPELL(n, text)
        for n, text in enumerate(
            [
                b"x invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
                b"oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/g,"
                b"task_memcg=/g,task=\xff,pid=7,uid=5",
                KILLED.replace(b"Out of memory", b"Memory cgroup out of memory") % (7, b"\xff"),
            ]
        )
    )
    (record,) = KillSearch().kills([str(_write(tmp_path, log))])
    assert record["limit"] is not None
    assert (record["limit"]["cgroup"], record["victim"]["comm"]) == ("/g", "\\xff")


POD = "2c48913c-b29f-11e7-9350-020968147796"
DOCKER_ID = "5aaf9eb7648eeb1459d86eaa0ace8bcfa93089642e5c3113a14250dae3238aaf"


@pytest.mark.parametrize(
    ("path", "container", "pod", "unit"),
    [
        (f"/docker/{DOCKER_ID}", DOCKER_ID, None, None),
        (f"/kubepods/burstable/pod{POD}/{DOCKER_ID}", DOCKER_ID, POD, None),
        (f"/kubepods/burstable/pod{POD}", None, POD, None),
        ("/system.slice/mail.service", None, None, "mail.service"),
        ("/system.slice/mail.service/workers", None, None, "mail.service"),
        ("/system.slice", None, None, None),
        ("/grp", None, None, None),
    ],
)
@pytest.mark.parametrize("name", ["7.2-group", "5.10-grouptree"])
def test_others_of_a_group(
    name: str, path: str, container: str | None, pod: str | None, unit: str | None, tmp_path: Path
) -> None:
    """All victims of a group kill are in the cgroup that the log names, so they have its owner."""
    group = {"7.2-group": b"/grp", "5.10-grouptree": b"/gt"}[name]
    log = _write(tmp_path, FILES[name].replace(group, path.encode()))
    first, *others = KillSearch().kills([str(log)])
    assert others
    assert (first["victim"]["cgroup"] or "").startswith(path)
    for each in others:
        assert each["victim"]["cgroup"] is None
        assert (each["container"] and each["container"]["id"]) == container
        assert (each["kubernetes"] and each["kubernetes"]["pod_uid"]) == pod
        assert (each["systemd"] and each["systemd"]["unit"]) == unit
        assert each["container"] in (None, first["container"])
        assert each["kubernetes"] in (None, first["kubernetes"])
    wanted = KillFilter(container=container, unit=unit)
    assert len(list(KillSearch(wanted).kills([str(log)]))) == 1 + len(others)
