# SPDX-License-Identifier: Apache-2.0
"""Repeats a stage of ``make test``: a line for each run, and how often each test failed.

python3 -m tests.repeat STAGE TIMES         what a run says goes to build/repeat/STAGE-NUMBER.log

Status: 0 when every run was well.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOGS = ROOT / "build" / "repeat"
_SUMMARY = re.compile(r"^=*\s*((?:\d+ [a-z]+, )*\d+ [a-z]+) in \d[\d.]*s", re.MULTILINE)
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)
_WORDS = {"error": "failed", "errors": "failed"}


def count(log: str) -> Counter[str]:
    """Number of tests by outcome, over all summary lines of pytest."""
    found: Counter[str] = Counter()
    for summary in _SUMMARY.findall(log):
        for part in summary.split(", "):
            number, word = part.split()
            found[_WORDS.get(word, word)] += int(number)
    return found


def failures(log: str) -> set[str]:
    """Failed tests, and what a stage left behind."""
    left = set(re.findall(r"^stage: (left behind: \w+)", log, re.MULTILINE))
    return set(_FAILED.findall(log)) | left


def main() -> int:
    if len(sys.argv) != 3 or not sys.argv[2].isdecimal():
        print("usage: python3 -m tests.repeat STAGE TIMES", file=sys.stderr)
        return 2
    stage, times = sys.argv[1], int(sys.argv[2])
    LOGS.mkdir(parents=True, exist_ok=True)
    failed: Counter[str] = Counter()
    bad = 0
    for number in range(1, times + 1):
        log = LOGS / f"{stage}-{number}.log"
        began = time.monotonic()
        status = _make(stage, log)
        text = log.read_text(errors="replace")
        tests = count(text)
        bad += bool(status)
        failed.update(failures(text) or ({"the stage itself"} if status else ()))
        print(
            f"{stage} {number}/{times}: {tests['passed']} passed, {tests['failed']} failed, "
            f"{tests['skipped']} skipped, {time.monotonic() - began:.0f} s, status {status}",
            flush=True,
        )
        if status < 0 or status > 128:
            return 130
    for name, often in failed.most_common():
        print(f"{often} of {times}: {name}")
    print(f"{stage}: {times - bad} of {times} runs were well; logs: {LOGS.relative_to(ROOT)}")
    return 1 if bad else 0


def _make(stage: str, log: Path) -> int:
    """The status of a run; Ctrl-C stops it, and then this process."""
    interrupted = []
    with log.open("wb") as out:
        command = ["make", "--no-print-directory", stage]
        make = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out)

        def end(by: int, _: object) -> None:
            interrupted.append(by)
            make.send_signal(signal.SIGTERM)

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, end)
        status = make.wait()
    return 128 + interrupted[0] if interrupted else status


if __name__ == "__main__":
    sys.exit(main())
