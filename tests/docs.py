# SPDX-License-Identifier: Apache-2.0
"""Writes what in the documentation comes from the code: ``make docs``; ``--check`` only compares.

docs/output.md: every field of every record, from the JSON Schema.
"""

import sys
from pathlib import Path
from typing import Any

from tracer.schema import json_schema

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "docs" / "output.md"

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


def main() -> int:
    rendered = render()
    if "--check" in sys.argv[1:]:
        if OUTPUT.read_text() != rendered:
            print(f"{OUTPUT} is not up to date: run make docs", file=sys.stderr)
            return 1
        return 0
    OUTPUT.write_text(rendered)
    return 0


if __name__ == "__main__":
    sys.exit(main())
