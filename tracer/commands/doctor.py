# SPDX-License-Identifier: Apache-2.0
"""``oomtrace doctor``: what this host can trace."""

import typer

from tracer.base.errors import EXIT_UNSUPPORTED, EXIT_USAGE
from tracer.commands.common import JSON, print_json
from tracer.commands.manual import EXIT_CODES, documented
from tracer.doctor import checks as checkup


@documented(
    {
        "sudo oomtrace doctor": "Check this host, with the rights that tracing needs.",
        "oomtrace doctor --json": "The same checks for a script: `can_trace`, and a list of checks.",
    },
    {0: "This host can trace.", EXIT_USAGE: EXIT_CODES[EXIT_USAGE], EXIT_UNSUPPORTED: "This host cannot trace."},
)
def doctor(as_json: bool = JSON) -> None:
    """Check what this host can trace.

    Each check prints one line: ok, MISSING (tracing needs it), without (some fields stay null), or unused. A failed
    check names the remedy in the next line.
    """
    checks = checkup.run_checks()
    if as_json:
        print_json({"can_trace": checkup.can_trace(checks), "checks": [check._asdict() for check in checks]})
    else:
        for check in checks:
            mark = "ok     " if check.ok else "MISSING" if check.needed else "unused " if check.spare else "without"
            print(f"{mark}  {check.name}: {check.finding}")
            if not check.ok:
                print(f"         {check.remedy}")
        print(checkup.summarize(checks))
    if not checkup.can_trace(checks):
        raise typer.Exit(EXIT_UNSUPPORTED)
