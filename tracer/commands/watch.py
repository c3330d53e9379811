# SPDX-License-Identifier: Apache-2.0
"""``oomtrace watch``: OOM kills as they happen, in a terminal."""

import typer


def watch(
    file: str = typer.Argument(
        None,
        metavar="[FILE]",
        help="A file of records that grows; - is standard input. Without: what is piped in, or a tracer of its own.",
    ),
) -> None:
    """Watch OOM kills in a terminal; needs urwid."""
    from tracer.watch import app  # what it needs would keep `run` from starting quickly

    code = app.watch(file)
    if code:
        raise typer.Exit(code)
