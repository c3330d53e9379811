# SPDX-License-Identifier: Apache-2.0
"""``oomtrace why``: why a container, pod, unit or process ended."""

import typer

from tracer.commands.common import JSON, RUNTIME_ROOTS, print_json, runtimes


def why(
    name: str = typer.Argument(..., metavar="NAME", help="Container (name, id), pod, unit, pid or process name."),
    exit_code: int = typer.Option(None, metavar="CODE", min=0, max=255, help="What is known to be its exit code."),
    records: list[str] = typer.Option(
        [],
        metavar="FILE",
        help="Records of oomtrace; without: the service's, and its journal. May be given again.",
    ),
    log: list[str] = typer.Option(
        [], metavar="FILE", help="A kernel log to search before this machine's sources. May be given again."
    ),
    as_json: bool = JSON,
    runtime_root: list[str] = RUNTIME_ROOTS,
) -> None:
    """Tell why something ended: which limit, who else, or not killed at all."""
    from tracer.why import answer  # what it needs would keep `run` from starting quickly

    question = answer.Question(name, exit_code, records, log)
    with runtimes(runtime_root) as found:
        told = answer.answer(question, found)
    if as_json:
        print_json(told)
    else:
        print(*answer.lines(told), sep="\n")
