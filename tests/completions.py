# SPDX-License-Identifier: Apache-2.0
"""Scripts for shell completion, as ``oomtrace`` itself prints them, under the names by which a shell finds them."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "deploy" / "completion"


def script(shell: str) -> str:
    """What the user's own shell would evaluate."""
    environment = {**os.environ, "_OOMTRACE_COMPLETE": f"{shell}_source"}
    command = [sys.executable, "-m", "tracer"]
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    return done.stdout.strip() + "\n"


def autoloaded() -> str:
    """For zsh's $fpath: the file is the function's body at the first completion, and must complete then."""
    return f'{script("zsh")}\n_oomtrace_completion "$@"\n'


FILES: Mapping[Path, Callable[[], str]] = {
    FOLDER / "oomtrace.bash": lambda: script("bash"),
    FOLDER / "_oomtrace": autoloaded,
    FOLDER / "oomtrace.fish": lambda: script("fish"),
}
