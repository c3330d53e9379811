# SPDX-License-Identifier: Apache-2.0
"""The command line; the only module that imports typer."""

import os
import sys
from typing import Annotated, Literal

import orjson
import typer

from tracer import __version__, daemon, sinks
from tracer.errors import EXIT_USAGE, TracerError
from tracer.line import MAX_BYTES, MIN_MAX_BYTES

app = typer.Typer(
    name="oomtrace",
    help="Who was killed by the kernel's OOM killer, in which container, whose limit was hit, and why this process.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def run(
    engine: Annotated[
        Literal["auto", "core", "bcc"],
        typer.Option(help="core: programs compiled beforehand (needs BTF). bcc: compiled now. auto: core if it can."),
    ] = "auto",
    output: Annotated[
        list[str] | None,
        typer.Option("--output", "-o", metavar="URI", help="stdout or file:PATH; may be given again.  [default: stdout]"),
    ] = None,
    max_record: Annotated[
        int, typer.Option(metavar="BYTES", min=MIN_MAX_BYTES, help="Longest line; what is longer is trimmed and says so.")
    ] = MAX_BYTES,
) -> None:
    """Trace: one JSON line for every OOM kill, until SIGTERM or SIGINT."""
    outputs = tuple(output or ["stdout"])
    for uri in outputs:
        sinks.check(uri)
    options = daemon.Options(engine, outputs, max_record)
    # A process of its own: what this one has imported would stay for as long as the daemon runs.
    environment = {**os.environ, daemon.OPTIONS: orjson.dumps(options._asdict()).decode()}
    os.execve(sys.executable, ["oomtrace", "-m", "tracer.daemon"], environment)


def main() -> None:
    try:
        app()
    except TracerError as error:
        print(f"oomtrace: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
