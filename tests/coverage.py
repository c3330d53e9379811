# SPDX-License-Identifier: Apache-2.0
"""Measures the coverage of tracer/ by the unit tests: total in docs/testing.md, by module in build/coverage.

python3 -m tests.coverage [pytest arguments]    writes docs/testing.md only without arguments, which choose tests

Child processes count: daemons, readers, commands, and the workers of pytest-xdist.  What ends by SIGKILL does not, as
it has no time to write down what it ran; neither does a child with an environment of its own.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from tests.pythons import run_to_end

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "coverage"
PAGE = ROOT / "docs" / "testing.md"
LOWEST = 5
MARKS = ("<!-- coverage -->\n", "<!-- /coverage -->")


def text(report: dict[str, Any], python: str) -> str:
    """The lines for docs/testing.md, from coverage's JSON report."""
    totals = report["totals"]
    files = sorted(report["files"].items(), key=lambda item: (item[1]["summary"]["percent_covered"], item[0]))
    lowest = [f"`{name}` {each['summary']['percent_covered']:.0f} %" for name, each in files[:LOWEST]]
    total = (
        f"With Python {python} the unit tests run {totals['percent_covered']:.1f} % of the lines of `tracer/` "
        f"({totals['covered_lines']:,} of {totals['num_statements']:,})."
    )
    return textwrap.fill(f"{total} The lowest: {', '.join(lowest)}.", 120, break_on_hyphens=False) + "\n"


def with_text(page: str, new: str) -> str:
    """The page with these lines between its markers."""
    begin, end = MARKS
    head, found, rest = page.partition(begin)
    _, closed, tail = rest.partition(end)
    assert found and closed, f"{PAGE} has no {begin!r} and {end!r}"  # noqa: PT018
    return f"{head}{begin}{new}{end}{tail}"


def measure(arguments: list[str]) -> int:
    """Run pytest; its status. The data of all processes is then in FOLDER."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    pytest = ["pytest", "-q", "-n", "auto", *(arguments or ["tests/unit"])]
    command = [sys.executable, "-m", "tests.stage", sys.executable, "-m", "coverage", "run", "-m", *pytest]
    return run_to_end(command)


def main() -> int:
    arguments = sys.argv[1:]
    status = measure(arguments)
    coverage = [sys.executable, "-m", "coverage"]
    for words in (["combine", "--quiet"], ["json", "--quiet"], ["html", "--quiet"]):
        subprocess.run([*coverage, *words], cwd=ROOT, check=True)
    found = text(json.loads((FOLDER / "coverage.json").read_text()), ".".join(platform.python_version_tuple()[:2]))
    print(found, end="")
    if not arguments:
        page = PAGE.read_text()
        before = re.search(r"run ([\d.]+) % of the lines", page)
        PAGE.write_text(with_text(page, found))
        print(f"written to {PAGE.relative_to(ROOT)}" + (f"; before: {before[1]} %" if before else ""))
    return status


if __name__ == "__main__":
    sys.exit(main())
