# SPDX-License-Identifier: Apache-2.0
"""Options and output that several commands share."""

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator

import typer

from tracer.base.errors import TracerError
from tracer.base.printable import printable
from tracer.encoding.encoder import computed_json
from tracer.identity.runtimes import ROOTS, Runtimes, parse_runtime_root
from tracer.linux.privileges import reader_capabilities
from tracer.reading.sources import Reading

# Debian 12 has typer 0.7, which supports neither Annotated nor Literal nor X | None.
RUNTIME_ROOTS: list[str] = typer.Option(
    [],
    "--runtime-root",
    metavar="NAME=DIR",
    help=f"Directory of a container runtime, in place of the default one; NAME is {', '.join(ROOTS)}. Repeatable.",
)
NAMES = (
    "Container (name, ID or 6+ digits of it), pod ([NAMESPACE/]POD, UID), systemd unit, cgroup path, PID, or "
    "process name; KIND:NAME for one of these, as unit:NAME."
)
SELECTION = "Selection"
"""Help heading of the options that select by name or time."""
SINCE: str = typer.Option(
    None,
    "-S",
    "--since",
    metavar="TIME",
    help="Kills at or after TIME: 2h, '2 hours ago', yesterday, '2026-11-24 03:51', @1795492313.",
    rich_help_panel=SELECTION,
)
UNTIL: str = typer.Option(
    None, "-U", "--until", metavar="TIME", help="Kills at or before TIME.", rich_help_panel=SELECTION
)
CONTAINER: str = typer.Option(
    None,
    metavar="NAME",
    help="Container: its name, its name in the pod, its ID, or a prefix of the ID.",
    rich_help_panel=SELECTION,
)
UNIT: str = typer.Option(
    None, metavar="UNIT", help="systemd unit; '*' and '?' are wildcards.", rich_help_panel=SELECTION
)
POD: str = typer.Option(None, metavar="[NS/]POD", help="Pod: its name or its UID.", rich_help_panel=SELECTION)
CGROUP: str = typer.Option(
    None, metavar="PATH", help="Cgroup with all below it: /sys/fs/cgroup/..., /docker/...", rich_help_panel=SELECTION
)
JSON: bool = typer.Option(False, "--json", help="Print JSON.")
ALWAYS_JSON: bool = typer.Option(False, "--json", help="Print JSON, as without this option.")


def print_json(value: object) -> None:
    if sys.stdout is None:
        raise TracerError("there is no standard output", "run it with one")
    sys.stdout.buffer.write(computed_json(value, indent=True) + b"\n")
    sys.stdout.flush()


@contextlib.contextmanager
def open_reading(roots: list[str], *functions: Callable[..., object]) -> Iterator[Reading]:
    """Reader processes for runtimes' files, as a read may hang; they also run ``functions``."""
    with contextlib.closing(Reading(reader_capabilities(network=False), functions)) as reading:
        reading.begin(map(parse_runtime_root, roots))
        yield reading


@contextlib.contextmanager
def runtimes(roots: list[str]) -> Iterator[Runtimes]:
    """Container runtimes, read in processes of their own.  Warns of directories that could not be read."""
    with open_reading(roots) as reading:
        try:
            yield reading.runtimes
        finally:
            warn_unread(reading.runtimes.unread.values())


def warn_unread(unread: Iterable[str]) -> None:
    for each in unread:
        print(f"oomtrace: {printable(each)}", file=sys.stderr)
