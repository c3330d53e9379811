# SPDX-License-Identifier: Apache-2.0
"""logs/remarks.py: what parse, report and why say about a log beside its kills."""

import gzip
import json
import os
import subprocess
import sys
from datetime import timezone
from pathlib import Path

import pytest

from tests.harness.environment import ROOT
from tests.harness.kernel_log_files import FILES, lines
from tests.harness.log_formats import FORMS, SPLIT, WHOLE
from tracer.base.errors import EXIT_FAILED
from tracer.logs.log_line import LogLine
from tracer.logs.scan import LogScan
from tracer.logs.times import Calendar

from .test_formats import KILLED

OTHER = b"Nov 24 03:51:50 h app[1]: something\n"
KERNEL = b"Nov 24 03:51:53 h kernel: "
COMMANDS = {
    "parse": ["parse"],
    "report": ["report", "--format", "md"],
    "why": ["why", "nobody", "--log"],
}
OOMD = (
    b"Dec 18 19:34:56 h systemd-oomd[840]: Killed /user.slice/user-1.slice/a.scope due to memory pressure for "
    b"/user.slice being 51.07% > 50.00% for > 20s with reclaim activity\n"
    b"Dec 18 19:34:56 h systemd[1837]: app.scope: systemd-oomd killed 12 process(es) in this unit.\n"
)
EARLYOOM = (
    b"Feb 16 13:58:29 h earlyoom[1233]: low memory! at or below SIGTERM limits: mem 10.00%, swap 10.00%\n"
    b'Feb 16 13:58:29 h earlyoom[1233]: sending SIGTERM to process 29410 uid 1000 "cluster": badness 12, VmRSS 9 MiB\n'
)


def run(command: str, log: bytes, *, piped: bool = False, folder: Path | None = None) -> tuple[int, list[str]]:
    """Exit code and stderr."""
    path = "-"
    if not piped:
        assert folder is not None
        file = folder / "log"
        file.write_bytes(log)
        os.utime(file, (1_767_225_600, 1_767_225_600))  # 2026-01-01
        path = str(file)
    words = [sys.executable, "-m", "tracer", *COMMANDS[command], path]
    finished = subprocess.run(
        words, cwd=ROOT, input=log if piped else b"", capture_output=True, timeout=60, check=False
    )
    said = (finished.stderr + (finished.stdout if command == "why" else b"")).decode()
    return finished.returncode, [line.removeprefix("oomtrace: ").strip() for line in said.splitlines()]


def parse(log: bytes, folder: Path) -> tuple[int, list[str]]:
    return run("parse", log, folder=folder)


UNREAD = {
    "unknown": (b"Welcome\n(%s)\n" % KILLED, 2),
    "cut": (OTHER + KERNEL + KILLED[:-20] + b"\n" + OTHER, 2),
    "beside known lines": (OTHER + b"| " + KILLED + b"\n" + KERNEL + KILLED + b"\n", 2),
}


@pytest.mark.parametrize("piped", [False, True])
@pytest.mark.parametrize("command", ["parse", "report"])
def test_unread(command: str, piped: bool, tmp_path: Path) -> None:
    """Lines with the kernel's words that cannot be read give a remark with the first one, and exit code 1."""
    log = OTHER * 3 + b"| " + KILLED + b"\n" + OTHER + b"| " + KILLED + b"\n"
    code, said = run(command, log, piped=piped, folder=tmp_path)
    name = "standard input" if piped else str(tmp_path / "log")
    first = "2 lines hold the kernel's words for OOM kills but could not be read; the first is line 4"
    assert code == EXIT_FAILED
    assert said[0].startswith(f"{name}: {first}: give ")
    assert len(said) == 1


def test_unread_by_why(tmp_path: Path) -> None:
    """The same words."""
    _, said = run("why", OTHER + b"| " + KILLED + b"\n", folder=tmp_path)
    assert [line for line in said if "1 line holds the kernel's words for OOM kills but could not be read" in line]


@pytest.mark.parametrize("name", UNREAD)
def test_what_is_unread(name: str, tmp_path: Path) -> None:
    """Unknown forms, and kernel lines that are cut."""
    log, line = UNREAD[name]
    code, said = parse(log, tmp_path)
    assert code == EXIT_FAILED
    assert f"could not be read; the first is line {line}: " in said[0]


def test_line_of_a_compressed_file(tmp_path: Path) -> None:
    """Line numbers include skipped lines, and those of compressed files."""
    file = tmp_path / "log.gz"
    file.write_bytes(gzip.compress(OTHER * 100_000 + b"| " + KILLED + b"\n" + OTHER * 10))
    command = [sys.executable, "-m", "tracer", "parse", str(file)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert b"the first is line 100001: " in finished.stderr


def remarks(log: bytes) -> list[str]:
    """The remarks about a log."""
    reader = LogScan(Calendar(timezone.utc), lambda *_: None)
    reader.feed(log)
    reader.end()
    return [each.text for each in reader.remarks.make_remarks("log", lambda _: None)]


@pytest.mark.parametrize("form", [*WHOLE, *SPLIT, *FORMS])
@pytest.mark.parametrize("name", ["6.1-v1-memcg1", "6.12-other", "7.2-group", "7.2-oddcgroup"])
def test_nothing_is_unread(form: str, name: str) -> None:
    """A complete report gives no remark, whatever names are in it."""
    assert remarks({**WHOLE, **SPLIT, **FORMS}[form](lines(FILES[name]))) == []


@pytest.mark.parametrize("form", WHOLE)
def test_odd_names_are_read(form: str) -> None:
    """The same for unsplit records, with newlines in names."""
    assert remarks(WHOLE[form](lines(FILES["7.2-oddname"]))) == []


def test_others(tmp_path: Path) -> None:
    """A program that quotes a kill gives a remark only if the kernel's own lines are missing."""
    quoted = b"Nov 24 03:51:53 h detector[7]: " + KILLED + b"\n"
    code, said = parse(OTHER + quoted, tmp_path)
    assert code == 0
    assert "only programs other than the kernel used its words for OOM kills, in 1 line; the first is line 2" in said[0]
    code, said = parse(quoted + KERNEL + KILLED + b"\n", tmp_path)
    assert not [line for line in said if "other programs" in line]


def test_report_without_a_kill(tmp_path: Path) -> None:
    """A report that ends before the line of the kill."""
    log = WHOLE["dmesg"](lines(FILES["6.12-other"]))
    code, said = parse(log[: log.index(b"oom-kill:constraint")], tmp_path)
    assert code == 0
    assert "1 report of the OOM killer does not say who was killed (hog-small invoked the OOM killer): " in said[0]
    assert not parse(b"", tmp_path)[1]


@pytest.mark.parametrize("command", ["parse", "report"])
def test_year(command: str, tmp_path: Path) -> None:
    """An assumed year gives one remark."""
    log = KERNEL + KILLED + b"\n"
    for more in (log, log.replace(b"process 1 ", b"process 2 ")):
        log += more
    _, said = run(command, log, folder=tmp_path)
    assert said == ["no year in the log; assuming 2025 from when it was last written"]
    _, said = run(command, log.replace(b"Nov 24 ", b"2025-11-24T"), folder=tmp_path)
    assert said == []


KILLERS = {
    "systemd-oomd": (
        OOMD,
        "line 2: systemd-oomd, not the kernel, killed /user.slice/user-1.slice/a.scope, because of memory pressure",
    ),
    "earlyoom": (EARLYOOM, "line 3: earlyoom, not the kernel, sent SIGTERM to cluster (pid 29410)"),
    "earlyoom, journal": (
        b'{"MESSAGE":"sending SIGKILL to process 7 uid 0 \\"x\\": badness 9, VmRSS 1 MiB","_BOOT_ID":"1",'
        b'"SYSLOG_IDENTIFIER":"earlyoom"}\n',
        "line 2: earlyoom, not the kernel, sent SIGKILL to x (pid 7)",
    ),
    "nohang": (
        b"Feb 16 13:58:29 h nohang[9]: Sending SIGTERM to the victim\n",
        "line 2: nohang, not the kernel, sent SIGTERM to its victim",
    ),
    "kubelet": (
        b'Feb 16 13:58:28 h kubelet[9]: "Eviction manager: must evict pod(s) to reclaim" resourceName="memory"\n'
        b'Feb 16 13:58:29 h kubelet[9]: "Eviction manager: pod is evicted successfully" pod="shop/cart-0"\n',
        "line 3: the kubelet, not the kernel, evicted the pod shop/cart-0",
    ),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", KILLERS)
def test_other_killers(name: str, command: str, tmp_path: Path) -> None:
    """Kills by other killers make no record, but a remark."""
    log, expected = KILLERS[name]
    code, said = run(command, OTHER + log, folder=tmp_path)
    assert [line for line in said if expected in line]
    assert command == "why" or (code, len(said)) == (0, 1)


def test_evicted_for_another_reason(tmp_path: Path) -> None:
    """A full disk is not a lack of memory."""
    log = KILLERS["kubelet"][0].replace(b'"memory"', b'"ephemeral-storage"').replace(b"ephemeral-storage", b"nodefs")
    assert parse(OTHER + log, tmp_path) == (0, [])


@pytest.mark.parametrize(
    "reason", ["Out of memory: compulsory panic_on_oom is enabled", "System is deadlocked on memory"]
)
def test_panic(reason: str, tmp_path: Path) -> None:
    """A panic has no victim, but gives a remark."""
    log = WHOLE["dmesg"](lines(FILES["6.12-global"]))
    log = log[: log.index(b"oom-kill:constraint")] + f"Kernel panic - not syncing: {reason}\n".encode()
    code, said = parse(log, tmp_path)
    assert (code, len(said)) == (0, 1)
    assert said[0].endswith(f"line {log.count(10)}: the kernel panicked instead of killing: {reason}")


@pytest.mark.parametrize("stamp", ["[   14.200000] ", "<0>[   14.200000] ", "Nov 24 06:00:00 h kernel: ", ""])
@pytest.mark.parametrize(
    "reason",
    [
        "Out of memory: compulsory panic_on_oom is enabled",
        "out of memory. panic_on_oom is selected",
        "Out of memory and no killable processes...",
        "System is deadlocked on memory",
    ],
)
def test_panic_alone(reason: str, stamp: str, tmp_path: Path) -> None:
    """The first lines of its report are lost, as in pstore, which keeps the last ones, or all of them."""
    panic = f"{stamp}Kernel panic - not syncing: {reason}\n".encode()
    report = WHOLE["dmesg"](lines(FILES["6.12-global"]))
    rest = report[report.index(b"Mem-Info") : report.index(b"oom-kill:constraint")].partition(b"\n")[2]
    rest = rest[: rest.rindex(b"[")]
    for log in (panic, rest + panic, OTHER + panic) if stamp.startswith("[") else (panic,):
        code, said = parse(log, tmp_path)
        assert (code, len(said)) == (0, 1)
        assert said[0].endswith(f"line {log.count(10)}: the kernel panicked instead of killing: {reason}")


def test_panic_after_a_kill(tmp_path: Path) -> None:
    """The panic is of the next report, whose other lines are lost; the kill has its record."""
    log = WHOLE["dmesg"](lines(FILES["6.12-global"]))
    _, said = parse(
        log + b"[   14.2] x\n[   14.200000] Kernel panic - not syncing: System is deadlocked on memory\n", tmp_path
    )
    assert said[0].endswith("the kernel panicked instead of killing: System is deadlocked on memory")


def test_other_panic(tmp_path: Path) -> None:
    """A panic for another reason is not the OOM killer's."""
    panic = b"[   14.200000] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000009\n"
    assert parse(panic, tmp_path) == (0, [])


def test_nobody_to_kill(tmp_path: Path) -> None:
    """A report says that there was no process to kill; it does not count as cut."""
    log = WHOLE["dmesg"](lines(FILES["6.12-global"]))
    log = log[: log.index(b"oom-kill:constraint")] + b"Out of memory and no killable processes...\n"
    code, said = parse(log, tmp_path)
    assert (code, len(said)) == (0, 1)
    assert said[0].endswith(
        f"line {log.count(10)}: the kernel found no process to kill: Out of memory and no killable processes..."
    )


def test_many_killers(tmp_path: Path) -> None:
    """The first ones give a remark each, the others are counted."""
    _, said = parse(EARLYOOM * 100, tmp_path)
    assert len(said) == 11
    assert said[-1].endswith(": 90 more such lines")


def test_killers_do_not_speak_to_the_terminal(tmp_path: Path) -> None:
    """A name may contain anything."""
    _, said = parse(EARLYOOM.replace(b"cluster", b"a\x1b[2J"), tmp_path)
    assert "sent SIGTERM to a\\x1b[2J (pid" in said[0]


def test_colored_lines_are_counted(tmp_path: Path) -> None:
    """Lines have the numbers that an editor shows."""
    log = FORMS["color"](lines(FILES["6.12-other"])) + b"\x1b[33m| " + KILLED + b"\x1b[0m\n"
    _, said = parse(log, tmp_path)
    assert f"the first is line {log.count(10)}: " in said[0]


def test_refused_in_an_export(tmp_path: Path) -> None:
    """Lines of the export format have no numbers."""
    log = WHOLE["journal export"]([LogLine(KILLED[:-20], 10**9, "printk")])
    _, said = parse(log, tmp_path)
    assert said[0].startswith(
        f"{tmp_path / 'log'}: 1 line holds the kernel's words for OOM kills but could not be read: "
    )


def test_python(tmp_path: Path) -> None:
    """From Python no line raises, and the remarks can be read."""
    file = tmp_path / "log"
    file.write_bytes(KERNEL + KILLED + b"\n" + OTHER + b"| " + KILLED + b"\n")
    said = (
        "from tracer.logs.kills import KillSearch; search = KillSearch();"
        f"print(len(list(search.kills([{str(file)!r}]))), [each.is_loss for each in search.remarks()])"
    )
    finished = subprocess.run([sys.executable, "-c", said], cwd=ROOT, capture_output=True, timeout=60, check=True)
    assert json.loads(b"[" + finished.stdout.replace(b" [", b", [").replace(b"T", b"t").replace(b"F", b"f") + b"]") == [
        1,
        [True, False],
    ]
