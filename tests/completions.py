# SPDX-License-Identifier: Apache-2.0
"""Writes the shell completion scripts of ``oomtrace``, with the file names that the shells look for."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "deploy" / "completion"


def script(shell: str) -> str:
    """The script that the user's shell would evaluate."""
    environment = {**os.environ, "_OOMTRACE_COMPLETE": f"{shell}_source"}
    command = [sys.executable, "-m", "tracer"]
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    return done.stdout.strip() + "\n"


def autoloaded() -> str:
    """For zsh's $fpath: at the first completion the file is the function's body, and must complete."""
    return f'{script("zsh")}\n_oomtrace_completion "$@"\n'


FILES: Mapping[Path, Callable[[], str]] = {
    FOLDER / "oomtrace.bash": lambda: script("bash"),
    FOLDER / "_oomtrace": autoloaded,
    FOLDER / "oomtrace.fish": lambda: script("fish"),
}
