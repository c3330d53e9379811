# SPDX-License-Identifier: Apache-2.0
"""Writes what in the documentation comes from the code: ``make docs``; ``--check`` only compares.

docs/record.md: every field of every record, from the JSON Schema.  docs/destinations.md: every output and its options,
from the forms of tracer/sinks.  docs/install.md: the extras, from tracer/base/extras.py.  README.md: an answer of
``oomtrace why``.  The prose around them is written by hand.  deploy/completion: what shells run (tests/completions.py).
"""

import json
import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests import completions
from tracer.base.extras import EXTRAS
from tracer.delivery.sinks.open import MODULES, forms
from tracer.delivery.sinks.target import COMMON, Option
from tracer.delivery.sinks.tls import OPTIONS as tls_options
from tracer.records.json_schema import json_schema

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
RECORD = ROOT / "docs" / "record.md"
DESTINATIONS = ROOT / "docs" / "destinations.md"
INSTALL = ROOT / "docs" / "install.md"
WIDTH = 90
"""Of prose in the pages."""


def render_record(page: str) -> str:
    return _with_parts(page, {"fields-table": _fields()})


def _fields() -> list[str]:
    """A heading, a description and a table of fields for each type of record."""
    schema = json_schema()
    definitions = schema["$defs"]
    lines = []
    for reference in schema["oneOf"]:
        definition = definitions[_name(reference)]
        kind = definition["properties"]["type"]["enum"][0]
        lines += ["", f"## `{kind}`", "", definition["description"], ""]
        lines += ["| field | type | meaning |", "|---|---|---|", *_rows(definition, definitions, "")]
    return [*lines, ""]


def _rows(definition: dict[str, Any], definitions: dict[str, Any], prefix: str) -> list[str]:
    rows = []
    for name, field in definition["properties"].items():
        spelled, inner, many = _type(field, definitions)
        meaning = field.get("description") or (definitions[inner]["description"] if inner else "")
        meaning = meaning.replace("|", "\\|")
        rows.append(f"| `{prefix}{name}` | {spelled} | {meaning} |")
        if inner is not None:
            rows += _rows(definitions[inner], definitions, f"{prefix}{name}{'[]' if many else ''}.")
    return rows


def _type(field: dict[str, Any], definitions: dict[str, Any]) -> tuple[str, str | None, bool]:
    """How a field's type is spelled, the record that it holds, and whether it holds a list of them."""
    if "$ref" in field:
        return "object", _name(field), False
    if "anyOf" in field:
        spelled = [_type(option, definitions) for option in field["anyOf"]]
        inner = next((option for option in spelled if option[1] is not None), ("", None, False))
        return " or ".join(dict.fromkeys(option[0] for option in spelled)), inner[1], inner[2]
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"]), None, False
    if field["type"] == "array":
        spelled_item, inner_item, _ = _type(field["items"], definitions)
        return f"list of {spelled_item}s", inner_item, True
    return field["type"], None, False


def _name(reference: dict[str, Any]) -> str:
    return str(reference["$ref"]).rpartition("/")[2]


def render_destinations(page: str) -> str:
    return _with_parts(page, {"outputs-table": _uris(), "options-table": _options()})


def render_install(page: str) -> str:
    return _with_parts(page, {"extras-table": _extras()})


def render_readme(page: str) -> str:
    return _with_parts(page, {"why": _why()})


def _with_parts(page: str, parts: Mapping[str, Sequence[str]]) -> str:
    """The page with the lines between its markers made anew."""
    for name, lines in parts.items():
        made = "\n".join([f"<!-- {name} -->", *lines, f"<!-- /{name} -->"])
        (place,) = re.findall(rf"<!-- {name} -->\n.*<!-- /{name} -->", page, re.DOTALL)
        page = page.replace(place, made)
    return page


def _why() -> list[str]:
    """The first paragraph of what ``oomtrace why`` answers about the record in docs/record.md, broken for a page."""
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
    for form in forms().values():
        needs = f"[`{EXTRAS[form.extra].package}`](install.md#extras)" if form.extra else ""
        rows.append(f"| `{form.uri}` | {form.meaning} | {needs} |".replace("  |", " |"))
    return rows


def _extras() -> list[str]:
    rows = ["| for | with pipx | Debian's package |", "|---|---|---|"]
    for extra in EXTRAS.values():
        since = f", from Debian {extra.debian_since} on" if extra.debian_since else ""
        rows.append(f"| {extra.what} | `pipx inject oomtrace {extra.package}` | `{extra.debian}`{since} |")
    return rows


def _options() -> list[str]:
    """A table for each kind of output, those of all outputs and those of TLS first."""
    kinds: dict[str, list[str]] = {}
    for scheme, module in MODULES.items():
        kinds.setdefault(module, []).append(scheme)
    rows = _table("all outputs", {name: (option, "") for name, option in COMMON.items()})
    tls = _short([scheme for scheme, form in forms().items() if set(tls_options) <= set(form.options)])
    rows += _table(f"TLS ({tls})", {name: (option, "") for name, option in tls_options.items()})
    for schemes in kinds.values():
        options: dict[str, tuple[Option, str]] = {}
        for scheme in schemes:
            for name, option in forms()[scheme].options.items():
                has_all = set(tls_options) <= set(forms()[scheme].options)
                if not (has_all and tls_options.get(name) == option):
                    options.setdefault(name, (option, ""))
        for name, (option, _) in options.items():
            having = [scheme for scheme in schemes if name in forms()[scheme].options]
            remark = "" if having == schemes else f" ({_short(having)})"
            by_default: dict[str, list[str]] = {}
            for scheme in having:
                by_default.setdefault(_default(forms()[scheme].options[name]) or "none", []).append(scheme)
            if len(by_default) > 1:
                told = "; ".join(f"{default} for {_short(those)}" for default, those in by_default.items())
                option, remark = option._replace(default=None), f" Default: {told}."
            options[name] = option, remark
        if options:
            rows += _table(_short(schemes), options)
    return rows[:-1]


def _table(of: str, options: Mapping[str, tuple[Option, str]]) -> list[str]:
    rows = [f"Options of {of}:", "", "| option | value | default | meaning |", "|---|---|---|---|"]
    for name, (option, remark) in options.items():
        spelled, value = _spelled(name, option)
        rows.append(f"| {spelled} | {value} | {_default(option)} | {option.meaning}{remark} |".replace("  |", " |"))
    return [*rows, ""]


def _short(schemes: Sequence[str]) -> str:
    """With and without TLS as one: ``loki+http(s)``."""
    both = [f"{scheme}(s)" if f"{scheme}s" in schemes else scheme for scheme in schemes if scheme[:-1] not in schemes]
    return ", ".join(f"`{scheme}`" for scheme in both)


def _default(option: Option) -> str:
    return "" if option.default is None else f"`{_written(option)}`"


def _spelled(name: str, option: Option) -> tuple[str, str]:
    if isinstance(option.kind, tuple):
        return f"`{name}`", ", ".join(f"`{value}`" for value in option.kind)
    if option.kind == "secret":
        return f"`{name}-file`, `{name}-env`", "absolute path; environment variable"
    values = {
        "text": "text",
        "count": "number",
        "bytes": "number, with `K`, `M`, `G`",
        "seconds": "number, with `s`, `m`, `h`, `d`",
        "flag": "`yes`, `no`",
        "path": "absolute path",
        "list": "with commas between",
    }
    return f"`{name}`", values[option.kind]


def _written(option: Option) -> str:
    """A default as it would be written in a URI."""
    if isinstance(option.default, bool):
        return "yes" if option.default else "no"
    if option.kind == "bytes" and isinstance(option.default, int):
        for unit, size in (("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)):
            if option.default and option.default % size == 0:
                return f"{option.default // size}{unit}"
    return str(option.default)


PAGES: Mapping[Path, Callable[[], str]] = {
    README: lambda: render_readme(README.read_text()),
    RECORD: lambda: render_record(RECORD.read_text()),
    DESTINATIONS: lambda: render_destinations(DESTINATIONS.read_text()),
    INSTALL: lambda: render_install(INSTALL.read_text()),
    **completions.FILES,
}


def main() -> int:
    for page, make in PAGES.items():
        rendered = make()
        if "--check" not in sys.argv[1:]:
            page.parent.mkdir(exist_ok=True)
            page.write_text(rendered)
        elif not page.exists() or page.read_text() != rendered:
            print(f"{page} is not up to date: run make docs", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
