# SPDX-License-Identifier: Apache-2.0
"""The manual of a command: ``--help`` prints it as plain text, docs/man holds it as a manual page.

typer groups options in panels only with rich, and its wording of usage and defaults differs between versions.
Therefore this module formats the parameters itself.
"""

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from typer.core import TyperCommand, TyperGroup

from tracer.base.errors import EXIT_FAILED, EXIT_UNSUPPORTED, EXIT_USAGE

TERM_COLUMNS = 22
"""A longer term gets its own line."""
GENERAL = "Options"
"""Heading of options without a panel; comes last."""
EXIT_CODES: Mapping[int, str] = {
    0: "Success.",
    EXIT_FAILED: "Failure; one line on standard error says why.",
    EXIT_USAGE: "Invalid option, argument or configuration.",
    EXIT_UNSUPPORTED: "This host lacks something that the command needs.",
}
"""Default meaning of each exit code."""

_EXTRA = "_manual"
Command_ = TypeVar("Command_", bound=Callable[..., None])


class Entry(NamedTuple):
    """An option, an argument, a command, an example or an exit code."""

    term: str
    text: str


class Section(NamedTuple):
    heading: str
    entries: tuple[Entry, ...]


class Manual(NamedTuple):
    command: str
    """``oomtrace config check``."""
    usage: str
    """Arguments, without the command itself."""
    summary: str
    details: tuple[str, ...]
    """Paragraphs."""
    sections: tuple[Section, ...]
    """Arguments and options, or commands."""
    examples: tuple[Entry, ...]
    exit_codes: tuple[Entry, ...]


class _Extra(NamedTuple):
    """Parts of a manual that typer cannot hold."""

    examples: Mapping[str, str]
    exit_codes: Mapping[int, str]


def documented(examples: Mapping[str, str], exit_codes: Mapping[int, str]) -> Callable[[Command_], Command_]:
    """Decorator: attach examples (command line -> what it does) and exit codes (code -> meaning) to a command."""

    def add(command: Command_) -> Command_:
        command.__dict__[_EXTRA] = _Extra(examples, exit_codes)  # typer copies __dict__ to its own callback
        return command

    return add


def codes(*those: int) -> dict[int, str]:
    """Meanings from EXIT_CODES of the given codes, and of 0 and EXIT_USAGE, which every command has."""
    return {code: EXIT_CODES[code] for code in sorted({0, EXIT_USAGE, *those})}


def choices(values: Sequence[str]) -> Callable[[str], list[str]]:
    """A completion function for an option with these values."""

    def matching(incomplete: str) -> list[str]:
        return [value for value in values if value.startswith(incomplete)]

    return matching


class Command(TyperCommand):
    """A command whose help is its manual."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(plain(manual(ctx), formatter.width))

    def get_short_help_str(self, limit: int = 0) -> str:
        """Summary shown by shell completion; click would cut it at 45 columns."""
        return _summary(self)


class Group(TyperGroup):
    """A group of commands whose help is its manual."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(plain(manual(ctx), formatter.width))

    def get_short_help_str(self, limit: int = 0) -> str:
        return _summary(self)


def _summary(command: Any) -> str:
    return _paragraphs(command)[0]


def _paragraphs(command: Any) -> list[str]:
    return [" ".join(each.split()) for each in (command.help or "").split("\n\n")]


def manual(context: Any) -> Manual:
    """The manual of the command in this click context."""
    command = context.command
    summary, *details = _paragraphs(command)
    extra: _Extra = getattr(command.callback, "__dict__", {}).get(_EXTRA, _Extra({}, {}))
    arguments = [each for each in command.get_params(context) if each.param_type_name == "argument"]
    usage = ["[OPTIONS]", *(_metavar(each) for each in arguments)]
    if isinstance(command, TyperGroup):
        usage.append("COMMAND [ARGS]...")
    return Manual(
        context.command_path,
        " ".join(usage),
        summary,
        tuple(details),
        tuple(_sections(context)),
        tuple(Entry(example, text) for example, text in extra.examples.items()),
        tuple(Entry(str(code), text) for code, text in extra.exit_codes.items()),
    )


def _sections(context: Any) -> Iterator[Section]:
    command = context.command
    headed: dict[str, list[Entry]] = {}
    for name, each in getattr(command, "commands", {}).items():
        if not each.hidden:
            headed.setdefault(each.rich_help_panel or "Commands", []).append(Entry(name, _summary(each)))
    general: list[Entry] = []
    for parameter in command.get_params(context):
        if parameter.param_type_name == "argument":
            headed.setdefault("Arguments", []).append(Entry(_metavar(parameter).strip("[]."), _text(parameter)))
        elif not parameter.hidden:
            panel = getattr(parameter, "rich_help_panel", None)
            entries = headed.setdefault(panel, []) if panel else general
            entries.append(Entry(_term(parameter), _text(parameter)))
    headed[GENERAL] = general
    for heading, entries in headed.items():
        yield Section(heading, tuple(entries))


def _metavar(argument: Any) -> str:
    """``FILE``, ``[FILE]`` or ``[FILE]...``."""
    name = argument.metavar or argument.name.upper()
    return f"{name if argument.required else f'[{name}]'}{'...' if argument.nargs == -1 else ''}"


def _term(option: Any) -> str:
    """Spellings of an option: short ones and the first long one, as other long ones are former names."""
    long = [each for each in option.opts if each.startswith("--")]
    spelled = ", ".join([*sorted(set(option.opts) - set(long)), *long[:1]])
    if option.secondary_opts:
        return f"{spelled} / {option.secondary_opts[0]}"
    return spelled if option.is_flag else f"{spelled} {option.metavar}"


def _text(parameter: Any) -> str:
    default = parameter.default
    if isinstance(parameter.show_default, str):
        default = parameter.show_default
    elif getattr(parameter, "is_flag", False):
        default = (parameter.opts if default else parameter.secondary_opts)[0] if parameter.secondary_opts else None
    elif isinstance(default, list | tuple):
        default = ", ".join(default)
    return f"{parameter.help} [default: {default}]" if default not in (None, "") else str(parameter.help)


def plain(manual: Manual, width: int) -> str:
    """Plain text of a manual, wrapped at ``width`` columns."""
    lines = textwrap.wrap(f"Usage: {manual.command} {manual.usage}", width, subsequent_indent=" " * 7)
    for paragraph in (manual.summary, *manual.details):
        lines += ["", *_wrapped(paragraph, 2, width)]
    terms = [len(entry.term) for section in manual.sections for entry in section.entries]
    columns = max((length for length in terms if length <= TERM_COLUMNS), default=0)
    for section in manual.sections:
        lines += _section(section, columns, width)
    lines += _section(Section("Examples", manual.examples), 0, width)
    lines += _section(Section("Exit codes", manual.exit_codes), 3, width)
    return "\n".join(lines) + "\n"


def _section(section: Section, columns: int, width: int) -> list[str]:
    lines = [line for entry in section.entries for line in _entry(entry, columns, width)]
    return ["", f"{section.heading}:", *lines] if lines else []


def _entry(entry: Entry, columns: int, width: int) -> list[str]:
    """A term of up to ``columns`` columns beside its text; a longer term above its text."""
    if len(entry.term) > columns:
        return [f"  {entry.term}", *_wrapped(entry.text, columns + 4 if columns else 6, width)]
    first, *others = _wrapped(entry.text, columns + 4, width)
    return [f"  {entry.term:{columns}}  {first.lstrip()}", *others]


def _wrapped(text: str, indent: int, width: int) -> list[str]:
    space = " " * indent
    lines = textwrap.wrap(
        text.replace("[default: ", "[default:\xa0"),
        width,
        initial_indent=space,
        subsequent_indent=space,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace("\xa0", " ") for line in lines]
