# SPDX-License-Identifier: Apache-2.0
"""Writes what in the documentation comes from the code: ``make docs``; ``--check`` only compares.

docs/output.md: every field of every record, from the JSON Schema.  docs/outputs.md: every output and its options, from
the forms of tracer/sinks; docs/install.md: what extras are, from tracer/extras.py; the prose between the tables is
written by hand.
"""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tracer.extras import EXTRAS
from tracer.schema import json_schema
from tracer.sinks.open import MODULES, forms
from tracer.sinks.target import COMMON, Option
from tracer.sinks.tls import OPTIONS as tls_options

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "docs" / "output.md"
OUTPUTS = ROOT / "docs" / "outputs.md"
INSTALL = ROOT / "docs" / "install.md"

HEAD = """# Output reference

<!-- Written by `make docs` from tracer/event.py. -->

oomtrace writes JSON lines: one record a line, UTF-8, at most 8192 bytes (`--max-record`). Every record has `schema`,
`type`, `time`, `seq` and `host`; `type` tells what else. Integers are in base units, named in the field (`_bytes`,
`_ns`, `_pages`). `null` means unknown. Text that a container chose is decoded as UTF-8; what is no UTF-8 is written as
`\\xNN`. What was too long is cut, and named in `truncated`. `oomtrace schema` prints the JSON Schema of all this.

Fields may be added in later versions; none changes its meaning without a new number in `schema`.
"""


def render() -> str:
    schema = json_schema()
    definitions = schema["$defs"]
    parts = [HEAD]
    for reference in schema["oneOf"]:
        definition = definitions[_name(reference)]
        kind = definition["properties"]["type"]["enum"][0]
        parts.append(f"## `{kind}`\n\n{definition['description']}\n")
        rows = ["| field | type | meaning |", "|---|---|---|"]
        rows += _rows(definition, definitions, "")
        parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


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


def render_outputs(page: str) -> str:
    return _with_tables(page, {"outputs": _uris(), "options": _options()})


def render_install(page: str) -> str:
    return _with_tables(page, {"extras": _extras()})


def _with_tables(page: str, tables: Mapping[str, Sequence[str]]) -> str:
    """The page with its tables made anew."""
    for name, rows in tables.items():
        made = "\n".join([f"<!-- {name}-table -->", *rows, f"<!-- /{name}-table -->"])
        (place,) = re.findall(rf"<!-- {name}-table -->\n.*<!-- /{name}-table -->", page, re.DOTALL)
        page = page.replace(place, made)
    return page


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
    OUTPUT: render,
    OUTPUTS: lambda: render_outputs(OUTPUTS.read_text()),
    INSTALL: lambda: render_install(INSTALL.read_text()),
}


def main() -> int:
    for page, make in PAGES.items():
        rendered = make()
        if "--check" not in sys.argv[1:]:
            page.write_text(rendered)
        elif page.read_text() != rendered:
            print(f"{page} is not up to date: run make docs", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
