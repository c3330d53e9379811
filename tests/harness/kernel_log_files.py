# SPDX-License-Identifier: Apache-2.0
"""Reads tests/data/kernel_logs, which dmesg has written."""

import re
from collections.abc import Iterable, Iterator

from tests.harness import DATA
from tracer.logs.log_line import LogLine
from tracer.logs.oom_report import ReportAssembler
from tracer.logs.victim_report import VictimReport

FOLDER = DATA / "kernel_logs"
FILES = {path.stem: path.read_bytes() for path in sorted(FOLDER.glob("*.txt"))}
TRIMMED = {path.stem: path.read_bytes() for path in sorted((FOLDER / "trimmed").glob("*.txt"))}
"""Named by their kernel; posted-* were incomplete already."""

_PREFIX = re.compile(rb"\[ *(\d+)\.(\d{6})\] ")


def lines(log: bytes) -> Iterator[LogLine]:
    r"""Parse dmesg's output: continuation lines are indented, unprintable bytes are written as \xNN."""
    line: LogLine | None = None
    for text in log.removesuffix(b"\n").split(b"\n"):
        if (match := _PREFIX.match(text)) is not None:
            if line is not None:
                yield line
            time_ns = (int(match[1]) * 1_000_000 + int(match[2])) * 1000
            line = LogLine(unescape(text[match.end() :]), time_ns, "printk")
        elif line is not None:
            line = line._replace(text=line.text + b"\n" + unescape(text.removeprefix(b" " * 15)))
    if line is not None:
        yield line


def unescape(text: bytes) -> bytes:
    return re.sub(rb"\\x([0-9a-f]{2})", lambda match: bytes.fromhex(match[1].decode()), text)


def reports(log: Iterable[LogLine]) -> list[VictimReport]:
    """All reports of a log."""
    joiner = ReportAssembler()
    found = [report for line in log for report in joiner.feed(line)]
    return found + joiner.end()
