# SPDX-License-Identifier: Apache-2.0
"""The configured outputs: opened at the start, replaced when the configuration changes."""

from collections.abc import Container, Sequence
from functools import partial
from typing import NamedTuple

from tracer.base.errors import TracerError
from tracer.base.hung_disk import HUNG_AFTER_S, OPEN_TIMEOUT_S, DiskWorker, call_with_timeout
from tracer.base.log import warn
from tracer.delivery.output import Output
from tracer.delivery.sinks import Sink
from tracer.delivery.sinks.destination import Destination
from tracer.delivery.sinks.open import open_sink, parse_destinations
from tracer.delivery.spool import Spool

CLOSE_S = 2.0
"""Timeout for delivering the last lines of an output."""
REPLACE_S = 0.5
"""The same while other outputs continue."""


class OutputStatus(NamedTuple):
    uri: str
    queued: int
    """Lines in memory."""
    spooled_bytes: int
    dropped: int
    rejected: int
    damaged: int
    failing: bool


class Outputs:
    """Opens the sinks; ``start`` begins to deliver.

    Raises TracerError if there is no output, or one cannot be opened.
    """

    def __init__(self, uris: Sequence[str]) -> None:
        self._opened = _open_new(uris, [], OPEN_TIMEOUT_S)
        self._state_dir: str | None = None
        self._disk: DiskWorker | None = None
        self._running: dict[str, Output] = {}

    def start(self, state_dir: str | None, disk: DiskWorker) -> list[Output]:
        """Begin to deliver.  ``disk`` writes the spools below ``state_dir``; None: there are no spools."""
        self._state_dir, self._disk = state_dir, disk
        self._running = {uri: self._start(destination, sink) for uri, destination, sink in self._opened}
        return list(self._running.values())

    def reconfigure(self, uris: Sequence[str]) -> list[Output]:
        """Start new outputs, and close those that are no longer configured; the others continue.

        Raises TracerError if a new output cannot be opened; then nothing changes.
        """
        opened = _open_new(uris, self._running, HUNG_AFTER_S)
        removed = [self._running.pop(uri) for uri in list(self._running) if uri not in uris]
        for output in removed:  # all of them drain at the same time
            output.end(REPLACE_S)
        for output in removed:
            output.close(REPLACE_S)
        for uri, destination, sink in opened:
            self._running[uri] = self._start(destination, sink)
        return [self._running[uri] for uri in uris]

    def statuses(self) -> list[OutputStatus]:
        """The status of each output.  Thread-safe."""
        statuses = []
        for each in list(self._running.values()):
            queued, spooled_bytes = each.waiting
            statuses.append(
                OutputStatus(each.uri, queued, spooled_bytes, each.dropped, each.rejected, each.damaged, each.failing)
            )
        return statuses

    def _start(self, destination: Destination, sink: Sink) -> Output:
        max_bytes = int(destination.options["spool-bytes"] or 0)
        spool = None
        if self._state_dir is not None:
            try:
                spool = call_with_timeout(OPEN_TIMEOUT_S, partial(Spool, self._state_dir, destination.uri, max_bytes))
            except (TracerError, TimeoutError) as error:  # capture must not depend on the disk
                warn(f"{error}; undelivered records are kept in memory only")
        types = destination.options["types"]
        record_types = frozenset(str(types).split(",")) if types else None
        return Output(sink, spool, str(destination.options["style"]), record_types, self._disk)


def _open_new(uris: Sequence[str], running: Container[str], timeout_s: float) -> list[tuple[str, Destination, Sink]]:
    """Open all outputs that are not running, or none; ``timeout_s`` is for each.

    Raises TracerError.
    """
    opened: list[tuple[str, Destination, Sink]] = []
    try:
        for uri, destination in zip(uris, parse_destinations(uris), strict=True):
            if uri not in running:
                opened.append((uri, destination, _open_in_time(destination, timeout_s)))
    except BaseException:
        for _, _, sink in opened:
            sink.close()
        raise
    return opened


def _open_in_time(destination: Destination, timeout_s: float) -> Sink:
    """Raises TracerError, also if the disk hangs."""
    try:
        return call_with_timeout(timeout_s, partial(open_sink, destination))
    except TimeoutError as error:
        hint = "check whether its disk hangs, or use another one"
        raise TracerError(f"{destination.uri}: {error.strerror}", hint) from error
