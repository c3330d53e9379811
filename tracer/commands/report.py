# SPDX-License-Identifier: Apache-2.0
"""``oomtrace report``: what happened, as a page or for a ticket."""

import typer

FORMATS = ("html", "md")


def _check_format(name: str) -> str:
    if name not in FORMATS:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(FORMATS)}.")
    return name


def report(
    files: list[str] = typer.Argument(
        ..., metavar="FILE...", help="Records or kernel logs, compressed or not; - is standard input."
    ),
    output: str = typer.Option("-", "--output", "-o", metavar="PATH", help="Where to; - is standard output."),
    form: str = typer.Option(
        "html", "--format", callback=_check_format, metavar="<html|md>", help="A page, or Markdown for a ticket."
    ),
    last: int = typer.Option(
        None, "-n", "--last", metavar="N", min=1, help="The newest N incidents; without: all in a page, 20 in Markdown."
    ),
) -> None:
    """Make a page of OOM kills that needs no network, or a text for a ticket."""
    from tracer.report import make  # what it needs would keep `run` from starting quickly

    code = make.report(files, make.Form(form, output, last))
    if code:
        raise typer.Exit(code)
