# SPDX-License-Identifier: Apache-2.0
"""``oomtrace run``: reads the options, and becomes the daemon."""

import os
import sys
from typing import get_args

import orjson
import typer

import tracer
from tracer.commands.common import RUNTIME_ROOTS
from tracer.errors import TracerError
from tracer.line import MAX_BYTES, MIN_MAX_BYTES
from tracer.options import ENVIRONMENT, PINS_FOLDER, STATE_FOLDER, EngineOption, Options, SigkillOption
from tracer.redact import Redactor
from tracer.runtimes import parse_root
from tracer.sinks import open as sinks

DAEMON = "import sys; sys.path[:] = filter(None, sys.path); from tracer.daemon import main; sys.exit(main())"
"""What the daemon's Python runs.  Not ``-m``, which would look for modules in the working directory first."""


def _check_engine(name: str) -> EngineOption:
    for engine in get_args(EngineOption):
        if name == engine:
            return engine  # type: ignore[no-any-return]
    raise typer.BadParameter(f"{name!r} is not one of {', '.join(get_args(EngineOption))}.")


def _check_sigkill(name: str) -> SigkillOption:
    for scope in get_args(SigkillOption):
        if name == scope:
            return scope  # type: ignore[no-any-return]
    raise typer.BadParameter(f"{name!r} is not one of {', '.join(get_args(SigkillOption))}.")


def run(
    engine: str = typer.Option(
        "auto",
        callback=_check_engine,
        metavar="<auto|core|bcc>",
        help="core: programs compiled beforehand (needs BTF). bcc: compiled now. auto: core if it can.",
    ),
    output: list[str] = typer.Option(
        ["stdout"], "--output", "-o", metavar="URI", help="stdout or file:PATH; may be given again."
    ),
    max_record: int = typer.Option(
        MAX_BYTES, metavar="BYTES", min=MIN_MAX_BYTES, help="Longest line; a longer one is trimmed and says so."
    ),
    runtime_root: list[str] = RUNTIME_ROOTS,
    network: bool = typer.Option(
        False, "--network", help="Show the addresses of containers; needs pyroute2 (oomtrace[network])."
    ),
    sigkill: str = typer.Option(
        "containers",
        callback=_check_sigkill,
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
    pins_folder: str = typer.Option(
        PINS_FOLDER, "--pins", metavar="FOLDER", help="In a bpffs: there the capture goes on when oomtrace ends."
    ),
    state: str = typer.Option(
        STATE_FOLDER, metavar="FOLDER", help="Where lines are kept that an output does not take, and what was told."
    ),
    keep: bool = typer.Option(
        True, "--keep/--no-keep", help="Without, it leaves nothing behind, and may run beside another oomtrace."
    ),
    backfill: bool = typer.Option(
        None, "--backfill/--no-backfill", help="Tell kills that nobody saw from the kernel log; off with --no-keep."
    ),
) -> None:
    """Trace: one JSON line for every OOM kill, until SIGTERM or SIGINT."""
    for uri in output:
        sinks.check(uri)
    roots = tuple(parse_root(root) for root in runtime_root)
    Redactor(redact)  # a wrong pattern is a wrong option
    options = Options(
        _check_engine(engine),
        tuple(output),
        max_record,
        roots,
        cmdline,
        redact_defaults,
        tuple(redact),
        network,
        pins_folder if keep else None,
        state if keep else None,
        _check_sigkill(sigkill),
        keep if backfill is None else backfill,
    )
    # A process of its own: what this one has imported would stay for as long as the daemon runs.
    environment = {**os.environ, ENVIRONMENT: orjson.dumps(options._asdict()).decode()}
    package_parent = os.path.dirname(os.path.dirname(os.path.abspath(tracer.__file__)))
    # Where modules are is known already (-S): finding out anew takes memory that stays.
    environment["PYTHONPATH"] = os.pathsep.join([package_parent, *filter(None, sys.path)])
    try:
        os.execve(sys.executable, ["oomtrace", "-S", "-c", DAEMON], environment)
    except OSError as error:
        raise TracerError(f"cannot run {sys.executable} ({error.strerror})", "run it as root (sudo)") from error
