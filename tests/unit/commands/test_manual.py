# SPDX-License-Identifier: Apache-2.0
"""commands/manual.py: what --help shows, of every command."""

import os
import re
import shlex
from collections.abc import Iterator
from typing import Any, get_args

import pytest
import typer

from tracer.cli import app
from tracer.commands.manual import Manual, choices, manual, plain
from tracer.commands.top import SORT_KEYS
from tracer.config.options import SIGKILL_SCOPES, EngineOption
from tracer.top.snapshot import Sort

from .test_cli import COMMANDS, oomtrace


def contexts() -> Iterator[Any]:
    """Of every command, those of `oomtrace config` too."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("oomtrace", ["--"], resilient_parsing=True)
    below = [context]
    while below:
        context = below.pop(0)
        yield context
        for name, each in getattr(context.command, "commands", {}).items():
            below.append(each.make_context(name, [], parent=context, resilient_parsing=True))


CONTEXTS = {context.command_path: context for context in contexts()}
MANUALS = {path: manual(context) for path, context in CONTEXTS.items()}
every = pytest.mark.parametrize("page", MANUALS.values(), ids=MANUALS)


def test_commands() -> None:
    """There is a manual for each command."""
    assert set(MANUALS) == {
        "oomtrace",
        *(f"oomtrace {name}" for name in (*COMMANDS, "config", "config check", "config show")),
    }


@every
def test_complete(page: Manual) -> None:
    """A summary of one sentence, two examples and the exit codes; each option in one place, and explained."""
    assert re.fullmatch(r"[A-Z][^.]*\.", page.summary), page.summary
    assert len(page.examples) >= 2
    assert {"0", "2"} <= {code.term for code in page.exit_codes}
    entries = [entry for section in page.sections for entry in section.entries]
    assert len({entry.term for entry in entries}) == len(entries)
    shown = {word for entry in entries for word in re.findall(r"(?<!\S)--?[a-z-]+", entry.term)}
    options = [each for each in CONTEXTS[page.command].command.get_params(CONTEXTS[page.command]) if not each.hidden]
    for option in options:
        if option.param_type_name == "option":
            assert shown & set(option.opts), option.opts
    for entry in (*entries, *page.examples, *page.exit_codes):
        assert entry.text.endswith((".", "]")), entry


@every
def test_examples(page: Manual) -> None:
    """What the examples give oomtrace exists, and is valid."""
    for example in page.examples:
        ran = 0
        for part in re.split(r" (?:\||&&) ", example.term):
            words = shlex.split(re.sub(r" >\S+", "", part))
            words = words[words[0] == "sudo" :]
            if words[0] != "oomtrace":
                continue
            ran += 1
            verbs = [word for word in words[1:3] if word in ("config", "check", "show", *COMMANDS)]
            context = CONTEXTS[" ".join(["oomtrace", *verbs])]
            context.command.make_context(verbs[-1], words[1 + len(verbs) :], parent=context.parent)
            assert page.command == "oomtrace" or page.command.split()[1] == verbs[0]
        assert ran


@every
@pytest.mark.parametrize("width", [58, 78])
def test_width(page: Manual, width: int) -> None:
    """No line is longer than the terminal; only a command line or an option may be."""
    for line in plain(page, width).splitlines():
        assert len(line) <= width or line.strip() in {
            entry.term for section in page.sections for entry in (*section.entries, *page.examples)
        }


def test_help_is_the_manual() -> None:
    """--help prints it, grouped, with defaults; in the list of commands no summary is cut."""
    environment = {**os.environ, "COLUMNS": "80"}
    shown = oomtrace("--help", env=environment).stdout
    for page in MANUALS.values():
        if page.command.count(" ") == 1:
            assert f"{page.command.split()[1]:10}  {page.summary}" in shown
    shown = oomtrace("run", "--help", env=environment).stdout
    for heading in ("Output", "Filters", "Record content", "Capture and state", "Options", "Examples", "Exit codes"):
        assert f"\n\n{heading}:\n" in shown
    assert "[default: 8192]" in shown
    assert "[default: --cmdline]" in shown
    assert shown == plain(MANUALS["oomtrace run"], 78).replace("oomtrace run [", "python -m tracer run [", 1)


def test_former_names() -> None:
    """A former name of an option is valid, and not shown."""
    (lines,) = (each for each in CONTEXTS["oomtrace parse"].command.params if "--last" in each.opts)
    assert lines.opts == ["-n", "--lines", "--last"]
    assert "--last" not in plain(MANUALS["oomtrace parse"], 78)
    log = "tests/data/kernel_logs/7.2-group.txt"
    assert oomtrace("parse", "--last", "1", log).stdout == oomtrace("parse", "-n", "1", log).stdout
    assert oomtrace("parse", "--last", "1", log).stdout == oomtrace("parse", "--lines", "1", "--json", log).stdout


def test_choices() -> None:
    """What is completed is what is valid."""
    completed = {
        option.opts[0]: [item.value for item in option.shell_complete(context, "")]
        for context in CONTEXTS.values()
        for option in context.command.params
        if "|" in (option.metavar or "") and option.param_type_name == "option"
    }
    assert completed == {
        "--sigkill": sorted(SIGKILL_SCOPES, key=("containers", "all", "off").index),
        "--engine": list(get_args(EngineOption)),
        "--sort": list(SORT_KEYS),
        "--format": ["html", "md"],
    }
    assert set(SORT_KEYS) == set(get_args(Sort))
    assert choices(SORT_KEYS)("m") == ["mem"]
