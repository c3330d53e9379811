# SPDX-License-Identifier: Apache-2.0
"""The command line: all commands, and errors as one line on stderr and an exit code."""

import io
import os
import sys

import typer

from tracer import __version__
from tracer.base.errors import EXIT_FAILED, EXIT_USAGE, TracerError
from tracer.commands.config import config
from tracer.commands.detach import detach
from tracer.commands.doctor import doctor
from tracer.commands.manual import EXIT_CODES, Command, Group, documented
from tracer.commands.parse import parse
from tracer.commands.report import report
from tracer.commands.resolve import resolve
from tracer.commands.run import run
from tracer.commands.schema import schema
from tracer.commands.top import top
from tracer.commands.watch import watch
from tracer.commands.why import why

app = typer.Typer(
    name="oomtrace",
    cls=Group,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

HEADINGS = {
    "Trace": (run, watch, detach),
    "Explain": (why, top, parse, report, resolve),
    "Check": (doctor, schema),
}
for heading, commands in HEADINGS.items():
    for command in commands:
        app.command(cls=Command, rich_help_panel=heading)(command)
app.add_typer(config, rich_help_panel="Check")

COMPLETE = "_OOMTRACE_COMPLETE"
"""Environment variable with which a shell asks for completions: bash_source, or typer's own complete_bash."""
_MAY_BE_SILENT = ("run", "detach", "report", "watch")
"""Commands that work without standard output, or check for it themselves."""


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"oomtrace {__version__}")
        raise typer.Exit


@app.callback()
@documented(
    {
        "sudo oomtrace run": "Trace this host.",
        "sudo oomtrace why cart": "Explain what ended container cart.",
        "dmesg | oomtrace parse --sentence": "Kills of this boot, one sentence each.",
    },
    EXIT_CODES,
)
def common(
    context: typer.Context,
    _version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Trace and explain kills by the kernel's OOM killer.

    Who was killed, in which container, whose limit was hit, and why this process. `oomtrace COMMAND --help` describes a
    command.
    """
    if sys.stdout is None and context.invoked_subcommand not in _MAY_BE_SILENT:
        raise TracerError("there is no standard output", "run it with one")


def main() -> None:
    """The command ``oomtrace``: every foreseeable error ends in one line on stderr and an exit code."""
    if sys.stderr is None:  # print() would take standard output for it
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names may hold what the locale's encoding has not
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(standalone_mode=False, complete_var=COMPLETE, prog_name=_program())
    except TracerError as error:
        print(f"oomtrace: {error}", file=sys.stderr)
        code = error.exit_code
    except OSError as error:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), 1
        )  # else the interpreter flushes stdout again at exit, and fails again
        if not isinstance(error, BrokenPipeError):  # a closed pipe needs no message
            print(f"oomtrace: cannot write the output ({error.strerror})", file=sys.stderr)
        code = EXIT_FAILED
    except Exception as error:
        say = getattr(error, "format_message", None)  # a usage error of click, from whichever module typer imports it
        if say is None:
            raise
        help_asked = "\n" in say()  # no_args_is_help: the text is the help
        print(say() if help_asked else f"oomtrace: {_with_hint(say(), error)}", file=sys.stderr)
        code = EXIT_USAGE
    sys.exit(code)


def _program() -> str | None:
    """Name of the command in completion scripts; None: the name it was started by."""
    if COMPLETE not in os.environ:
        return None
    from typer.completion import get_completion_inspect_parameters

    # Registers the shells.  typer does so only for --install-completion, which edits the user's files.
    get_completion_inspect_parameters()
    shell, _, instruction = os.environ[COMPLETE].partition("_")
    if instruction in ("source", "complete"):  # click's order; typer expects the reverse
        os.environ[COMPLETE] = f"{instruction}_{shell}"
    return "oomtrace"


def _with_hint(said: str, error: Exception) -> str:
    """Add to an error message which --help to read."""
    verbs: list[str] = []
    context = getattr(error, "ctx", None)
    while context is not None and context.parent is not None:
        verbs.insert(0, context.info_name)
        context = context.parent
    stop = "" if said.endswith((".", "?", "!")) else "."
    return f"{said}{stop} Try: {' '.join(['oomtrace', *verbs, '--help'])}"
