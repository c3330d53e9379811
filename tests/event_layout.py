# SPDX-License-Identifier: Apache-2.0
"""In: bpf/event.h.  Out: what Python knows of it, between two marks in tracer/capture/wire.py and
tracer/capture/brief.py.

``make layout`` writes it; ``--check`` only compares.  A struct becomes a format of struct.Struct (all that has a fixed
place and is no array of structs) and a NamedTuple (what the decoders make of it): the header, the fields, the arrays of
structs, and the strings whose lengths the fields tell.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
HEADER = ROOT / "bpf" / "event.h"
CODES = {"u8": "B", "u16": "H", "s16": "h", "u32": "I", "s32": "i", "u64": "Q", "s64": "q"}
PADDING = {"B": "x", "H": "2x", "I": "4x"}
NAMED = {
    "event": ("HEADER", "Header"),
    "ancestor": ("ANCESTOR", "AncestorEntry"),
    "candidate": ("CANDIDATE", "CandidateEntry"),
    "memcg_counters": ("MEMCG_COUNTERS", "MemcgCounters"),
    "memcg_stat": ("MEMCG_STAT", "MemcgStat"),
    "brief_event": ("BRIEF_FIXED", "BriefFields"),
}
"""Structs with other names in Python: format and class."""
BRIEF = ("brief_event", "log_brief_event")
"""Structs whose Python part is in brief.py."""
BEGIN, END = "# The mirror of bpf/event.h, written by `make layout`.", "# The end of what `make layout` writes."
ADDED = {"VictimEvent": "brief: BriefIncident | None"}
"""Fields added by user space."""


class Field(NamedTuple):
    kind: str
    name: str
    length: str | None
    """Length of an array, as spelled in C."""


def structs(text: str) -> dict[str, list[Field]]:
    """Struct -> fields in order."""
    found = re.findall(r"^struct (\w+) \{\n(.*?)^\};", text, re.MULTILINE | re.DOTALL)
    line = re.compile(r"^\t(?:struct |__)?(\w+) (\w+)(?:\[(.*)\])?;", re.MULTILINE)
    return {name: [Field(*each) for each in line.findall(body)] for name, body in found}


def constants(text: str) -> dict[str, int]:
    """Numeric constants: #define NAME NUMBER."""
    return {name: int(value, 0) for name, value in re.findall(r"^#define (\w+) (\w+?)U?\b", text, re.MULTILINE)}


def enums(text: str) -> dict[str, dict[str, str]]:
    """Enum -> names and values as spelled in C; empty for an enum without values."""
    found = re.findall(r"^enum (\w+) \{\n(.*?)^\};", text, re.MULTILINE | re.DOTALL)
    return {name: dict(re.findall(r"^\t(\w+) = (.*?),", body, re.MULTILINE)) for name, body in found}


def fixed(fields: list[Field]) -> list[Field]:
    """Fields in the struct format."""
    return [field for field in fields if field.kind in CODES or (field.kind == "char" and field.length == "COMM_LEN")]


def format_of(fields: list[Field], numbers: dict[str, int]) -> str:
    codes = []
    for field in fixed(fields):
        code = f"{numbers[field.length]}s" if field.length else CODES[field.kind]
        codes.append(PADDING[code] if field.name == "pad" else code)
    runs: list[tuple[str, int]] = []
    for code in codes:
        if runs and runs[-1][0] == code and len(code) == 1:
            runs[-1] = code, runs[-1][1] + 1
        else:
            runs.append((code, 1))
    return "=" + "".join(code if count == 1 else f"{count}{code}" for code, count in runs)


def members(fields: list[Field]) -> Iterator[str]:
    """Field declarations of the NamedTuple."""
    if not fields:
        return
    last = fields[-1]
    has_strings = last.name == "strings"
    # The array at the end has the length of the data, or that in its length field.
    counts_last = (
        {f"{last.name}_len", "len"} if last.length and not has_strings and last.length != "COMM_LEN" else set()
    )
    arrays = {f"{field.name}_len" for field in fields if field.length}
    lengths = [field.name for field in fixed(fields) if field.name.endswith("_len") and field.name not in arrays]
    for field in fixed(fields):
        if field.name != "pad" and field.name not in counts_last and not (has_strings and field.name in lengths):
            yield f"{field.name}: {'bytes' if field.length else 'int'}"
    for field in fields:
        if field.kind in NAMED and field.kind != "event":
            entry = NAMED[field.kind][1]
            yield f"{field.name}: {f'tuple[{entry}, ...]' if field.length else entry}"
    if has_strings:
        yield from (f"{name.removesuffix('_len')}: bytes" for name in lengths)
    elif counts_last and last.kind == "char":
        yield f"{last.name}: bytes"


def named(struct: str) -> tuple[str, str]:
    """Names of its format and its NamedTuple."""
    if struct in NAMED:
        return NAMED[struct]
    return struct.upper().removesuffix("EVENT") + "FIXED", "".join(map(str.title, struct.split("_")))


def block(names: list[str], text: str) -> str:
    """The constants, formats and classes of these structs."""
    found, numbers = structs(text), constants(text)
    lines: list[str] = []
    kinds = enums(text)["event_type"]
    is_brief = names[0] in BRIEF
    if not is_brief:
        lines += [
            f"{name} = {numbers[name]}"
            for name in ("EVENT_LAYOUT", "CANDIDATES_MAX", "MEMCG_CHAIN_MAX", "ANCESTORS_MAX")
        ]
        lines.append("")
    lines.append("# enum event_type")
    for name, value in kinds.items():
        if (name.removeprefix("EVENT_").lower() + "_event" in BRIEF) == is_brief:
            lines.append(f"{name.removeprefix('EVENT_')} = {value}")
    for enum, values in enums(text).items():
        if enum.endswith("_flags") and (enum == "brief_flags") == is_brief:
            lines += ["", f"# enum {enum}", *(f"{name} = {value}" for name, value in values.items())]
    if is_brief:
        lines += [
            "",
            *(
                f"{name.removeprefix('BRIEF_')} = 0x{numbers[name]:X}"
                for name in ("BRIEF_UNKNOWN_PAGES", "BRIEF_NO_LEVEL")
            ),
        ]
    lines.append("")
    for name in names:
        lines.append(f'{named(name)[0]} = struct.Struct("{format_of(found[name], numbers)}")')
    for name in names:
        label, declared = named(name)[1], list(members(found[name]))
        if name == "log_brief_event":
            continue  # a number; the decoder has the line for it
        without = ", without its header" if name in BRIEF else ""
        if label.endswith("Event"):
            declared = ["header: Header", *declared, *ADDED.get(label, "").splitlines()]
        lines += [
            "",
            "",
            f"class {label}(NamedTuple):",
            f'    """struct {name}{without}."""',
            "",
            *(f"    {each}" for each in declared),
        ]
    return "\n".join(lines)


def render(file: str, source: str, text: str) -> str:
    """The module with its generated part replaced."""
    is_brief = file == "brief.py"
    names = [name for name in structs(text) if (name in BRIEF) == is_brief]
    made = f"{BEGIN}\n{block(names, text)}\n\n\n{END}\n"
    before, _, rest = source.partition(f"{BEGIN}\n")
    return before + made + rest.partition(f"{END}\n")[2]


def main() -> int:
    text = HEADER.read_text()
    for file in ("wire.py", "brief.py"):
        path = ROOT / "tracer" / "capture" / file
        source = path.read_text()
        made = render(file, source, text)
        if "--check" not in sys.argv[1:]:
            path.write_text(made)
        elif source != made:
            print(f"{path} is not up to date: run make layout", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
