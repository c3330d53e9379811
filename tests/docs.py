# SPDX-License-Identifier: Apache-2.0
"""Writes the generated parts of the documentation: ``make docs``; ``--check`` only compares.

docs/record.md: every field of every record, from the JSON Schema.  docs/destinations.md: every output and its options,
from the forms of the sinks.  docs/install.md: the extras.  README.md: an answer of ``oomtrace why``.  The prose around
them is written by hand.  deploy/completion: what shells run (tests/completions.py).  docs/man: manual pages
(tests/manpages.py).
"""

import json
import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests import completions, manpages, output_options, record_fields
from tracer.base.extras import EXTRAS
from tracer.delivery.sinks.open import uri_forms

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
RECORD = ROOT / "docs" / "record.md"
DESTINATIONS = ROOT / "docs" / "destinations.md"
INSTALL = ROOT / "docs" / "install.md"
WIDTH = 90
"""Line width of prose in the pages."""


def render_record(page: str) -> str:
    return _with_parts(page, {"fields-table": _fields()})


def _fields() -> list[str]:
    """A heading, a description and a table of fields for each type of record."""
    lines = []
    for each in record_fields.types():
        lines += ["", f"## `{each.name}`", "", each.meaning, "", "| field | type | meaning |", "|---|---|---|"]
        for field in each.fields:
            meaning = field.meaning.replace("|", "\\|")
            lines.append(f"| `{field.name}` | {field.type} | {meaning} |")
    return [*lines, ""]


def render_destinations(page: str) -> str:
    return _with_parts(page, {"outputs-table": _uris(), "options-table": _options()})


def render_install(page: str) -> str:
    return _with_parts(page, {"extras-table": _extras()})


def render_readme(page: str) -> str:
    return _with_parts(page, {"why": _why()})


def _with_parts(page: str, parts: Mapping[str, Sequence[str]]) -> str:
    """The page with new lines between its markers."""
    for name, lines in parts.items():
        made = "\n".join([f"<!-- {name} -->", *lines, f"<!-- /{name} -->"])
        (place,) = re.findall(rf"<!-- {name} -->\n.*<!-- /{name} -->", page, re.DOTALL)
        page = page.replace(place, made)
    return page


def _why() -> list[str]:
    """The first paragraph of the answer of ``oomtrace why`` about the record in docs/record.md, wrapped."""
    (record,) = re.findall(r"```json\n(.*?)```", RECORD.read_text(), re.DOTALL)
    name = json.loads(record)["container"]["name"]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(json.dumps(json.loads(record)) + "\n")
        file.flush()
        command = [sys.executable, "-m", "tracer", "why", name, "--records", file.name]
        answer = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    paragraph = answer.partition("\n\n")[0].splitlines()
    broken = [line for sentence in paragraph for line in textwrap.wrap(sentence, WIDTH)]
    return ["", "```console", f"$ oomtrace why {name}", *broken, "```", ""]


def _uris() -> list[str]:
    rows = ["| URI | what | needs |", "|---|---|---|"]
    for form in uri_forms().values():
        needs = f"[`{EXTRAS[form.extra].package}`](install.md#extras)" if form.extra else ""
        rows.append(f"| `{form.uri}` | {form.meaning} | {needs} |".replace("  |", " |"))
    return rows


def _extras() -> list[str]:
    rows = ["| for | with pipx | Debian's package |", "|---|---|---|"]
    for extra in EXTRAS.values():
        since = f", from Debian {extra.debian_since} on" if extra.debian_since else ""
        rows.append(f"| {extra.needed_by} | `pipx inject oomtrace {extra.package}` | `{extra.debian}`{since} |")
    return rows


def _options() -> list[str]:
    """A table for each kind of output."""
    rows = []
    for group in output_options.groups():
        rows += [f"Options of {group.of}:", "", "| option | value | default | meaning |", "|---|---|---|---|"]
        for row in group.rows:
            rows.append(f"| {row.spelled} | {row.values} | {row.default} | {row.meaning} |".replace("  |", " |"))
        rows.append("")
    return rows[:-1]


PAGES: Mapping[Path, Callable[[], str]] = {
    README: lambda: render_readme(README.read_text()),
    RECORD: lambda: render_record(RECORD.read_text()),
    DESTINATIONS: lambda: render_destinations(DESTINATIONS.read_text()),
    INSTALL: lambda: render_install(INSTALL.read_text()),
    **completions.FILES,
    **manpages.PAGES,
}


def main() -> int:
    for page, make in PAGES.items():
        rendered = make()
        if "--check" not in sys.argv[1:]:
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(rendered)
        elif not page.exists() or page.read_text() != rendered:
            print(f"{page} is not up to date: run make docs", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
