# SPDX-License-Identifier: Apache-2.0
"""``oomtrace run``: reads the options, and becomes the daemon."""

import os
import sys
from typing import Any

import typer

import tracer
from tracer.commands.common import RUNTIME_ROOTS
from tracer.errors import TracerError
from tracer.filter import FIELDS
from tracer.line import MAX_BYTES, MIN_MAX_BYTES
from tracer.options import ENVIRONMENT, PINS_FOLDER, STATE_FOLDER, to_json
from tracer.settings import SETTINGS, make

ONLY = f"Kills that match, no others; by {', '.join(FIELDS)}."
DAEMON = "import sys; sys.path[:] = filter(None, sys.path); from tracer.daemon import main; sys.exit(main())"
"""What the daemon's Python runs.  Not ``-m``, which would look for modules in the working directory first."""


def run(
    context: typer.Context,
    config: str = typer.Option(None, metavar="FILE", help="Settings (TOML), by the names of these options."),
    engine: str = typer.Option(
        "auto",
        metavar="<auto|core|bcc>",
        help="core: programs compiled beforehand (needs BTF). bcc: compiled now. auto: core if it can.",
    ),
    output: list[str] = typer.Option(
        ["stdout"],
        "--output",
        "-o",
        metavar="URI",
        help="Where records go: stdout, file:PATH, ...; again for more.",
    ),
    max_record: int = typer.Option(
        MAX_BYTES, metavar="BYTES", min=MIN_MAX_BYTES, help="Longest line; a longer one is trimmed and says so."
    ),
    label: list[str] = typer.Option(
        [], metavar="NAME=VALUE", help="What records say of this host (cluster=eu-1); may be given again."
    ),
    only: list[str] = typer.Option([], metavar="FIELD=PATTERN", help=ONLY),
    unwanted: list[str] = typer.Option([], "--except", metavar="FIELD=PATTERN", help="Kills that match are not told."),
    runtime_root: list[str] = RUNTIME_ROOTS,
    metrics: list[str] = typer.Option(
        [],
        metavar="HOST:PORT",
        help="Counts for Prometheus (a port alone: of 127.0.0.1); or file:/FOLDER/NAME.prom for node_exporter.",
    ),
    network: bool = typer.Option(False, "--network", help="Show the addresses of containers; needs pyroute2."),
    sigkill: str = typer.Option(
        "containers",
        metavar="<containers|all|off>",
        help="Tell who sent SIGKILL to whom, if not the OOM killer: to processes in containers, to all, or not at all.",
    ),
    cmdline: bool = typer.Option(True, "--cmdline/--no-cmdline", help="Show command lines."),
    redact_defaults: bool = typer.Option(
        True, "--redact-defaults/--no-redact-defaults", help="Keep passwords, tokens and keys out of them."
    ),
    redact: list[str] = typer.Option(
        [], metavar="REGEX", help="Keep this out, too: the whole match, or its groups; may be given again."
    ),
    pins: str = typer.Option(
        PINS_FOLDER, metavar="FOLDER", help="In a bpffs: there the capture goes on when oomtrace ends."
    ),
    state: str = typer.Option(
        STATE_FOLDER, metavar="FOLDER", help="Where lines are kept that an output does not take, and what was told."
    ),
    keep: bool = typer.Option(
        True, "--keep/--no-keep", help="Without, it leaves nothing behind, and may run beside another oomtrace."
    ),
    backfill: bool = typer.Option(
        None,
        "--backfill/--no-backfill",
        help="Tell kills that nobody saw from the kernel log; off by default with --no-keep.",
    ),
    print_options: bool = typer.Option(False, hidden=True),
) -> None:
    """Trace: one JSON line for every OOM kill, until SIGTERM or SIGINT."""
    given = _given(context)
    arguments = tuple(sys.argv[2:])  # behind `oomtrace run`
    if config is None:
        options = make(given, arguments)
    else:
        from tracer.config import Config  # who has none starts sooner

        read = Config(config)
        options = read.options(given, arguments)._replace(settings=tuple(read.settings))
    if print_options:
        sys.stdout.buffer.write(to_json(options))
        return
    # A process of its own: what this one has imported would stay for as long as the daemon runs.
    environment = {**os.environ, ENVIRONMENT: to_json(options).decode()}
    package_parent = os.path.dirname(os.path.dirname(os.path.abspath(tracer.__file__)))
    # Where modules are is known already (-S): finding out anew takes memory that stays.
    environment["PYTHONPATH"] = os.pathsep.join([package_parent, *filter(None, sys.path)])
    try:
        os.execve(sys.executable, ["oomtrace", "-S", "-c", DAEMON], environment)
    except OSError as error:
        raise TracerError(f"cannot run {sys.executable} ({error.strerror})", "run it as root (sudo)") from error


def _given(context: typer.Context) -> dict[str, Any]:
    """The settings that stand on the command line: only these come before the file's."""
    given = {}
    for parameter, value in context.params.items():
        name = "except" if parameter == "unwanted" else parameter.replace("_", "-")
        source = context.get_parameter_source(parameter)
        if name in SETTINGS and source is not None and source.name == "COMMANDLINE":
            are_pairs = SETTINGS[name].kind in ("table", "tables")
            given[name] = [_pair(context, parameter, each) for each in value] if are_pairs else value
    return given


def _pair(context: typer.Context, parameter: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        option = next(each for each in context.command.params if each.name == parameter)
        hint = f"'{option.opts[0]}'"
        raise typer.BadParameter(f"{text!r} has no value; write {option.metavar}.", context, param_hint=hint)
    return name, value
