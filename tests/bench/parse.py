# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.bench.parse [COMMAND...]``: speed of reading logs, compared with ``grep -i 'killed process'``.

COMMAND is the oomtrace to measure; by default that of this checkout.
"""

import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.harness.kernel_log_files import FILES, lines
from tests.harness.log_formats import SPLIT, WHOLE
from tracer.logs.log_line import LogLine

SIZE_BYTES = 64 << 20
ROOT = Path(__file__).resolve().parents[2]
OTHER = (
    b"2026-11-24T03:51:%02d.123456+00:00 node-1 kubelet[1234]: I1124 03:51:53.123456 1234 kubelet.go:2345] message\n"
)


TASKS = 100
"""Number of processes on a typical host."""
STORM = "6.1-v1-storm"
"""Logs with rate-limited reports: mostly lines of the kill only, 300 bytes each, with a record of 1,200 bytes."""


def crowded(reports: list[LogLine]) -> list[LogLine]:
    """The reports, with more processes in their tables."""
    found = list[LogLine]()
    for line in reports:
        found.append(line)
        if re.match(rb"\[ *\d+\] +\d+ +\d+ ", line.text) and not re.match(rb"\[ *\d+\] ", found[-2].text):
            rows = (re.sub(rb"(?<=\[)[ \d]+(?=\])", b"%7d" % (90_000 + n), line.text) for n in range(TASKS))
            found += [line._replace(text=row) for row in rows]
    return found


def logs() -> dict[str, bytes]:
    reports = [line for name, log in FILES.items() if name != STORM for line in lines(log)]
    full = {
        "kern.log, reports": SPLIT["rsyslog, RFC 3339"](reports),
        "dmesg, reports": WHOLE["dmesg"](reports),
        "journal JSON, reports": WHOLE["journal json"](reports),
        "journal export, reports": WHOLE["journal export"](reports),
        "kern.log, reports of 100 tasks": SPLIT["rsyslog, RFC 3339"](crowded(reports)),
        "dmesg, reports of 100 tasks": WHOLE["dmesg"](crowded(reports)),
        "kern.log, a storm": SPLIT["rsyslog, RFC 3339"](list(lines(FILES[STORM]))),
    }
    others = [line._replace(text=b"usb 1-1: new high-speed USB device number 2 using xhci_hcd") for line in reports]
    none = {
        "syslog, no report": b"".join(OTHER % (n % 60) for n in range(1000)),
        "journal JSON, no report": WHOLE["journal json"](others),
        "journal export, no report": WHOLE["journal export"](others),
    }
    return {name: log * (SIZE_BYTES // len(log)) for name, log in {**none, **full}.items()}


def cpu_seconds(command: list[str], path: str) -> tuple[float, int]:
    """User and system time, and number of lines printed."""
    with tempfile.TemporaryFile() as printed:  # the reader of a pipe would use the same processor
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*command, path], cwd=ROOT, stdout=printed, stderr=subprocess.DEVNULL, check=False, timeout=600)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        printed.seek(0)
        count = sum(block.count(b"\n") for block in iter(lambda: printed.read(1 << 20), b""))
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, count


def main() -> None:
    command = sys.argv[1:] or [sys.executable, "-m", "tracer"]
    parse = [*command, "parse", "--boot-time", "2026-11-24T06:00:00Z"]
    print("| log | kills | oomtrace parse, MB/s | kills a second | grep -i, MB/s |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, log in logs().items():
            file = Path(folder) / "log"
            file.write_bytes(log)
            started, _ = cpu_seconds(parse, "/dev/null")
            ours, kills = cpu_seconds(parse, str(file))
            theirs, _ = cpu_seconds(["grep", "-i", "killed process"], str(file))
            size, ours_s, theirs_s = len(log) / 1e6, max(ours - started, 1e-3), max(theirs, 1e-3)
            print(f"| {name} | {kills} | {size / ours_s:.0f} | {kills / ours_s:.0f} | {size / theirs_s:.0f} |")
    print("\nMegabytes by CPU time, without Python's start.")


if __name__ == "__main__":
    main()
