# SPDX-License-Identifier: Apache-2.0
"""The command line; the only module that imports typer."""

import os
import sys
from typing import get_args

import orjson
import typer

from tracer import __version__, doctor, pins, sinks
from tracer.errors import EXIT_FAILED, EXIT_UNSUPPORTED, EXIT_USAGE, TracerError
from tracer.identity import Resolved, resolve
from tracer.line import MAX_BYTES, MIN_MAX_BYTES, escape_controls
from tracer.options import ENVIRONMENT, PINS_FOLDER, STATE_FOLDER, EngineOption, Options
from tracer.redact import Redactor
from tracer.runtimes import ROOTS, Runtimes, parse_root
from tracer.schema import json_schema
from tracer.sentence import printable

app = typer.Typer(
    name="oomtrace",
    help="Who was killed by the kernel's OOM killer, in which container, whose limit was hit, and why this process.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

DAEMON = "import sys; sys.path[:] = filter(None, sys.path); from tracer.daemon import main; sys.exit(main())"
"""What the daemon's Python runs.  Not ``-m``, which would look for modules in the working directory first."""

# Debian 12 has typer 0.7, which knows neither Annotated nor Literal nor X | None.
RUNTIME_ROOTS: list[str] = typer.Option(
    [], "--runtime-root", metavar="NAME=FOLDER", help=f"Where a runtime keeps its files: {', '.join(ROOTS)}."
)
JSON: bool = typer.Option(False, "--json", help="Print JSON.")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"oomtrace {__version__}")
        raise typer.Exit


def _check_engine(name: str) -> EngineOption:
    for engine in get_args(EngineOption):
        if name == engine:
            return engine  # type: ignore[no-any-return]
    raise typer.BadParameter(f"{name!r} is not one of {', '.join(get_args(EngineOption))}.")


@app.callback()
def common(
    _version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version."
    ),
) -> None:
    pass


@app.command()
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
        keep if backfill is None else backfill,
    )
    # A process of its own: what this one has imported would stay for as long as the daemon runs.
    environment = {**os.environ, ENVIRONMENT: orjson.dumps(options._asdict()).decode()}
    package_parent = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    # Where modules are is known already (-S): finding out anew takes memory that stays.
    environment["PYTHONPATH"] = os.pathsep.join([package_parent, *filter(None, sys.path)])
    try:
        os.execve(sys.executable, ["oomtrace", "-S", "-c", DAEMON], environment)
    except OSError as error:
        raise TracerError(f"cannot run {sys.executable} ({error.strerror})", "run it as root (sudo)") from error


@app.command(name="resolve")
def resolve_command(
    target: str = typer.Argument(..., metavar="CGROUP_PATH|PID", help="/sys/fs/cgroup/..., /docker/..., or a pid."),
    as_json: bool = JSON,
    runtime_root: list[str] = RUNTIME_ROOTS,
) -> None:
    """Tell whose a cgroup or a process is: container, pod, systemd unit."""
    resolved = resolve(target, Runtimes(map(parse_root, runtime_root)))
    if as_json:
        _print_json(resolved)
    else:
        print(_describe(resolved), end="")


@app.command(name="parse")
def parse_command(
    files: list[str] = typer.Argument(
        None,
        metavar="[FILE]...",
        help="Logs, compressed or not; - is standard input. Without: what is piped in, or this boot's log.",
    ),
    since: str = typer.Option(
        None, metavar="TIME", help="Kills from then on: '2026-11-24 03:51', yesterday, -2h, '1 hour ago'."
    ),
    until: str = typer.Option(None, metavar="TIME", help="Kills until then."),
    last: int = typer.Option(None, "-n", "--last", metavar="N", min=1, help="The last N kills."),
    container: str = typer.Option(
        None, metavar="ID", help="Kills in this container: its id, or how that begins, or its name."
    ),
    unit: str = typer.Option(None, metavar="UNIT", help="Kills in this systemd unit; * and ? may be in it."),
    grep: str = typer.Option(None, metavar="REGEX", help="Kills whose JSON has this in it."),
    boot: str = typer.Option(None, metavar="ID", help="Kills of this boot; of the journal's JSON or export."),
    boot_time: str = typer.Option(
        None, metavar="TIME", help="When the host booted whose log has only the time since then."
    ),
    timezone: str = typer.Option(
        None, metavar="ZONE", help="Of times without one, as Europe/Berlin; without, this machine's."
    ),
    sentence: bool = typer.Option(False, "--sentence", help="Print a sentence for every kill, no JSON."),
    follow: bool = typer.Option(False, "-f", "--follow", help="Go on with what is added to the log, until SIGINT."),
) -> None:
    """Read OOM kills of the past from kernel logs: dmesg, syslog, the journal."""
    from tracer import parse  # what it needs would keep `run` from starting quickly

    wanted = parse.Wanted(since, until, container, unit, grep, boot)
    code = parse.parse(files or [], wanted, parse.Form(last, boot_time, timezone, sentence, follow))
    if code:
        raise typer.Exit(code)


@app.command(name="doctor")
def doctor_command(as_json: bool = JSON) -> None:
    """Tell what this host can trace, what it cannot, and what to do about it."""
    checks = doctor.examine()
    if as_json:
        _print_json({"can_trace": doctor.can_trace(checks), "checks": [check._asdict() for check in checks]})
    else:
        for check in checks:
            mark = "ok     " if check.ok else "MISSING" if check.needed else "without"
            print(f"{mark}  {check.name}: {check.finding}")
            if not check.ok:
                print(f"         {check.remedy}")
        print(doctor.summary(checks))
    if not doctor.can_trace(checks):
        raise typer.Exit(EXIT_UNSUPPORTED)


@app.command(name="detach")
def detach_command(
    folder: str = typer.Option(PINS_FOLDER, "--pins", metavar="FOLDER", help="Where it is pinned."),
) -> None:
    """End the capture that goes on in the kernel while oomtrace does not run."""
    removed = pins.detach(folder)
    for name in removed:
        print(f"removed {name}")
    if not removed:
        print(f"nothing is pinned in {folder}")


@app.command()
def schema() -> None:
    """Print the JSON Schema of the records."""
    _print_json(json_schema())


def _print_json(value: object) -> None:
    if sys.stdout is None:
        raise TracerError("there is no standard output", "run it with one")
    json = orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    sys.stdout.buffer.write(escape_controls(json))
    sys.stdout.flush()


def _describe(resolved: Resolved) -> str:
    lines = [f"cgroup      {resolved['cgroup']} ({resolved['level']})"]
    for part in ("container", "kubernetes", "systemd"):
        fields = resolved[part]
        shown = ", ".join(f"{name} {value}" for name, value in (fields or {}).items() if value is not None)
        lines.append(f"{part:11} {shown or 'none'}")
    return "".join(f"{printable(line)}\n" for line in lines)


def main() -> None:
    """The command ``oomtrace``: every foreseeable error ends in one line on stderr and an exit code."""
    try:
        code = app(standalone_mode=False)
    except TracerError as error:
        print(f"oomtrace: {error}", file=sys.stderr)
        code = error.exit_code
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or the interpreter tries again when it exits
        if not isinstance(error, BrokenPipeError):  # a reader that has left needs no message
            print(f"oomtrace: cannot write the output ({error.strerror})", file=sys.stderr)
        code = EXIT_FAILED
    except Exception as error:
        say = getattr(error, "format_message", None)  # what typer raises for wrong usage, whichever click it brings
        if say is None:
            raise
        help_asked = "\n" in say()  # without arguments
        print(say() if help_asked else f"oomtrace: {say()} Try: oomtrace --help", file=sys.stderr)
        code = EXIT_USAGE
    sys.exit(code)
