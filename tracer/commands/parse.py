# SPDX-License-Identifier: Apache-2.0
"""``oomtrace parse``: kills of the past, from kernel logs."""

import typer


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
    from tracer import parse as parser  # what it needs would keep `run` from starting quickly

    wanted = parser.Wanted(since, until, container, unit, grep, boot)
    code = parser.parse(files or [], wanted, parser.Form(last, boot_time, timezone, sentence, follow))
    if code:
        raise typer.Exit(code)
