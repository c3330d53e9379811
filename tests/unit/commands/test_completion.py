# SPDX-License-Identifier: Apache-2.0
"""Shell completion, in the shells themselves."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests import completions
from tests.harness.environment import TIMEOUT_S, require

CLEAR = "\x15"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """In which ``oomtrace`` is the command of this checkout."""
    command = tmp_path / "bin" / "oomtrace"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m tracer "$@"\n')
    command.chmod(0o755)
    path = f"{command.parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "HOME": str(tmp_path), "PYTHONPATH": str(completions.ROOT), "TERM": "dumb"}


class Shell:
    """An interactive shell in a terminal."""

    def __init__(self, environment: Mapping[str, str], *command: str) -> None:
        self._terminal, inner = pty.openpty()
        # It leads a session whose terminal this is; Python itself does not fork, as it may have threads.
        self._process = subprocess.Popen(
            ["setsid", "--ctty", *command], stdin=inner, stdout=inner, stderr=inner, env=environment
        )
        os.close(inner)

    def type(self, keys: str, expected: str) -> str:
        """What the shell shows until the expected is there."""
        os.write(self._terminal, keys.encode())
        shown, end_s = "", time.monotonic() + 6 * TIMEOUT_S
        while re.search(expected, shown) is None:
            assert time.monotonic() < end_s, f"{keys!r}: {shown!r}"
            if select.select([self._terminal], [], [], 0.1)[0]:
                shown += os.read(self._terminal, 4096).decode("utf-8", "replace")
        return shown

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._terminal)


@pytest.fixture(params=["bash", "zsh"])
def shell(request: pytest.FixtureRequest, environment: dict[str, str]) -> Iterator[Shell]:
    """One that knows the script from where the Debian package puts it: zsh finds its function by the file's name."""
    require(shutil.which(request.param), request.param)
    if request.param == "bash":
        shell = Shell(environment, "bash", "--norc", "--noprofile", "-i")
        setup = f"source {completions.FOLDER}/oomtrace.bash; bind 'set show-all-if-ambiguous on'"
    else:
        shell = Shell(environment, "zsh", "-f", "-i")
        setup = f"fpath=({completions.FOLDER} $fpath); autoload -U compinit; compinit -u -D"
    try:
        shell.type(f"{setup}; echo rea''dy\n", "ready")  # the echo of the keys has the quotes
        yield shell
    finally:
        shell.end()


def test_tab(shell: Shell) -> None:
    """A command, an option, a choice and a file, each after the Tab key."""
    shell.type("oomtrace wh\t", "oomtrace why ")
    shell.type(f"{CLEAR}oomtrace run --sigk\t", "--sigkill ")
    shell.type("c\t", "containers ")
    shell.type(f"{CLEAR}oomtrace config ch\t", "config check ")
    shell.type(f"{CLEAR}oomtrace parse /usr/lib/os-rel\t", "/usr/lib/os-release")
    assert "report" in shell.type(f"{CLEAR}oomtrace re\t", "resolve")


def test_fish(environment: dict[str, str]) -> None:
    """The same in fish, which shows what each is."""
    require(shutil.which("fish"), "fish")

    def completed(line: str) -> str:
        program = f"source {completions.FOLDER}/oomtrace.fish; complete -C '{line}'"
        command = ["fish", "--no-config", "-c", program]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        assert done.stderr == ""
        return done.stdout

    assert completed("oomtrace wh") == "why\tExplain why a container, pod, unit or process ended.\n"
    assert completed("oomtrace run --sigkill c") == "containers\n"
    assert completed("oomtrace run --sigk").startswith("--sigkill\t")
    assert "/usr/lib/os-release" in completed("oomtrace parse /usr/lib/os-rel")


@pytest.mark.parametrize("file", completions.FILES, ids=lambda file: str(file.name))
def test_current(file: Path) -> None:
    """The files are what `make docs` writes."""
    assert completions.FILES[file]() == file.read_text()


def test_order(environment: dict[str, str]) -> None:
    """What a shell asks for may be named as click names it, or as typer does."""
    for instruction in ("bash_source", "source_bash"):
        command = [sys.executable, "-m", "tracer"]
        asking = {**environment, "_OOMTRACE_COMPLETE": instruction}
        done = subprocess.run(command, env=asking, cwd=completions.ROOT, check=True, capture_output=True, text=True)
        assert done.stdout.strip() == (completions.FOLDER / "oomtrace.bash").read_text().strip()
