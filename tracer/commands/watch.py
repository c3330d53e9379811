# SPDX-License-Identifier: Apache-2.0
"""``oomtrace watch``: OOM kills as they happen, in a terminal."""

import typer

from tracer.base.errors import EXIT_FAILED, EXIT_UNSUPPORTED
from tracer.commands.manual import codes, documented


@documented(
    {
        "sudo oomtrace watch": "Trace this host, and show kills as they happen.",
        "oomtrace watch /var/log/oomtrace/oom.json": "Show what the service records, with the history in the file.",
        "ssh node-1 journalctl -fu oomtrace -o cat | oomtrace watch": "Watch another host.",
    },
    {
        **codes(EXIT_FAILED),
        EXIT_UNSUPPORTED: "urwid is not installed, or this host cannot trace.",
    },
)
def watch(
    file: str = typer.Argument(
        None,
        metavar="FILE",
        help="File of records, followed as it grows; - is standard input.",
        show_default="standard input if it is a pipe, else a tracer of its own",
    ),
) -> None:
    """Watch OOM kills in a terminal.

    Lists kills as they happen, with the details of each. Needs urwid (Debian: python3-urwid).
    """
    from tracer.watch import app  # imported here: it would slow down the start of `run`

    code = app.watch(file)
    if code:
        raise typer.Exit(code)
