# SPDX-License-Identifier: Apache-2.0
"""Where lines go: ``stdout`` and ``file:PATH``."""

from collections.abc import Sequence
from typing import Protocol

from tracer.errors import EXIT_USAGE, TracerError
from tracer.file_sink import FileSink
from tracer.ids import Id
from tracer.pipe_sink import PipeSink, StdoutSink, is_pipe


class Sink(Protocol):
    """What delivers lines, from one thread.  It may block: nobody but its own output waits for it."""

    uri: str
    batch_lines: int
    """How many lines it wants at once: 1 where each is delivered on its own, more where a batch is one request."""
    dead: bool
    """Whether it can never deliver again; told after ``write`` has raised."""

    def write(self, lines: Sequence[bytes]) -> int:
        """Deliver lines; how many, from the first on, at least one.

        Not one at a time, because a request over a network carries many and may be taken in part.  What is not
        delivered comes again, as the first lines of the next call.

        Raises OSError where none could be delivered.
        """

    def recent(self) -> set[Id]:
        """Records that it has already, as far as it can tell; from any thread."""

    def reopen(self) -> None:
        """Go on in what has the name now: the file may have been renamed.

        Raises TracerError where that cannot be opened; then nothing changes.
        """

    def close(self) -> None: ...


def check(uri: str) -> None:
    """Raises TracerError (exit code 2) where ``uri`` names no output."""
    if uri != "stdout" and not (uri.startswith("file:") and len(uri) > len("file:")):
        raise TracerError(f"unknown output {uri!r}", "use stdout or file:PATH", EXIT_USAGE)


def open_sink(uri: str) -> Sink:
    """The sink that ``uri`` names.

    Raises TracerError where there is none such or it cannot be opened.
    """
    check(uri)
    if uri == "stdout":
        return StdoutSink()
    path = uri.removeprefix("file:")
    return PipeSink(path) if is_pipe(path) else FileSink(path)
