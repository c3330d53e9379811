# SPDX-License-Identifier: Apache-2.0
"""``oomtrace parse``, as a user runs it."""

import bz2
import calendar
import gzip
import json
import lzma
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.environment import ROOT, require
from tests.harness.kernel_log_files import FILES, lines, reports
from tests.harness.lines import wait_for
from tests.harness.log_formats import BOOT_ID, BOOT_NS, HOST, SPLIT, WHOLE
from tests.harness.schema import validate
from tracer.base.errors import EXIT_FAILED, EXIT_USAGE
from tracer.identity.enrich import enrich_cgroups
from tracer.logs.log_records import LogRecords

NAME = "7.2-group"
LOG = list(lines(FILES[NAME]))
BOOT_TIME = "2026-11-24T06:00:00Z"
STORM = SPLIT["rsyslog, RFC 3339"](lines(FILES["6.1-v1-storm"]))
KILLED = (
    b"Memory cgroup out of memory: Killed process %d (x) total-vm:8kB, anon-rss:4kB, file-rss:4kB, shmem-rss:0kB, "
    b"UID:0 pgtables:4kB oom_score_adj:0"
)
COMMAND = [sys.executable, "-m", "tracer", "parse"]


def run(*arguments: str, log: bytes = b"", zone: str = "UTC") -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "TZ": zone}
    return subprocess.run(
        [*COMMAND, *arguments], cwd=ROOT, input=log, capture_output=True, timeout=60, check=False, env=environment
    )


REMARKS = re.compile(rb"oomtrace: (?:no year in the log; assuming \d{4}|.* does not say who was killed ).*\n")
"""Of logs whose dates have no year, and of the storm, whose last report is cut."""


def records(*arguments: str, log: bytes = b"", zone: str = "UTC") -> list[dict[str, Any]]:
    """What is printed: each a record of the schema, numbered from 0."""
    finished = run(*arguments, log=log, zone=zone)
    assert (finished.returncode, REMARKS.sub(b"", finished.stderr)) == (0, b"")
    found = [json.loads(line) for line in finished.stdout.splitlines()]
    for number, record in enumerate(found):
        validate(record)
        assert record["seq"] == number
    return found


def daemons() -> list[dict[str, Any]]:
    """The records of the same log as the daemon makes them, but for time and host."""
    builder = LogRecords(BOOT_ID[:8], 4096)
    found = [builder.oom_kill(report) for report in reports(LOG)]
    for record in found:
        enrich_cgroups(record)
    return [{**record, "time": None, "host": None, "seq": None} for record in found]


@pytest.mark.parametrize("form", ["journal json", "journal export"])
def test_as_the_daemon(form: str) -> None:
    """A log that tells the boot gives the records that the daemon gives, ids included."""
    found = records(log=WHOLE[form](LOG))
    assert daemons() == [{**record, "time": None, "host": None, "seq": None} for record in found]
    for record, report in zip(found, reports(LOG), strict=True):
        assert record["host"] == {
            "name": HOST,
            "boot_id": "6a4ce4a0-ba47-11ea-b2a7-0cc47ac5979e",
            "kernel": None,
            "labels": None,
        }
        second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime((BOOT_NS + (report.time_ns or 0)) // 10**9))
        assert record["time"].startswith(second)


@pytest.mark.parametrize("form", ["dmesg -T", "dmesg iso", "journal short", "rsyslog without uptime"])
def test_without_uptime(form: str) -> None:
    """Where there is only a date the ids are made of that; kills of one incident share its id, no others do."""
    found = records(log={**WHOLE, **SPLIT}[form](LOG))
    assert len({record["id"] for record in found}) == len(found) == 3
    assert len({record["incident"]["id"] for record in found}) == 1
    assert found[0]["time"].startswith("20")
    storm = records(log={**WHOLE, **SPLIT}[form](lines(FILES["6.1-v1-storm"])))
    assert len({record["incident"]["id"] for record in storm}) == len(storm) == 43


def test_closed_stderr() -> None:
    """Where there is no standard error, what would be said there is not among the records."""
    command = ["sh", "-c", 'exec "$@" 2>&-', "sh", *COMMAND, "/does/not/exist", "-"]
    finished = subprocess.run(
        command, cwd=ROOT, input=WHOLE["dmesg"](LOG), stdout=subprocess.PIPE, timeout=60, check=False
    )
    assert finished.returncode == 1
    assert [json.loads(line)["type"] for line in finished.stdout.splitlines()] == ["oom_kill"] * 3


def test_without_date() -> None:
    """A log of an unknown boot has no dates, and that is said; --boot-time makes them."""
    log = WHOLE["dmesg"](LOG)
    finished = run(log=log)
    assert finished.returncode == 0
    assert b"3 kills have no date" in finished.stderr
    assert b"--boot-time" in finished.stderr
    undated = [json.loads(line) for line in finished.stdout.splitlines()]
    for record in undated:
        validate(record)
        assert (record["time"], record["host"]["name"]) == (None, None)
    filtered = run("--comm", "nobody", log=log)
    assert (filtered.stdout, filtered.stderr) == (b"", b"")
    filtered = run("--pid", str(undated[0]["victim"]["pid"]), "--since", "2020-01-01", log=log)
    assert filtered.stdout == b""
    assert b"1 kill has no date" in filtered.stderr
    dated = records("--boot-time", BOOT_TIME, log=log)
    assert [record["id"] for record in dated] == [record["id"] for record in undated]
    assert [record["time"] for record in dated] == [record["time"][:26] + "000Z" for record in dated]
    assert dated[0]["time"].startswith("2026-11-24T06:00:")


def test_date_that_cannot_be_read() -> None:
    """The kills are told without time, as those of different seconds, and that is said; no option makes a time."""
    log = b"".join(b"Dez 24 03:51:0%d h kernel: %s\n" % (n, KILLED % 7) for n in range(3))
    for options in ([], ["--boot-time", BOOT_TIME]):
        finished = run(*options, log=log)
        assert finished.returncode == 0
        assert b"3 kills have no time" in finished.stderr
        assert finished.stderr.count(b"\n") == 1
        found = [json.loads(line) for line in finished.stdout.splitlines()]
        for record in found:
            validate(record)
        assert [record["time"] for record in found] == [None] * 3
        assert len({record["id"] for record in found}) == len({record["incident"]["id"] for record in found}) == 3


def test_year_and_zone(tmp_path: Path) -> None:
    """The year is the last one that fits the file; the zone this machine's, or the one that is named."""
    file = tmp_path / "kern.log"
    stamps = [b"Dec 31 23:59:59", b"Jan  1 00:30:00"]
    file.write_bytes(b"".join(b"%s h kernel: %s\n" % (stamp, KILLED % n) for n, stamp in enumerate(stamps)))
    os.utime(file, (1_767_225_600 + 7200,) * 2)  # 2026-01-01T02:00:00Z
    expected = ["2025-12-31T23:59:59.000000000Z", "2026-01-01T00:30:00.000000000Z"]
    assert [record["time"] for record in records(str(file))] == expected
    expected = ["2025-12-31T22:59:59.000000000Z", "2025-12-31T23:30:00.000000000Z"]
    assert [record["time"] for record in records(str(file), zone="Europe/Berlin")] == expected
    assert [record["time"] for record in records("--timezone", "Europe/Berlin", str(file))] == expected


def compressed(log: bytes) -> Iterator[tuple[str, bytes]]:
    yield "gz", gzip.compress(log[:500]) + gzip.compress(log[500:])
    yield "xz", lzma.compress(log)
    yield "bz2", bz2.compress(log)
    require(shutil.which("zstd"), "zstd")
    yield "zst", subprocess.run(["zstd", "-qc"], input=log, capture_output=True, check=True, timeout=20).stdout


def test_compressed(tmp_path: Path) -> None:
    """Files are read as they lie there, whatever they are called, and in their order; pipes, too."""
    log = SPLIT["rsyslog, RFC 3339"](LOG)
    expected = [record["id"] for record in records(log=log)]
    paths = []
    for form, data in compressed(log):
        paths.append(tmp_path / form)
        paths[-1].write_bytes(data)
        assert expected == [record["id"] for record in records(str(paths[-1]))]
        if form != "zst":
            assert expected == [record["id"] for record in records("-", log=data)]
    assert expected * len(paths) == [record["id"] for record in records(*map(str, paths))]


def test_damaged_archive(tmp_path: Path) -> None:
    """What can be read of an archive is; that it is damaged is said."""
    data = gzip.compress(SPLIT["rsyslog, RFC 3339"](LOG) + os.urandom(200_000))
    file = tmp_path / "kern.log.gz"
    file.write_bytes(data[:100_000])
    finished = run(str(file))
    assert finished.returncode == EXIT_FAILED
    assert finished.stdout.count(b"\n") == 3
    assert finished.stderr.startswith(f"oomtrace: {file} is damaged".encode())
    assert finished.stderr.count(b"\n") == 1


def test_unusable(tmp_path: Path) -> None:
    """One line for each file that is none, or no log; the others are read."""
    log, other, journal, empty = (tmp_path / name for name in ("log", "other", "journal", "empty"))
    log.write_bytes(STORM)
    other.write_bytes(os.urandom(3_000_000))
    journal.write_bytes(b"LPKSHHRH" + bytes(1000))
    empty.write_bytes(b"")
    finished = run(*map(str, (tmp_path / "none", other, journal, tmp_path, empty, log)))
    assert finished.returncode == EXIT_FAILED
    assert finished.stdout.count(b"\n") == 43
    said = REMARKS.sub(b"", finished.stderr).decode().splitlines()
    assert len(said) == 4
    assert f"cannot read {tmp_path / 'none'}" in said[0]
    assert f"{other} is not a kernel log" in said[1]
    assert f"journalctl --file={journal} -k -o json" in said[2]
    assert f"cannot read {tmp_path}" in said[3]


def test_hostile_file_name(tmp_path: Path) -> None:
    """Whoever names a file writes no line of his own, and does not get to speak to the terminal."""
    name = tmp_path / "a\noomtrace: all is well\x1b[2J\udcff"
    name.write_bytes(b"nothing\n")
    said = run(os.fspath(name)).stderr
    assert said.count(b"\n") == 1
    assert b"\x1b" not in said
    assert rb"a\noomtrace: all is well\x1b[2J\udcff is not a kernel log" in said


def test_json_over_many_lines() -> None:
    """What is not read is refused, by parse and report, and what to give instead is said."""
    entries = WHOLE["journal json"](LOG).splitlines()
    log = "\n".join(json.dumps(json.loads(entry), indent="\t") for entry in entries).encode()
    for command in (COMMAND, [*COMMAND[:-1], "report", "-"]):
        finished = subprocess.run(command, cwd=ROOT, input=log, capture_output=True, timeout=60, check=False)
        assert finished.returncode == EXIT_FAILED
        assert b"-o json, not json-pretty" in finished.stderr


def test_filters() -> None:
    """Which kills are wanted."""
    whole = records(log=STORM)
    times = sorted(record["time"] for record in whole)
    assert len(records("--since", times[10], log=STORM)) == 33
    assert len(records("--until", times[10], log=STORM)) == 11
    assert records("--since", "now", log=STORM) == [] or times[-1] > time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
    last = records("-n", "2", log=STORM)
    assert [record["id"] for record in last] == [record["id"] for record in whole[-2:]]
    tid = whole[5]["victim"]["tid"]
    assert [record["id"] for record in records("--grep", f'"tid":{tid},', log=STORM)] == [whole[5]["id"]]
    journal = WHOLE["journal json"](LOG)
    assert len(records("--boot", BOOT_ID, log=journal)) == 3
    assert records("--boot", BOOT_ID[::-1], log=journal) == []


ID = "5aaf9eb7648eeb1459d86eaa0ace8bcfa93089642e5c3113a14250dae3238aaf"


def test_whose() -> None:
    """Containers and units are told by the cgroup, and can be asked for."""
    unit = f"docker-{ID}.scope"
    log = SPLIT["rsyslog, RFC 3339"](LOG).replace(b"/grp", f"/system.slice/{unit}".encode())
    assert records("--container", ID[:12], log=log)[0]["container"]["id"] == ID
    assert records("--container", "x", log=log) == []
    assert records("--unit", "docker-*.scope", log=log)[0]["systemd"]["unit"] == unit
    assert records("--unit", "ssh", log=log) == []
    service = log.replace(unit.encode(), b"ssh.service")
    assert records("--unit", "ssh", log=service)[0]["systemd"]["unit"] == "ssh.service"
    dotted = log.replace(unit.encode(), b"org.foo.Bar.service")
    assert records("--unit", "org.foo.Bar", log=dotted)[0]["systemd"]["unit"] == "org.foo.Bar.service"


def test_sentence() -> None:
    """For humans; what a name may hold does not reach the terminal."""
    log = SPLIT["rsyslog, RFC 3339"](LOG).replace(b"hog-main", b"h\x1b[2J")
    finished = run("--sentence", log=log)
    said = finished.stdout.decode().splitlines()
    assert len(said) == 3
    assert said[0].startswith("2026-11-24T06:0")
    assert f"Z {HOST}: The kernel killed h\\x1b[2J (pid " in said[0]


def test_reader_has_left() -> None:
    """Without a word."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    finished = subprocess.run(
        COMMAND, cwd=ROOT, input=STORM, stdout=write_end, stderr=subprocess.PIPE, timeout=60, check=False
    )
    os.close(write_end)
    assert (finished.returncode, finished.stderr) == (EXIT_FAILED, b"")


def test_follow(tmp_path: Path) -> None:
    """A file that grows, is replaced and cut: each kill once, soon, until SIGINT."""
    file, out = tmp_path / "kern.log", tmp_path / "out"
    file.write_bytes(b"Nov 24 03:51:53 h kernel: " + KILLED % 1 + b"\nNov 24 03:51:54 h kernel: " + KILLED[:30])

    def tids() -> list[int]:
        return [json.loads(line)["victim"]["tid"] for line in out.read_bytes().splitlines()]

    with out.open("wb") as output:
        process = subprocess.Popen([*COMMAND, "-f", str(file)], cwd=ROOT, stdout=output, stderr=subprocess.PIPE)
    try:
        wait_for(lambda: tids() == [1])
        with file.open("ab") as log:
            log.write(KILLED[30:] % 2 + b"\n")
        wait_for(lambda: tids() == [1, 2])
        file.rename(tmp_path / "kern.log.1")
        file.write_bytes(b"Nov 24 03:51:55 h kernel: " + KILLED % 3 + b"\n")
        wait_for(lambda: tids() == [1, 2, 3])
        os.truncate(file, 0)
        time.sleep(1)  # what grows again before it was seen to be shorter is taken for the same
        with file.open("ab") as log:
            log.write(b"Nov 24 03:51:56 h kernel: " + KILLED % 4 + b"\n")
        wait_for(lambda: tids() == [1, 2, 3, 4])
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
        assert (process.returncode, REMARKS.sub(b"", said)) == (0, b"")
    finally:
        process.kill()
        process.wait()


def test_follow_pipe() -> None:
    """`journalctl -kf -o json | oomtrace parse -f`: a kill is told while the pipe is open."""
    with subprocess.Popen([*COMMAND, "-f"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(WHOLE["journal json"](LOG))
            process.stdin.flush()
            found = [json.loads(process.stdout.readline()) for _ in range(3)]
            assert [record["victim"]["tid"] for record in found] == [each.tid for each in reports(LOG)]
            process.stdin.close()
            assert process.wait(20) == 0
        finally:
            process.kill()


def test_this_boot() -> None:
    """The kernel's own log: the same kills as dmesg shows, with this machine's name."""
    require(os.geteuid() == 0 and os.access("/dev/kmsg", os.R_OK), "/dev/kmsg can be read")
    finished = run("/dev/kmsg")
    assert finished.returncode == 0
    for line in finished.stdout.splitlines():
        record = json.loads(line)
        validate(record)
        assert record["host"]["name"] == (os.environ.get("NODE_NAME") or os.uname().nodename)


def test_nothing_is_given() -> None:
    """From cron and in a unit standard input is /dev/null: this boot's log is read, as at a terminal."""
    require(os.geteuid() == 0 and shutil.which("unshare"), "root, unshare")
    hidden = ["unshare", "-m", "sh", "-c", 'mount --bind /dev/null /dev/kmsg && exec "$@"', "sh"]
    finished = subprocess.run(
        [*hidden, *COMMAND], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False
    )
    assert finished.returncode == EXIT_FAILED
    assert finished.stderr.startswith(b"oomtrace: cannot read /dev/kmsg (")


@pytest.mark.parametrize(
    ("wrapper", "said"),
    [
        (["unshare", "-m", "sh", "-c", 'mount --bind /dev/null /dev/kmsg && exec "$@"', "sh"], b"not in a container"),
        (["setpriv", "--bounding-set=-syslog,-sys_admin", "--inh-caps=-syslog,-sys_admin"], b"run it as root"),
    ],
    ids=["container", "no right"],
)
def test_kernel_log_that_cannot_be_read(wrapper: list[str], said: bytes) -> None:
    """One line that says what to do."""
    require(os.geteuid() == 0 and shutil.which(wrapper[0]), f"root, {wrapper[0]}")
    if "setpriv" in wrapper:
        require(Path("/proc/sys/kernel/dmesg_restrict").read_text() == "1\n", "kernel.dmesg_restrict")
    for arguments in (["/dev/kmsg"], ["-f", "/dev/kmsg"]):
        finished = subprocess.run(
            [*wrapper, *COMMAND, *arguments], cwd=ROOT, capture_output=True, timeout=60, check=False
        )  # fmt: skip
        assert (finished.returncode, finished.stdout) == (EXIT_FAILED, b"")
        assert finished.stderr.startswith(b"oomtrace: cannot read /dev/kmsg (")
        assert said in finished.stderr
        assert finished.stderr.count(b"\n") == 1


@pytest.mark.parametrize("option", ["-b", "--boot"])
def test_boot_option(option: str) -> None:
    """As journalctl takes it."""
    again = b"2026-11-24T07:00:00+00:00 node-1 kernel: [    0.000000] Linux version 7.2.0\n"
    log = SPLIT["rsyslog, RFC 3339"](LOG) + again
    assert (len(records(option, "-1", log=log)), len(records(option, "0", log=log))) == (3, 0)
    finished = run(option, "-1", "-f", log=log)
    assert finished.returncode == EXIT_USAGE
    assert b"--follow" in finished.stderr


def written(seconds_ago: int = 0) -> bytes:
    """A date as syslog writes it, in UTC."""
    return time.strftime("%b %d %H:%M:%S", time.gmtime(time.time() - seconds_ago)).encode()


@pytest.mark.parametrize("is_pipe", [False, True], ids=["file", "pipe"])
@pytest.mark.parametrize("options", [["-n", "2"], ["-b", "0"]], ids=["last", "boot"])
def test_follow_in_a_busy_log(options: list[str], is_pipe: bool, tmp_path: Path) -> None:
    """Kills are told though the log never rests, from the beginning on: of -n those that were there, and all others."""
    path, out = tmp_path / "kern.log", tmp_path / "out"
    stamp = written()
    before = b"".join(stamp + b" h kernel: " + KILLED % tid + b"\n" for tid in (1, 2, 3))
    os.mkfifo(path) if is_pipe else path.write_bytes(before)
    reading = ["-"] if is_pipe else [str(path)]
    with (
        out.open("wb") as output,
        open(os.open(path, os.O_RDWR), "rb") if is_pipe else open(os.devnull, "rb") as source,
        path.open("ab", buffering=0) as log,
    ):
        if is_pipe:
            log.write(before)
        command = [*COMMAND, "-f", *options, *reading]
        process = subprocess.Popen(command, cwd=ROOT, stdin=source, stdout=output)
        try:

            def tids() -> list[int]:
                log.write(stamp + b" h cron: ran\n")
                time.sleep(0.02)
                return [json.loads(line)["victim"]["tid"] for line in out.read_bytes().splitlines()]

            expected = [2, 3] if "-n" in options else [1, 2, 3]
            wait_for(lambda: tids() == expected)
            for tid in (4, 5, 6):
                log.write(stamp + b" h kernel: " + KILLED % tid + b"\n")
            wait_for(lambda: tids() == [*expected, 4, 5, 6])
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(20)


def test_follow_a_log_that_was_quiet(tmp_path: Path) -> None:
    """What is added is of now, however long ago the file was written to last."""
    file = tmp_path / "kern.log"
    file.write_bytes(written(3 * 86400) + b" h kernel: " + KILLED % 1 + b"\n")
    os.utime(file, (time.time() - 3 * 86400,) * 2)
    environment = {**os.environ, "TZ": "UTC"}
    command = [*COMMAND, "-f", str(file)]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            ages_s = []
            for tid in (1, 2):
                record = json.loads(process.stdout.readline())
                assert record["victim"]["tid"] == tid
                ages_s.append(time.time() - calendar.timegm(time.strptime(record["time"][:19], "%Y-%m-%dT%H:%M:%S")))
                with file.open("ab") as log:
                    log.write(written() + b" h kernel: " + KILLED % 2 + b"\n")
            assert 0 <= ages_s[0] - 3 * 86400 < 60
            assert 0 <= ages_s[1] < 60
        finally:
            process.kill()
