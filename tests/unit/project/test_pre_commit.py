# SPDX-License-Identifier: Apache-2.0
"""pre-commit runs the commands of ``make lint``."""

import os
import re
import subprocess
from typing import Any

import yaml

from tests.harness.environment import ROOT

ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
"""The environment without the variables of ``make``."""
FOLDERS = ("bpf", "deploy", "tests", "tracer", "vagrant")


def hooks() -> list[dict[str, Any]]:
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repository["repo"] for repository in repositories] == ["local"], "tools of the checkout only"
    found: list[dict[str, Any]] = repositories[0]["hooks"]
    return found


def command(hook: dict[str, Any]) -> list[str]:
    """The command of a hook for all files: its entry, and the files unless the entry has them."""
    words: list[str] = hook["entry"].split()
    if hook.get("pass_filenames", True):
        paths = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file())
        names = (str(path.relative_to(ROOT)) for path in paths)
        words += sorted(name for name in names if re.search(hook["files"], name))
    return words


def linted() -> list[list[str]]:
    """The commands of ``make lint``, without those of its prerequisites."""
    make = ["make", "--no-print-directory", "--dry-run", "lint"]
    recipe = subprocess.run(make, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=True).stdout
    text = recipe.replace("\\\n", " ").splitlines()
    (first,) = (number for number, line in enumerate(text) if "ruff check" in line)
    return [line.split() for line in text[first:]]


def test_commands() -> None:
    """The commands, arguments, files and order are equal."""
    by_make = [line[:1] + sorted(line[1:]) for line in linted()]
    by_hooks = [words[:1] + sorted(words[1:]) for words in map(command, hooks())]
    assert by_make == by_hooks


def test_nothing_is_downloaded() -> None:
    assert {hook["language"] for hook in hooks()} == {"system"}
