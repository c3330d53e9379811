# SPDX-License-Identifier: Apache-2.0
"""docs/man: manual pages are up to date, valid and complete."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import manpages, record_fields
from tests.harness.environment import require
from tracer import __version__
from tracer.config.settings import SETTINGS
from tracer.delivery.sinks.open import uri_forms

every = pytest.mark.parametrize("page", manpages.PAGES, ids=lambda page: str(page.name))


def text(name: str) -> str:
    """A page as rendered for a terminal, without bold type."""
    require(shutil.which("mandoc"), "mandoc")
    page = manpages.FOLDER / f"man{name[-1]}" / name
    command = ["mandoc", "-T", "ascii", "-O", "width=200", str(page)]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return re.sub(".\b", "", shown)


def test_pages() -> None:
    """There is exactly one page for each command, for the configuration and for the records."""
    assert {path for path in manpages.FOLDER.rglob("*") if path.is_file()} == set(manpages.PAGES)


@every
def test_current(page: Path) -> None:
    """The page is that of ``make docs``."""
    assert manpages.PAGES[page]() == page.read_text()


@every
@pytest.mark.parametrize("command", [("groff", "-man", "-Tutf8", "-ww", "-z"), ("mandoc", "-T", "lint")])
def test_roff(page: Path, command: tuple[str, ...]) -> None:
    """Neither formatter prints a warning."""
    require(shutil.which(command[0]), command[0])
    done = subprocess.run([*command, str(page)], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("name", manpages.MANUALS)
def test_command(name: str) -> None:
    """A page has the content of --help: options, defaults, exit codes, examples."""
    page = manpages.MANUALS[name]
    shown = " ".join(text(f"{name}.1").split())
    for entry in (*(entry for section in page.sections for entry in section.entries), *page.examples, *page.exit_codes):
        assert " ".join(f"{entry.term} {entry.text}".replace("`", "").split()) in shown
    assert f"oomtrace {__version__}" in shown


def test_config() -> None:
    """oomtrace-config(5) has every setting, and every output with its options."""
    shown = text("oomtrace-config.5")
    for name in SETTINGS:
        assert re.search(rf"^ +{name} \(", shown, re.MULTILINE), name
    assert "cmdline (true or false)\n              Include command lines. [default: true]" in shown
    for form in uri_forms().values():
        assert re.search(rf"^ +{re.escape(form.uri)}( |$)", shown, re.MULTILINE), form.uri
        assert all(re.search(rf"^ +{name}(-file,)? ", shown, re.MULTILINE) for name in form.options), form.uri


def test_record() -> None:
    """oomtrace-record(5) has every field of every type."""
    shown = text("oomtrace-record.5")
    for each in record_fields.types():
        section = shown.partition(f"\n{each.name.upper()}\n")[2]
        for field in each.fields:
            assert re.search(rf"^ +{re.escape(field.name)} \(", section, re.MULTILINE), f"{each.name} {field.name}"


def test_escapes() -> None:
    """Characters with a meaning in roff are escaped."""
    assert manpages._wrapped(r"a-b \x 'q' `bold-er` .x") == [r"a\-b \ex \(aqq\(aq \fBbold\-er\fR .x"]
    assert manpages._wrapped(".x") == [r"\&.x"]
