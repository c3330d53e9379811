# SPDX-License-Identifier: Apache-2.0
"""The documentation agrees with the code."""

import json
import re
import shlex
import subprocess
import sys
from typing import Any

import pytest

from tests import docs
from tests.fuzz.targets import TARGETS
from tests.harness import ROOT
from tests.harness.records import shown
from tests.harness.schema import validate
from tracer.base.extras import EXTRAS
from tracer.delivery.sinks.open import uri_forms

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

README = (ROOT / "README.md").read_text()
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "tracer", *arguments], cwd=ROOT, capture_output=True, text=True)


def examples() -> list[tuple[str, str]]:
    """Commands of README's console blocks, with their output there."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL):
        for example in block.split("$ ")[1:]:
            command, _, output = example.partition("\n")
            if not command.startswith("oomtrace why") or not output:  # tested by test_readme_answer
                found.append((command.partition("#")[0].strip(), output))
    return found


def test_record_reference() -> None:
    """The tables in docs/record.md are those of ``make docs``."""
    page = docs.RECORD.read_text()
    assert docs.render_record(page) == page


def test_destinations_reference() -> None:
    """The tables in docs/destinations.md are those of ``make docs``, with every output and option."""
    page = docs.DESTINATIONS.read_text()
    assert docs.render_destinations(page) == page
    for form in uri_forms().values():
        assert f"| `{form.uri}` |" in page
    told: dict[str, set[str]] = {scheme: set() for scheme in uri_forms()}
    for of, table in re.findall(r"Options of ([^\n]+):\n\n(.*?)\n(?:\n|<!--)", page, re.DOTALL):
        named = {
            each for part in re.findall("`([^`]+)`", of) for each in (part.replace("(s)", ""), part.replace("(s)", "s"))
        }
        for scheme in told if of == "all outputs" else named & set(told):
            told[scheme] |= {name.removesuffix("-file") for name in re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)}
    for scheme, form in uri_forms().items():
        assert {name.removesuffix("-file") for name in form.options} <= told[scheme], scheme


def test_extras() -> None:
    """The table in docs/install.md is what `make docs` writes; what it names is what pyproject.toml and Debian's
    package name.
    """
    page = docs.INSTALL.read_text()
    assert docs.render_install(page) == page
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {name: [re.split("[<>=]", each)[0] for each in packages] for name, packages in extras.items()}
    assert {name: [extra.package] for name, extra in EXTRAS.items()} == {
        name: packages for name, packages in named.items() if name not in ("test", "fuzz", "release", "site")
    }
    control = (ROOT / "deploy" / "debian" / "control").read_text()
    wanted = re.findall(r"^(?:Recommends|Suggests): (.*)", control, re.MULTILINE)
    engine = ["python3-bpfcc"]
    assert sorted(", ".join(wanted).split(", ")) == sorted([*engine, *(extra.debian for extra in EXTRAS.values())])
    assert {form.extra for form in uri_forms().values() if form.extra} <= set(EXTRAS)


def test_readme_record() -> None:
    """README shows a part of the record that docs/record.md shows."""
    (text,) = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
    whole = shown()
    validate(whole)
    assert whole["incident"]["victims"] == 1
    assert is_part(json.loads(text), whole)


def is_part(part: Any, whole: Any) -> bool:
    """Objects may lack fields, lists no items."""
    if isinstance(part, dict):
        return all(name in whole and is_part(value, whole[name]) for name, value in part.items())
    if isinstance(part, list):
        return len(part) == len(whole) and all(map(is_part, part, whole))
    return bool(part == whole)


def test_readme_answer() -> None:
    """What README shows of `oomtrace why` is what it answers about this record: what `make docs` writes."""
    assert docs.render_readme(README) == README


def test_picture() -> None:
    """The picture of the report is a small file."""
    picture = ROOT / "docs" / "images" / "report.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size < 60_000


@pytest.mark.parametrize(("command", "output"), examples())
def test_readme_examples(command: str, output: str) -> None:
    """Commands in README exist, and print the output shown."""
    program, verb, *arguments = shlex.split(command)
    assert program == "oomtrace"
    assert f"Usage: python -m tracer {verb}" in run(verb, "--help").stdout
    if output:
        assert run(verb, *arguments).stdout == output


def test_make_targets() -> None:
    """Every make target in the documentation is in the Makefile and in ``make help``."""
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = {line.split()[0] for line in listed.splitlines()}
    named = {
        target
        for page in PAGES
        for target in re.findall(r"(?:^ {4}|`|&& )make ([a-z-]+)", page.read_text(), re.MULTILINE)
    }
    assert named
    assert named <= targets


def test_fuzz_targets() -> None:
    """docs/testing.md has every target of ``make fuzz``."""
    page = (ROOT / "docs" / "testing.md").read_text()
    assert all(f"`{name}`" in page for name in TARGETS)


def test_parse_options() -> None:
    """docs/parse.md has exactly the options of ``oomtrace parse``."""
    page = (ROOT / "docs" / "parse.md").read_text()
    shown = set(re.findall(r"(?<![\w-])(--[a-z-]+)", run("parse", "--help").stdout)) - {"--help", "--last"}
    named = set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", page)) - {"--time-format", "--list-boots"}
    assert named == shown
    for command in re.findall(r"oomtrace parse([^\n`|]*)", page):
        options = re.findall(r"(?<!\S)--[a-z-]+", command)
        assert set(options) <= shown
