# SPDX-License-Identifier: Apache-2.0
"""The Makefile: in a fresh clone each target makes its prerequisites first."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.harness.environment import ROOT

TARGETS = re.findall(r"^([a-z][a-z-]*):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
BUILT = {
    r"\.venv/bin/(?!pip\b)": "pip install",
    r"\.venv/bin/pip\b": "-m venv .venv",
    r"-m tests\.(?!docs\b|fuzz\b)|pytest tests/": "clang -target bpf",
    r"pip wheel": "clang -target bpf",
    r"tests\.vm\.run --(?:few|all)$|tests\.vm\.systemd|pytest tests/packaging": "dpkg-buildpackage",
}
"""Text in a recipe line -> text in an earlier line that makes its prerequisite."""


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh clone, without anything built."""
    made = tmp_path_factory.mktemp("clone") / "oomtrace"
    ignored = shutil.ignore_patterns(".git", ".venv", "build", "dist", "objects", "__pycache__", ".*_cache", "results")
    shutil.copytree(ROOT, made, ignore=ignored)
    return made


@pytest.mark.parametrize("target", TARGETS)
def test_fresh_clone(clone: Path, target: str) -> None:
    """The commands that ``make`` would run use nothing before it is made."""
    done = subprocess.run(["make", "--dry-run", target], cwd=clone, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for needs, makes in BUILT.items():
        used = next((number for number, line in enumerate(lines) if re.search(needs, line) and makes not in line), None)
        if used is not None:
            assert any(makes in line for line in lines[:used]), f"{lines[used]!r} comes before {makes!r}"


@pytest.mark.parametrize("target", TARGETS)
def test_tests_leave_nothing(clone: Path, target: str) -> None:
    """Each test command runs through tests/stage.py, which removes what is left behind."""
    done = subprocess.run(["make", "--dry-run", target], cwd=clone, capture_output=True, text=True, timeout=60)
    tests = [line for line in done.stdout.splitlines() if re.search(r"bin/pytest|-m tests\.vm\.(run|systemd)", line)]
    assert all("-m tests.stage " in line for line in tests), tests
