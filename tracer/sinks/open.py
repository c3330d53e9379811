# SPDX-License-Identifier: Apache-2.0
"""The sink that a URI names."""

from tracer.errors import EXIT_USAGE, TracerError
from tracer.sinks import Sink
from tracer.sinks.file import FileSink
from tracer.sinks.pipe import PipeSink, StdoutSink, is_pipe


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
