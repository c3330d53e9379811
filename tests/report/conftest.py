# SPDX-License-Identifier: Apache-2.0
"""Fixtures: a browser, and pages to show in it."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from tests.harness.environment import ROOT
from tests.kernel.conftest import cgroup, early_eaters, eat, hierarchy, make_daemon, pytest_configure, shared_daemon

from .browser import Browser
from .samples import Record, many, of_kernel_logs

__all__ = ["cgroup", "early_eaters", "eat", "hierarchy", "make_daemon", "pytest_configure", "shared_daemon"]

MakePage = Callable[[Iterable[Record]], Path]


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    made = Browser(tmp_path_factory.mktemp("profile"))
    yield made
    made.close()


def run_report(*files: Path, output: Path) -> Path:
    """Run the command on files; its page."""
    command = [sys.executable, "-m", "tracer", "report", *map(str, files), "-o", str(output)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=120)
    return output


def write(path: Path, records: Iterable[Record]) -> Path:
    """Write a file of records."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture
def make_page(tmp_path: Path) -> MakePage:
    """Makes the page for records."""
    return lambda records: run_report(write(tmp_path / "oom.json", records), output=tmp_path / "report.html")


@pytest.fixture(scope="session")
def bases() -> list[Record]:
    return of_kernel_logs()


@pytest.fixture(scope="session")
def many_records(bases: list[Record]) -> list[Record]:
    """10,000 incidents."""
    return list(many(bases, 10_000))


@pytest.fixture(scope="session")
def many_page(many_records: list[Record], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    return run_report(write(folder / "oom.json", many_records), output=folder / "report.html")
