# SPDX-License-Identifier: Apache-2.0
"""The supported versions of Python, and missing ones."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests import pythons
from tests.harness.environment import ROOT, TIMEOUT_S, wait_until

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def test_classifiers() -> None:
    """All versions since requires-python of pyproject.toml are supported, also in the workflow."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    supported = pythons.versions()
    assert project["requires-python"] == f">={supported[0]}"
    minors = [int(version.partition(".")[2]) for version in supported]
    assert minors == list(range(minors[0], minors[-1] + 1))
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    (setup,) = (step["with"] for step in jobs["pythons"]["steps"] if "setup-python" in step.get("uses", ""))
    assert setup["python-version"].split() == supported


def test_no_licence_classifier() -> None:
    """PEP 639: with an SPDX expression there is no licence among the classifiers."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert not [name for name in project["classifiers"] if name.startswith("License ::")]
    assert project["license"] == "Apache-2.0 AND GPL-2.0-only"


def run(path: Path, *arguments: str, require: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": str(path), "PYENV_ROOT": str(path), "OOMTRACE_REQUIRE": require}
    command = [sys.executable, "-m", "tests.pythons", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_missing_version(tmp_path: Path) -> None:
    """A missing version is skipped with a message, or fails if everything is required.

    A shim that stands for it and fails, as pyenv's do, is not it.
    """
    shim = tmp_path / "python3.99"
    shim.write_text("#!/bin/sh\necho 'pyenv: python3.99: command not found' >&2\nexit 127\n")
    shim.chmod(0o755)
    skipped = run(tmp_path, "3.99")
    assert (skipped.returncode, skipped.stdout) == (0, "3.99: skipped: this machine has no python3.99\n")
    failed = run(tmp_path, "3.99", require="all")
    assert (failed.returncode, failed.stdout) == (1, "3.99: failed: this machine has no python3.99\n")


def test_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions of pyenv are found without being on the PATH."""
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    version = f"3.{sys.version_info.minor}"
    assert pythons.interpreter(version) is None
    program = tmp_path / "versions" / f"{version}.1" / "bin" / f"python{version}"
    program.parent.mkdir(parents=True)
    program.symlink_to(sys.executable)
    assert pythons.interpreter(version) == str(program)


def test_usage(tmp_path: Path) -> None:
    done = run(tmp_path, "two")
    assert done.returncode == 2
    assert re.match("invalid version: 'two'", done.stderr)


def test_end(tmp_path: Path) -> None:
    """SIGTERM stops the tests, and it waits for their end."""
    program = "import sys; from tests.pythons import run_to_end; run_to_end(sys.argv[1:])"
    script = (
        f"trap 'sleep 0.2; touch {tmp_path}/ended; exit' TERM; touch {tmp_path}/began; while :; do sleep 0.05; done"
    )
    process = subprocess.Popen([sys.executable, "-c", program, "sh", "-c", script], cwd=ROOT)
    try:
        wait_until("the tests have started", (tmp_path / "began").exists)
        process.terminate()
        assert process.wait(TIMEOUT_S) == 128 + signal.SIGTERM
        assert (tmp_path / "ended").exists()
    finally:
        process.kill()
        process.wait()
