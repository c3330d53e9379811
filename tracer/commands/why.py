# SPDX-License-Identifier: Apache-2.0
"""``oomtrace why``: why a container, pod, unit or process ended."""

import typer

from tracer.base.errors import EXIT_FAILED
from tracer.commands.common import JSON, NAMES, RUNTIME_ROOTS, print_json, runtimes
from tracer.commands.manual import codes, documented
from tracer.identity.resolve import format_owner

EVIDENCE = "Evidence"


@documented(
    {
        "sudo oomtrace why cart": "Explain what ended container cart, and what to do.",
        "oomtrace why shop/cart-7d9f --exit-code 137": "A pod whose runtime has forgotten the exit code.",
        "oomtrace why nginx.service --log /var/log/kern.log.1 --json": "A unit, from an older kernel log, as JSON.",
    },
    {
        **codes(EXIT_FAILED),
        0: "Explained.",
        EXIT_FAILED: "Nothing is known of NAME; standard error says where it looked.",
    },
)
def why(
    name: str = typer.Argument(..., metavar="NAME", help=NAMES),
    exit_code: int = typer.Option(
        None, metavar="CODE", min=0, max=255, help="Exit code, 0 to 255, if it is known.", rich_help_panel=EVIDENCE
    ),
    records: list[str] = typer.Option(
        [],
        metavar="FILE",
        help="Records of oomtrace. Repeatable.",
        show_default="/var/log/oomtrace/*.json* and the journal of the service",
        rich_help_panel=EVIDENCE,
    ),
    log: list[str] = typer.Option(
        [],
        metavar="FILE",
        help="Kernel log, searched before the sources of this host. Repeatable.",
        rich_help_panel=EVIDENCE,
    ),
    as_json: bool = JSON,
    runtime_root: list[str] = RUNTIME_ROOTS,
) -> None:
    """Explain why a container, pod, unit or process ended.

    Says whether the OOM killer killed it and for whose limit, whether another process sent SIGKILL, or whether nothing
    killed it; then what filled the memory, how often it happened, and what to do. Searches the records of oomtrace,
    this boot's kernel log and the files of the container runtimes.
    """
    from tracer.why import answer  # imported here: it would slow down the start of `run`

    question = answer.Question(format_owner(name) if name.startswith("/") else name, exit_code, records, log)
    with runtimes(runtime_root) as found:
        result = answer.answer_question(question, found)
    if as_json:
        print_json(result)
    else:
        print(*answer.format_answer(result), sep="\n")
