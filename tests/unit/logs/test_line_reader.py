# SPDX-License-Identifier: Apache-2.0
"""logs/inferred_prefix.py, line_reader.py, terminal.py: the forms in which people and collectors keep kernel logs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.harness import DATA
from tests.harness.environment import ROOT
from tests.harness.kernel_log_files import FILES, lines, reports
from tests.harness.log_formats import FORMS, SPLIT, WHOLE
from tests.harness.schema import validate
from tracer.logs.log_line import LogLine

from .test_formats import KILLED, scan, timeless

FOLDER = DATA / "log_forms"
WRITTEN_S = 1_735_689_600
"""When the files were written, 2025-01-01: the year of dates without one."""


def parse(path: Path, *options: str) -> tuple[int, list[dict[str, Any]], str]:
    """Exit code, records and stderr for a file."""
    command = [sys.executable, "-m", "tracer", "parse", *options, str(path)]
    environment = {**os.environ, "TZ": "UTC"}
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=False, env=environment)
    records = [json.loads(line) for line in finished.stdout.splitlines()]
    for record in records:
        validate(record)
    return finished.returncode, records, finished.stderr.decode()


NO_DATE = "1 kill has no date, as the log has only the time since boot"
NO_TIME = "1 kill has no time, as the log has no date, or none that can be read"
NO_YEAR = "no year in the log; assuming 2024 from when it was last written"
WHEN = {
    "compose.txt": (None, None, NO_DATE),
    "console-cr-cr-lf.txt": (None, None, NO_DATE),
    "cri-of-kmsg.txt": (None, None, NO_DATE),
    "cri.txt": (None, None, NO_DATE),
    "dmesg-color.txt": (None, None, NO_DATE),
    "dmesg-japanese.txt": ("2024-06-18T07:44:52.000000000Z", None, ""),
    "dmesg-relative.txt": (None, None, NO_TIME),
    "docker-json-file.json": (None, None, NO_DATE),
    "fluent-bit-journal.json": ("2024-06-18T07:44:52.123000000Z", "gke-node-1", ""),
    "github-actions.txt": (None, None, NO_DATE),
    "google-cloud.json": ("2024-06-18T07:44:52.123456000Z", "gke-node-1", ""),
    "grep-n.txt": ("2024-06-18T07:44:52.000000000Z", "node1", NO_YEAR),
    "indented.txt": (None, None, NO_DATE),
    "kernel-only.txt": (None, None, NO_DATE),
    "netconsole.txt": (None, None, NO_DATE),
    "openwrt.txt": ("2021-04-12T18:29:48.000000000Z", None, ""),
    "plain.txt": (None, None, NO_TIME),
    "quoted.txt": (None, None, NO_DATE),
    "talos.txt": ("2025-06-04T04:51:57.572293906Z", "10.1.1.2", ""),
    "trailing-blanks.txt": (None, None, NO_DATE),
    "vmware-guest.txt": (None, None, NO_DATE),
}
"""Time and host of the kill in each file, and the remark on stderr."""


def said_of_kill(record: dict[str, Any]) -> dict[str, Any]:
    """The record without host and time, which depend on the form."""
    incident = {**record["incident"], "id": None}
    return {**record, "id": None, "time": None, "host": None, "incident": incident}


@pytest.fixture(scope="module")
def plain() -> dict[str, Any]:
    _, records, _ = parse(FOLDER / "plain.txt")
    (record,) = records
    return record


@pytest.mark.parametrize("name", [path.name for path in sorted(FOLDER.glob("*.*")) if path.name in WHEN])
def test_file(name: str, plain: dict[str, Any], tmp_path: Path) -> None:
    """One report in the form of another tool: the one kill, its trigger and candidates are the same."""
    file = tmp_path / name
    file.write_bytes((FOLDER / name).read_bytes())
    os.utime(file, (WRITTEN_S, WRITTEN_S))
    code, records, said = parse(file)
    (record,) = records
    time, host, remark = WHEN[name]
    assert said_of_kill(record) == said_of_kill(plain)
    assert (code, record["time"], record["host"]["name"]) == (0, time, host)
    assert (said.count("\n"), remark in said) == (bool(remark), True)


def test_plain(plain: dict[str, Any]) -> None:
    """The report's values, as they are printed in it."""
    victim = plain["victim"]
    assert (victim["comm"], victim["pid"], victim["uid"]) == ("doxygen", 473206, 504)
    assert (victim["anon_rss_bytes"], victim["total_vm_bytes"]) == (9234320 << 10, 30290680 << 10)
    assert (plain["trigger"]["comm"], plain["trigger"]["pid"]) == ("doxygen", 473206)
    assert plain["incident"]["scope"] == "host"
    assert len(plain["candidates"]) == 10
    assert plain["candidates"][0]["pid"] == 473206


def test_all_files_are_tested() -> None:
    """Every file has an expectation."""
    assert {path.name for path in FOLDER.glob("*.*")} == {*WHEN, "cut-at-screen-width.txt", "README.md"}


NAMES = (
    "5.10-longpath", "5.10-nodump", "6.1-v1-memcg1", "6.1-policy", "6.12-global", "6.12-other", "7.2-group",
    "7.2-oddcgroup", "7.2-longpath",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", FORMS)
def test_form(form: str, name: str) -> None:
    """A report is the same in every form, with all that a kernel may print."""
    log = list(lines(FILES[name]))
    assert timeless(reports(log)) == timeless(each.report for each in scan(FORMS[form](log)))


@pytest.mark.parametrize("form", FORMS)
def test_odd_names(form: str) -> None:
    """Names with the kernel's own words make no other kill."""
    log = list(lines(FILES["7.2-oddname"]))
    known = {each.tid for each in reports(log)}
    assert {each.report.tid for each in scan(FORMS[form](log))} <= known


@pytest.mark.parametrize("size", [1, 100, 5000])
@pytest.mark.parametrize("form", ["quoted", "bare", "Docker's json-file", "color", "grep -n"])
def test_blocks(form: str, size: int) -> None:
    """Blocks may end anywhere, also before the prefix is inferred."""
    data = FORMS[form]([*lines(FILES["6.12-other"]), *lines(FILES["7.2-group"])])
    found = scan(*(data[at : at + size] for at in range(0, len(data), size)))
    assert timeless(each.report for each in scan(data)) == timeless(each.report for each in found)
    assert len(found) == 4


FORGERS = (
    b"Nov 24 03:51:53 node-1 app[7]: " + KILLED,
    b"Nov 24 03:51:53 node-1 app[7]: [    1.000000] " + KILLED,
    b"2026-11-24T03:51:53.123456+00:00 node-1 app: kernel: " + KILLED,
    b"<14>[    1.000000] " + KILLED,
    b"12,7,1000000,-;" + KILLED,
    b"user: warning: [2026-11-24T03:51:53Z]: " + KILLED,
    b"Tue Nov 24 03:51:53 2026 user.err kernel: " + KILLED,
    b"                              " + KILLED,
    b"app says: " + KILLED,
    b"app says: [    1.000000] " + KILLED,
    b"app  | " + KILLED,
    b'{"log":"' + KILLED + b'","programname":"app"}',
    b'{"MESSAGE":"' + KILLED + b'","_TRANSPORT":"journal","_BOOT_ID":"1"}',
    b'{"jsonPayload":{"MESSAGE":"' + KILLED + b'","_TRANSPORT":"stdout"}}',
    b'{"message":"app: ' + KILLED + b'"}',
    b"2024-06-18T07:44:52.1234567Z stdout F app: " + KILLED,
    b"[  +0.000010] app: " + KILLED,
)
"""Lines in which another program quotes a kill."""
BEHIND_A_PREFIX = [form for form in FORMS if form not in ("bare", "dmesg -e")]


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(
        [*BEHIND_A_PREFIX, *SPLIT, *(form for form in WHOLE if form not in ("dmesg -J", "journal export"))]
    ),
    st.sampled_from(["6.12-other", "7.2-group", "6.1-v1-memcg1"]),
    st.lists(st.tuples(st.integers(0, 400), st.sampled_from(FORGERS)), min_size=1, max_size=12),
)
def test_forged(form: str, name: str, forged: list[tuple[int, bytes]]) -> None:
    """Lines of other programs that quote a kill make none, wherever they are, in any form of the log."""
    log = {**WHOLE, **SPLIT, **FORMS}[form](lines(FILES[name])).splitlines(keepends=True)
    known = {each.tid for each in reports(lines(FILES[name]))}
    end = log[-1][len(log[-1].rstrip(b"\r\n")) :]
    for at, line in forged:
        log.insert(at % (len(log) + 1), line + end)
    assert {each.report.tid for each in scan(b"".join(log))} <= known


@pytest.mark.parametrize("first", ["Nov 24 03:51:53 h systemd[1]: Started.", "[    1.000000] usb 1-1: new device"])
@pytest.mark.parametrize("prefix", [b"", b"          ", b"> ", b"x | [    1.000000] "])
def test_rest_of_a_message(first: str, prefix: bytes) -> None:
    """No prefix is inferred if a line is in a known format: a program may write a message of many lines."""
    assert scan(first.encode() + b"\n" + prefix + KILLED + b"\n") == []
    assert scan(prefix + KILLED + b"\n" + first.encode() + b"\n") == []
    filler = b"Nov 24 03:51:53 h app[1]: something\n" * 9999
    assert scan(filler + prefix + KILLED + b"\n") == []


def test_another_shape() -> None:
    """Only one prefix is inferred per file."""
    log = list(lines(FILES["6.12-other"]))
    data = FORMS["quoted"](log)
    assert {each.report.tid for each in scan(data + KILLED + b"\n")} == {each.tid for each in reports(log)}
    assert {each.report.tid for each in scan(b"| " + KILLED + b"\n" + data)} == {each.tid for each in reports(log)}


@pytest.mark.parametrize(
    "event",
    [
        "default     4m37s       Warning   OOMKilling   node/ip-192-0-2-{}   {}",
        "  Warning  OOMKilling  {}m37s  kernel-monitor  {}",
        "5h{}m  Warning  OOMKilling  node/a  {}",
        '{{"type":"Warning","reason":"OOMKilling","message":"{1}","source":{{"component":"kernel-monitor","host":"n{0}"}}}}',
    ],
)
def test_events(event: str) -> None:
    """Events of node-problem-detector, as kubectl prints them."""
    log = "".join(event.format(n, KILLED.replace(b"process 1", b"process 1%d" % n).decode()) + "\n" for n in range(3))
    assert [each.report.tid for each in scan(log.encode())] == [10, 11, 12]


@pytest.mark.parametrize("width", [80, 100, 132])
@pytest.mark.parametrize("trimmed", [False, True])
@pytest.mark.parametrize("form", ["dmesg -r", "rsyslog"])
def test_broken_at_the_screens_width(form: str, trimmed: bool, width: int) -> None:
    """Lines that a terminal has broken are joined again, with the blanks that were not copied."""
    log = list(lines(FILES["6.12-global"]))
    pieces = [line[at : at + width] for line in SPLIT[form](log).splitlines() for at in range(0, len(line), width)]
    data = b"".join((piece.rstrip(b" ") if trimmed else piece) + b"\n" for piece in pieces)
    assert timeless(reports(log)) == timeless(each.report for each in scan(data))
    blocks = [data[at : at + 4096] for at in range(0, len(data), 4096)]  # as pipes give them
    assert len(scan(*blocks)) == len(reports(log))


@pytest.mark.parametrize("width", [100, 132, 160])
def test_cut_at_the_screens_width(width: int) -> None:
    """The kill has the values that are complete in its line."""
    log = WHOLE["dmesg"](lines(FILES["6.12-global"]))
    (whole,) = scan(log)
    (found,) = scan(b"".join(line[:width] + b"\n" for line in log.splitlines()))
    assert (found.report.tid, found.report.comm) == (whole.report.tid, whole.report.comm)
    for name in ("total_vm_bytes", "anon_rss_bytes", "file_rss_bytes", "oom_score_adj"):
        assert getattr(found.report, name) in (None, getattr(whole.report, name))


def test_posted_log_cut_at_the_screens_width() -> None:
    """A line that is cut does not damage the others."""
    (found,) = scan((FOLDER / "cut-at-screen-width.txt").read_bytes())
    assert (found.report.tid, found.report.trigger_tid) == (16426, 16432)
    assert found.report.counters[b"memory"].limit == 5120 << 10


def test_follow(tmp_path: Path) -> None:
    """A prefix is also inferred in a log that grows."""
    command = [sys.executable, "-m", "tracer", "parse", "--follow"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            for line in FORMS["compose"](lines(FILES["6.12-other"])).splitlines(keepends=True):
                process.stdin.write(line)
                process.stdin.flush()
            assert json.loads(process.stdout.readline())["victim"]["tid"] == 358
        finally:
            process.kill()


@pytest.mark.parametrize(
    "module", ["tracer.accounting.backfill", "tracer.logs.this_boot", "tracer.logs.kmsg", "tracer.daemon.daemon"]
)
def test_daemon_infers_nothing(module: str) -> None:
    """/dev/kmsg has a single format: its readers load no other."""
    names = "inferred_prefix", "line_reader"
    said = f"import sys, {module}; print(any(name.endswith({names}) for name in sys.modules))"
    finished = subprocess.run([sys.executable, "-c", said], cwd=ROOT, capture_output=True, timeout=60, check=True)
    assert finished.stdout == b"False\n"


@given(st.lists(st.binary(max_size=80), max_size=20), st.sampled_from([b"", b"> ", b'{"log":"', b"\x1b[31m", b"\r"]))
def test_garbage(texts: list[bytes], prefix: bytes) -> None:
    """Any input: it never raises."""
    scan(b"".join(prefix + text + b"\n" for text in texts), prefix + KILLED + b"\n")


def test_no_uptime_is_not_since_boot(tmp_path: Path) -> None:
    """A log without times gives none."""
    file = tmp_path / "log"
    file.write_bytes(FORMS["bare"]([LogLine(KILLED)]))
    _, records, said = parse(file, "--boot-time", "2026-11-24T06:00:00Z")
    assert [record["time"] for record in records] == [None]
    assert re.fullmatch(r"oomtrace: 1 kill has no time, .*\n", said)
