# SPDX-License-Identifier: Apache-2.0
"""``oomtrace parse``: kills of the past, from kernel logs."""

import typer

from tracer.commands.common import CONTAINER


def parse(
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
    container: str = CONTAINER,
    unit: str = typer.Option(None, metavar="UNIT", help="Kills in this systemd unit; * and ? may be in it."),
    grep: str = typer.Option(None, metavar="REGEX", help="Kills whose JSON has this in it."),
    boot: str = typer.Option(
        None,
        "-b",
        "--boot",
        metavar="BOOT",
        help="Kills of this boot: 0 is the last one in the log, -1 the one before, 1 the first; or its id.",
    ),
    pid: int = typer.Option(None, metavar="PID", min=1, help="Kills of this process."),
    comm: str = typer.Option(None, metavar="NAME", help="Kills of processes with this name; * and ? may be in it."),
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
    from tracer import parse as parser
    from tracer.logs.kills import Form, Wanted  # what it needs would keep `run` from starting quickly

    wanted = Wanted(since, until, container, unit, grep, boot, pid, comm, last)
    code = parser.parse(files or [], wanted, Form(boot_time, timezone, follow), sentence)
    if code:
        raise typer.Exit(code)
