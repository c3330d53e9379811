# SPDX-License-Identifier: Apache-2.0
"""``oomtrace report``: an HTML page or Markdown of OOM kills."""

import typer

from tracer.base.errors import EXIT_FAILED
from tracer.commands.common import CGROUP, CONTAINER, POD, SELECTION, SINCE, UNIT, UNTIL
from tracer.commands.manual import choices, codes, documented
from tracer.identity.resolve import normalize_cgroup_path
from tracer.records.matching import OwnerFilter

FORMATS = ("html", "md")


def _check_format(name: str | None) -> str | None:
    if name is not None and name not in FORMATS:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(FORMATS)}.")
    return name


@documented(
    {
        "oomtrace report /var/log/oomtrace/oom.json* -o report.html": "One page of all incidents on record.",
        "dmesg | oomtrace report - -o ticket.md": "Markdown for a ticket, from this boot's kernel log.",
        "oomtrace report --since yesterday --container cart oom.json -o cart.html": "Kills in one container.",
    },
    {
        **codes(EXIT_FAILED),
        EXIT_FAILED: "A file could not be read, or not completely; the report has the rest, if there is any.",
    },
)
def report(
    files: list[str] = typer.Argument(
        ..., metavar="FILE", help="Records or kernel log, plain or compressed; - is standard input."
    ),
    output: str = typer.Option("-", "--output", "-o", metavar="PATH", help="File to write; - is standard output."),
    form: str = typer.Option(
        None,
        "--format",
        callback=_check_format,
        metavar="html|md",
        help="A page, or Markdown for a ticket.",
        show_default="md if PATH ends in .md, else html",
        autocompletion=choices(FORMATS),
    ),
    last: int = typer.Option(
        None,
        "-n",
        "--lines",
        "--last",
        metavar="N",
        min=1,
        help="The newest N incidents.",
        show_default="html: all; md: 20",
        rich_help_panel=SELECTION,
    ),
    since: str = SINCE,
    until: str = UNTIL,
    container: str = CONTAINER,
    pod: str = POD,
    unit: str = UNIT,
    cgroup: str = CGROUP,
) -> None:
    """Make a report of OOM kills: an HTML page or Markdown.

    Reads records and kernel logs of any number of hosts. A kill that is in several files counts once. The page is one
    file, and loads nothing from the network.
    """
    from tracer.report import make  # imported here: it would slow down the start of `run`

    names = OwnerFilter(container, pod, unit, None if cgroup is None else normalize_cgroup_path(cgroup))
    form = form or ("md" if output.lower().endswith((".md", ".markdown")) else "html")
    code = make.write_report(files, make.ReportOptions(form, output, last, since, until, names))
    if code:
        raise typer.Exit(code)
