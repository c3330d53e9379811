# SPDX-License-Identifier: Apache-2.0
"""``oomtrace run``: reads the options, then replaces its process with the daemon."""

import os
import sys
from typing import Any

import typer

import tracer
from tracer.base.errors import EXIT_FAILED, EXIT_UNSUPPORTED, EXIT_USAGE, TracerError
from tracer.commands.common import RUNTIME_ROOTS
from tracer.commands.manual import EXIT_CODES, choices, documented
from tracer.config.options import ENVIRONMENT, PINS_DIR, STATE_DIR, to_json
from tracer.config.settings import SETTINGS, make_options
from tracer.encoding.encoder import MAX_BYTES, MIN_MAX_BYTES
from tracer.records.filter import FIELDS

DAEMON = "import sys; sys.path[:] = filter(None, sys.path); from tracer.daemon.daemon import main; sys.exit(main())"
"""Program of the daemon's interpreter.  Not ``-m``, which puts the working directory first in sys.path."""


ONLY = f"Report matching kills only. FIELD is {', '.join(FIELDS)}; '*' and '?' are wildcards. Repeatable."
OUTPUT = "Output"
FILTERS = "Filters"
FIELDS_ = "Record content"
CAPTURE = "Capture and state"


@documented(
    {
        "sudo oomtrace run": "Print a JSON line per OOM kill.",
        "sudo oomtrace run -o file:/var/log/oom.json -o journald --metrics 9814": (
            "Write a file and the journal, and serve metrics on 127.0.0.1:9814."
        ),
        "sudo oomtrace run --only namespace=shop --label cluster=eu-1": "Kills in one namespace, and a label.",
    },
    {
        0: "Stopped by SIGTERM or SIGINT.",
        EXIT_FAILED: "An output could not be opened, or tracing failed; one line on standard error says why.",
        EXIT_USAGE: EXIT_CODES[EXIT_USAGE],
        EXIT_UNSUPPORTED: "This host cannot trace: `oomtrace doctor` says what is missing.",
    },
)
def run(
    context: typer.Context,
    config: str = typer.Option(
        None, "-c", "--config", metavar="FILE", help="Configuration file (TOML); its keys are these options."
    ),
    output: list[str] = typer.Option(
        ["stdout"],
        "-o",
        "--output",
        metavar="URI",
        help="Destination of records: stdout, file:PATH, journald, syslog:, kafka:, https:, ... Repeatable.",
        rich_help_panel=OUTPUT,
    ),
    max_record: int = typer.Option(
        MAX_BYTES,
        metavar="BYTES",
        min=MIN_MAX_BYTES,
        help=f"Longest line, {MIN_MAX_BYTES} bytes to 1 GiB; a longer record is trimmed, and lists what was cut.",
        rich_help_panel=OUTPUT,
    ),
    label: list[str] = typer.Option(
        [],
        metavar="NAME=VALUE",
        help="Label of this host in every record (cluster=eu-1). Repeatable.",
        rich_help_panel=OUTPUT,
    ),
    metrics: list[str] = typer.Option(
        [],
        metavar="[HOST:]PORT",
        help=(
            "Serve Prometheus metrics, on 127.0.0.1 unless HOST is given; or file:/DIR/NAME.prom, a textfile for "
            "node_exporter. Repeatable."
        ),
        rich_help_panel=OUTPUT,
    ),
    only: list[str] = typer.Option(
        [],
        metavar="FIELD=PATTERN",
        help=ONLY,
        rich_help_panel=FILTERS,
    ),
    unwanted: list[str] = typer.Option(
        [],
        "--except",
        metavar="FIELD=PATTERN",
        help="Drop matching kills. Repeatable.",
        rich_help_panel=FILTERS,
    ),
    sigkill: str = typer.Option(
        "containers",
        metavar="containers|all|off",
        help="Report SIGKILLs that the OOM killer did not send: to processes in containers, to all, or none.",
        autocompletion=choices(("containers", "all", "off")),
        rich_help_panel=FILTERS,
    ),
    backfill: bool = typer.Option(
        None,
        "--backfill/--no-backfill",
        help="Recover missed kills from the kernel log.",
        show_default="--backfill; --no-backfill with --no-keep",
        rich_help_panel=FILTERS,
    ),
    cmdline: bool = typer.Option(
        True, "--cmdline/--no-cmdline", help="Include command lines.", rich_help_panel=FIELDS_
    ),
    redact_defaults: bool = typer.Option(
        True,
        "--redact-defaults/--no-redact-defaults",
        help="Redact passwords, tokens and keys in command lines.",
        rich_help_panel=FIELDS_,
    ),
    redact: list[str] = typer.Option(
        [],
        metavar="REGEX",
        help="Also redact what matches: the groups, or without groups the whole match. Repeatable.",
        rich_help_panel=FIELDS_,
    ),
    network: bool = typer.Option(
        False, "--network", help="Include IP addresses of containers. Needs pyroute2.", rich_help_panel=FIELDS_
    ),
    runtime_root: list[str] = RUNTIME_ROOTS,
    engine: str = typer.Option(
        "auto",
        metavar="auto|core|bcc",
        help="core: precompiled BPF programs, needs BTF. bcc: compiled at start. auto: core if possible.",
        autocompletion=choices(("auto", "core", "bcc")),
        rich_help_panel=CAPTURE,
    ),
    pins: str = typer.Option(
        PINS_DIR,
        metavar="DIR",
        help="bpffs directory; capture continues there after exit.",
        rich_help_panel=CAPTURE,
    ),
    state: str = typer.Option(
        STATE_DIR,
        metavar="DIR",
        help="Directory for undelivered records and the ledger.",
        rich_help_panel=CAPTURE,
    ),
    keep: bool = typer.Option(
        True,
        "--keep/--no-keep",
        help="Use both directories. With --no-keep nothing is left behind, and several instances can run.",
        rich_help_panel=CAPTURE,
    ),
    print_options: bool = typer.Option(False, hidden=True),
) -> None:
    """Trace OOM kills: one JSON line per kill, in real time.

    Runs until SIGTERM or SIGINT. SIGHUP reads the configuration file again and reopens rotated files. An option on the
    command line overrides the same key in the configuration file. Needs root, or the capabilities that `oomtrace
    doctor` lists.
    """
    given = _given(context)
    arguments = tuple(sys.argv[2:])  # those after `oomtrace run`
    if config is None:
        options = make_options(given, arguments)
    else:
        from tracer.config.toml_file import ConfigFile  # imported here: not needed without --config

        read = ConfigFile(config)
        options = read.options(given, arguments)._replace(settings=tuple(read.settings))
    if print_options:
        sys.stdout.buffer.write(to_json(options))
        return
    # exec: the modules that the command line imports (typer) would stay in memory for the life of the daemon.
    environment = {**os.environ, ENVIRONMENT: to_json(options).decode()}
    package_parent = os.path.dirname(os.path.dirname(os.path.abspath(tracer.__file__)))
    # -S: sys.path is passed on, as the site module would compute it again and keep 1 MB for it.
    environment["PYTHONPATH"] = os.pathsep.join([package_parent, *filter(None, sys.path)])
    try:
        os.execve(sys.executable, ["oomtrace", "-S", "-c", DAEMON], environment)
    except OSError as error:
        raise TracerError(f"cannot run {sys.executable} ({error.strerror})", "run it as root (sudo)") from error


def _given(context: typer.Context) -> dict[str, Any]:
    """Settings given on the command line; only these override the configuration file."""
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
