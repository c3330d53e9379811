# SPDX-License-Identifier: Apache-2.0
"""Writes the manual pages in docs/man, from the help of commands and settings and the JSON Schema.

oomtrace(1) and a page for each command are what --help shows (tracer/commands/manual.py); oomtrace-config(5) are the
settings and the outputs; oomtrace-record(5) are the records.  man(7) is what they are written in.
"""

import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import typer

from tests import output_options, record_fields
from tracer import __version__
from tracer.cli import app
from tracer.commands.manual import GENERAL, Entry, Manual, manual
from tracer.config.options import CONFIG_FILE, PINS_DIR, STATE_DIR
from tracer.config.settings import SETTINGS, SettingKind
from tracer.delivery.sinks.open import uri_forms

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "man"
DATE = "2026-11-30"
"""Date of the last relevant change of their contents."""
WIDTH = 80
ESCAPES = str.maketrans({"\\": "\\e", "-": "\\-", "'": "\\(aq", "^": "\\(ha", "~": "\\(ti", "`": "\\(ga"})
"""Characters that roff prints as other characters."""
FILES = (
    Entry(CONFIG_FILE, "Configuration of the service, see `oomtrace-config`(5)."),
    Entry("/etc/default/oomtrace", "Command-line options of the service, in OOMTRACE_OPTIONS."),
    Entry(STATE_DIR, "Undelivered records and the ledger; `--state`."),
    Entry(PINS_DIR, "Pinned BPF programs and maps; `--pins`."),
    Entry("/var/log/oomtrace", "The only directory for log files that the service can write to."),
)
TYPES: Mapping[SettingKind, str] = {
    "flag": "true or false",
    "number": "integer",
    "text": "string",
    "list": "array of strings",
    "table": "table of strings",
    "tables": "table of strings, or of arrays of strings",
}


def contexts() -> Iterator[Any]:
    """Help of every command, in the order of --help."""
    command: Any = typer.main.get_command(app)
    below = [command.make_context("oomtrace", [], resilient_parsing=True)]
    while below:
        context = below.pop(0)
        yield context
        for name, each in getattr(context.command, "commands", {}).items():
            below.append(each.make_context(name, [], parent=context, resilient_parsing=True))


MANUALS: Mapping[str, Manual] = {context.command_path.replace(" ", "-"): manual(context) for context in contexts()}
OTHERS = ("oomtrace-config(5)", "oomtrace-record(5)")


def command(name: str) -> str:
    """The page of a command."""
    page = MANUALS[name]
    lines = [
        *_head(name, 1, page.summary),
        ".SH SYNOPSIS",
        f"{_bold(page.command)} {_terms(page.usage)}",
        ".SH DESCRIPTION",
        *_paragraphs((page.summary, *page.details)),
    ]
    for section in page.sections:
        lines += [f".SH {section.heading.upper()}", *_entries(section.entries)]
    if name in ("oomtrace", "oomtrace-run"):
        lines += [".SH FILES", *_entries(FILES)]
    lines += [".SH EXIT STATUS", *_entries(page.exit_codes), ".SH EXAMPLES"]
    for example in page.examples:
        lines += [".TP", _bold(f"$ {example.term}"), *_wrapped(example.text)]
    return _joined([*lines, *_see_also(f"{name}(1)")])


def config() -> str:
    """oomtrace-config(5)."""
    page = MANUALS["oomtrace-run"]
    lines = [
        *_head("oomtrace-config", 5, "configuration file of oomtrace"),
        ".SH SYNOPSIS",
        f"{_bold(CONFIG_FILE)}",
        ".SH DESCRIPTION",
        *_paragraphs(
            (
                "A TOML file. Each long option of `oomtrace run` is a key of the same name. An option on the command "
                "line overrides the key. `oomtrace config check` checks a file, `oomtrace config show` prints the "
                "resulting settings.",
                "SIGHUP (`systemctl reload oomtrace`) reads the file again: outputs, labels, filters, redaction and "
                "max-record change at once, without losing a record; other settings change at the next start. A file "
                "with an error changes nothing.",
            )
        ),
    ]
    for section in page.sections:
        keys = [(entry, name) for entry in section.entries if (name := _setting(entry)) in SETTINGS]
        if keys:
            lines.append(f".SH {'OTHER SETTINGS' if section.heading == GENERAL else section.heading.upper()}")
        for entry, name in keys:
            lines += [".TP", f"{_bold(name)} ({TYPES[SETTINGS[name].kind]})", *_wrapped(_meaning(entry, name))]
    lines += [
        ".SH OUTPUTS",
        *_paragraphs(
            (
                "A value of `output` is a URI, with options as its query: `file:/var/log/oom.json?keep=7`. In the file "
                "an output may also be a table `[[output]]` with the key `uri`, and the options as further keys. A "
                "secret is given as NAME-file (absolute path) or NAME-env (environment variable), never as its value.",
            )
        ),
        *_entries([Entry(form.uri, _plain(form.meaning)) for form in uri_forms().values()], is_bold=True),
    ]
    for group in output_options.groups():
        lines.append(f".SS Options of {_escaped(group.of.replace('`', ''))}")
        for row in group.rows:
            values = f"{row.values}{', default ' * bool(row.default)}{row.default}"
            lines += [".TP", f"{_marked(row.spelled)} ({_marked(values)})", *_wrapped(_plain(row.meaning))]
    lines += [".SH FILES", *_entries(FILES[:2]), ".SH EXAMPLES", ".nf", *map(_escaped, _example()), ".fi"]
    return _joined([*lines, *_see_also("oomtrace-config(5)")])


def record() -> str:
    """oomtrace-record(5)."""
    lines = [
        *_head("oomtrace-record", 5, "records of OOM kills"),
        ".SH DESCRIPTION",
        *_paragraphs(
            (
                "oomtrace writes JSON lines: one record per line, UTF-8, at most 8192 bytes by default. Every record "
                "has `schema`, `type`, `time`, `seq` and `host`.",
                "Integers are in base units, which the name of the field tells (`_bytes`, `_ns`, `_pages`). null means "
                "unknown. Bytes that are not UTF-8 are written as \\xNN. What was too long is cut, and named in "
                "`truncated`. Later versions may add fields; a field changes its meaning only with a new number in "
                "`schema`. `oomtrace schema` prints the JSON Schema.",
            )
        ),
    ]
    for each in record_fields.types():
        lines += [f".SH {each.name.upper()}", *_wrapped(each.meaning)]
        for field in each.fields:
            lines += [".TP", f"{_bold(field.name)} ({_marked(field.type)})", *_wrapped(field.meaning)]
    return _joined([*lines, *_see_also("oomtrace-record(5)")])


def _head(name: str, section: int, summary: str) -> list[str]:
    summary = summary[:1].lower() + summary[1:].rstrip(".") if not summary.startswith("OOM") else summary
    return [
        '.\\" SPDX-License-Identifier: Apache-2.0',
        '.\\" Written by `make docs` (tests/manpages.py).',
        f'.TH {name.upper()} {section} {DATE} "oomtrace {__version__}" "oomtrace manual"',
        ".SH NAME",
        *_broken(f"{_escaped(name)} \\- {_escaped(summary)}"),
    ]


def _see_also(page: str) -> list[str]:
    """SEE ALSO: the command, the pages of files, and in the command's page its subcommands."""
    every = [f"{name}(1)" for name in MANUALS] if page == "oomtrace(1)" else ["oomtrace(1)", "oomtrace-run(1)"]
    names = [each for each in dict.fromkeys([*every, *OTHERS]) if each != page]
    return [".SH SEE ALSO", *_broken(",\n".join(f"\\fB{_escaped(each[:-3])}\\fR{each[-3:]}" for each in names))]


def _setting(entry: Entry) -> str:
    return entry.term.partition(" / ")[0].partition("--")[2].partition(" ")[0]


def _meaning(entry: Entry, name: str) -> str:
    """The option's help, with a flag's default as in the file."""
    if SETTINGS[name].kind != "flag":
        return entry.text
    text, _, default = entry.text.partition(" [default: ")
    is_on = default.startswith(f"--{name}")
    unless = " (false with keep = false)" if "--no-keep" in default else ""
    return f"{text} [default: {'true' if is_on else 'false'}{unless}]"


def _example() -> list[str]:
    (block,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "config.md").read_text(), re.DOTALL)[:1]
    return [*block.rstrip().splitlines()]


def _plain(markdown: str) -> str:
    """Links as their text."""
    return re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", markdown)


def _entries(entries: Iterable[Entry], is_bold: bool = False) -> list[str]:
    lines = []
    for entry in entries:
        lines += [".TP", _bold(entry.term) if is_bold else _terms(entry.term), *_wrapped(entry.text)]
    return lines


def _terms(text: str) -> str:
    """Literal text in bold, placeholders in italics."""
    words = []
    for word in re.split(r"( \| |, | / |\s+)", text):
        is_literal = re.match(r"-|[a-z0-9/]", word) is not None
        words.append(word if not word.strip(" ,/|") else _bold(word) if is_literal else f"\\fI{_escaped(word)}\\fR")
    return "".join(words)


def _bold(text: str) -> str:
    return f"\\fB{_escaped(text)}\\fR"


def _marked(text: str) -> str:
    """Text in backquotes in bold."""
    parts = text.split("`")
    return "".join(_bold(part) if number % 2 else _escaped(part) for number, part in enumerate(parts))


def _paragraphs(paragraphs: Sequence[str]) -> list[str]:
    return [line for paragraph in paragraphs for line in (".PP", *_wrapped(paragraph))][1:]


def _wrapped(text: str) -> list[str]:
    return _broken(_marked(text))


def _broken(roff: str) -> list[str]:
    """Lines of roff source, escaped so that none starts as a request."""
    lines = []
    for part in roff.split("\n"):
        for line in textwrap.wrap(part, WIDTH - 2, break_long_words=False, break_on_hyphens=False):
            lines.append(f"\\&{line}" if line[0] in ".'" else line)
    return lines


def _escaped(text: str) -> str:
    return text.translate(ESCAPES)


def _joined(lines: Iterable[str]) -> str:
    return "\n".join(lines) + "\n"


PAGES: Mapping[Path, Callable[[], str]] = {
    **{FOLDER / "man1" / f"{name}.1": partial(command, name) for name in MANUALS},
    FOLDER / "man5" / "oomtrace-config.5": config,
    FOLDER / "man5" / "oomtrace-record.5": record,
}
