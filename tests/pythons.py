# SPDX-License-Identifier: Apache-2.0
"""Runs the unit tests with versions of Python, those of pyproject.toml's classifiers by default; a line for each.

python3 -m tests.pythons 3.10 3.13          what a run says goes to build/python/VERSION.log

A version that this machine lacks is skipped, and fails with OOMTRACE_REQUIRE=all.  Status: 0 when all that ran passed.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from tests.repeat import count

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "python"
VERSION = re.compile(r"3\.\d+")


def versions() -> list[str]:
    """The versions supported by pyproject.toml."""
    text = (ROOT / "pyproject.toml").read_text()
    return re.findall(r'"Programming Language :: Python :: (3\.\d+)"', text)


def interpreter(version: str) -> str | None:
    """The program of a version: on the PATH, or of pyenv."""
    root = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    installed = sorted(str(path) for path in root.glob(f"versions/{version}.*/bin/python{version}"))
    for program in [shutil.which(f"python{version}"), *installed]:
        if program is None:
            continue
        # Shims of pyenv for versions that are not selected are on the PATH, too, and fail.
        done = subprocess.run([program, "--version"], capture_output=True, text=True)
        if done.returncode == 0 and done.stdout.startswith(f"Python {version}."):
            return program
    return None


def prepare(version: str, program: str) -> str:
    """The Python of a virtual environment with the project and the dependencies of its tests."""
    folder = FOLDER / version
    python = str(folder / "bin" / "python")
    ready = folder / "ready"
    wanted = (ROOT / "pyproject.toml").read_text()
    if not ready.exists() or ready.read_text() != wanted:
        subprocess.run([program, "-m", "venv", "--clear", folder], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--editable", ".[test]"], cwd=ROOT, check=True)
        ready.write_text(wanted)
    return python


def run(version: str, program: str) -> bool:
    """Print the line of this version; whether the tests passed."""
    log = FOLDER / f"{version}.log"
    python = prepare(version, program)
    began = time.monotonic()
    command = [python, "-m", "tests.stage", python, "-m", "pytest", "tests/unit", "-q", "-n", "auto"]
    with log.open("wb") as out:
        status = run_to_end(command, out)
    tests = count(log.read_text(errors="replace"))
    print(
        f"{version}: {tests['passed']} passed, {tests['failed']} failed, {tests['skipped']} skipped, "
        f"{time.monotonic() - began:.0f} s, status {status}",
        flush=True,
    )
    if status:
        print(f"{version}: see {log.relative_to(ROOT)}", file=sys.stderr)
    return status == 0


def run_to_end(command: list[str], out: IO[bytes] | None = None) -> int:
    """Run a command of tests.stage and return its exit status.

    SIGINT and SIGTERM are forwarded to the command as SIGTERM; then the command is awaited, and SystemExit raised.
    """
    received: list[int] = []
    stages: list[subprocess.Popen[bytes]] = []

    def end(number: int, _: object) -> None:
        received.append(number)
        for stage in stages:
            stage.send_signal(signal.SIGTERM)

    # Before the command starts, because a signal in between would leave it running.
    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    with subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out) as stage:
        stages.append(stage)
        if received:
            stage.send_signal(signal.SIGTERM)
        status = stage.wait()
    for number, handler in before.items():
        signal.signal(number, handler)
    if received:
        sys.exit(128 + received[0])
    return status


def main() -> int:
    wanted = sys.argv[1:] or versions()
    if invalid := [version for version in wanted if not VERSION.fullmatch(version)]:
        print(f"invalid version: {invalid[0]!r}; usage: python3 -m tests.pythons [3.N...]", file=sys.stderr)
        return 2
    FOLDER.mkdir(parents=True, exist_ok=True)
    well = True
    for version in wanted:
        program = interpreter(version)
        if program is None:
            required = os.environ.get("OOMTRACE_REQUIRE") == "all"
            print(f"{version}: {'failed' if required else 'skipped'}: this machine has no python{version}", flush=True)
            well &= not required
        else:
            well &= run(version, program)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
