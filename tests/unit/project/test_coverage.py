# SPDX-License-Identifier: Apache-2.0
"""The measurement of coverage: children are included, and the page has the measured number."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.coverage import PAGE, text, with_text
from tests.harness.environment import ROOT

PROGRAM = """
import os, subprocess, sys
if len(sys.argv) == 1:
    subprocess.run([sys.executable, __file__, "child"], check=True)
elif os.fork() == 0:
    in_grandchild = 1
    os._exit(0)
else:
    os.wait()
    in_child = 1
"""
REPORT = {
    "totals": {"percent_covered": 91.25, "covered_lines": 9125, "num_statements": 10000},
    "files": {f"tracer/{name}.py": {"summary": {"percent_covered": part}} for part, name in enumerate("fedcba")},
}


def test_text() -> None:
    expected = (
        "With Python 3.12 the unit tests run 91.2 % of the lines of `tracer/` (9,125 of 10,000). The lowest: "
        "`tracer/f.py` 0 %,\n`tracer/e.py` 1 %, `tracer/d.py` 2 %, `tracer/c.py` 3 %, `tracer/b.py` 4 %.\n"
    )
    assert text(REPORT, "3.12") == expected


def test_page() -> None:
    """The number replaces that between the markers; the rest of the page is unchanged."""
    page = PAGE.read_text()
    (percent,) = re.findall(r"With Python 3\.\d+ the unit tests run ([\d.]+) % of the lines", page)
    assert 50 < float(percent) <= 100
    assert with_text(page, "x\n").count("<!-- coverage -->\nx\n<!-- /coverage -->") == 1
    with pytest.raises(AssertionError):
        with_text("# Testing\n", "x\n")


def test_children(tmp_path: Path) -> None:
    """With the project's settings a child, and one that forks and calls _exit(), are measured."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    settings = (ROOT / "pyproject.toml").read_text()
    (section,) = re.findall(r"^\[tool\.coverage\.run\]\n.*?(?=^\[)", settings, re.MULTILINE | re.DOTALL)
    (tmp_path / "pyproject.toml").write_text(re.sub(r"^source_pkgs = .*\n", "", section, flags=re.MULTILINE))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    for words in (["run", str(program)], ["combine", "--quiet"], ["json", "--quiet", "-o", "report.json"]):
        command = [sys.executable, "-m", "coverage", *words]
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=60)
    (found,) = json.loads((tmp_path / "report.json").read_text())["files"].values()
    assert found["missing_lines"] == []
