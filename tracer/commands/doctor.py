# SPDX-License-Identifier: Apache-2.0
"""``oomtrace doctor``: what this host can trace."""

import typer

from tracer import doctor as checkup
from tracer.commands.common import JSON, print_json
from tracer.errors import EXIT_UNSUPPORTED


def doctor(as_json: bool = JSON) -> None:
    """Tell what this host can trace, what it cannot, and what to do about it."""
    checks = checkup.examine()
    if as_json:
        print_json({"can_trace": checkup.can_trace(checks), "checks": [check._asdict() for check in checks]})
    else:
        for check in checks:
            mark = "ok     " if check.ok else "MISSING" if check.needed else "unused " if check.spare else "without"
            print(f"{mark}  {check.name}: {check.finding}")
            if not check.ok:
                print(f"         {check.remedy}")
        print(checkup.summary(checks))
    if not checkup.can_trace(checks):
        raise typer.Exit(EXIT_UNSUPPORTED)
