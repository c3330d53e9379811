# SPDX-License-Identifier: Apache-2.0
"""What several commands share: options, and how they print."""

import contextlib
import sys
from collections.abc import Iterable, Iterator

import typer

from tracer.errors import TracerError
from tracer.line import computed_json
from tracer.printable import printable
from tracer.privileges import for_reading
from tracer.reading import Reading
from tracer.runtimes import ROOTS, Runtimes, parse_root

# Debian 12 has typer 0.7, which knows neither Annotated nor Literal nor X | None.
RUNTIME_ROOTS: list[str] = typer.Option(
    [], "--runtime-root", metavar="NAME=FOLDER", help=f"Where a runtime keeps its files: {', '.join(ROOTS)}."
)
CONTAINER: str = typer.Option(
    None, metavar="NAME", help="Those in this container: its name, its name in the pod, its id, or how that begins."
)
JSON: bool = typer.Option(False, "--json", help="Print JSON.")


def print_json(value: object) -> None:
    if sys.stdout is None:
        raise TracerError("there is no standard output", "run it with one")
    sys.stdout.buffer.write(computed_json(value, indent=True) + b"\n")
    sys.stdout.flush()


@contextlib.contextmanager
def runtimes(roots: list[str]) -> Iterator[Runtimes]:
    """Reads their files where nobody waits for one that hangs; what was not read is told on stderr."""
    with contextlib.closing(Reading(for_reading(network=False))) as reading:
        reading.begin(map(parse_root, roots))
        try:
            yield reading.runtimes
        finally:
            warn_unread(reading.runtimes.unread.values())


def warn_unread(unread: Iterable[str]) -> None:
    for each in unread:
        print(f"oomtrace: {printable(each)}", file=sys.stderr)
