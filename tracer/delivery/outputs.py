# SPDX-License-Identifier: Apache-2.0
"""The outputs that are configured: opened at the start, and exchanged when the configuration changes."""

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
"""How long an output may take to deliver the last lines."""
EXCHANGE_S = 0.5
"""The same where the others go on."""


class OutputStatus(NamedTuple):
    """How an output is."""

    uri: str
    queued: int
    """Lines in memory."""
    spooled_bytes: int
    dropped: int
    rejected: int
    damaged: int
    failing: bool


class Outputs:
    """Raises TracerError where there is none, or one cannot be opened; threads are started by ``start``."""

    def __init__(self, uris: Sequence[str]) -> None:
        self._opened = _open(uris, [], OPEN_TIMEOUT_S)
        self._folder: str | None = None
        self._disk: DiskWorker | None = None
        self._running: dict[str, Output] = {}

    def start(self, folder: str | None, disk: DiskWorker) -> list[Output]:
        """Begin to deliver; spools are in ``folder``, which is ``disk``'s, or there are none."""
        self._folder, self._disk = folder, disk
        self._running = {uri: self._start(destination, sink) for uri, destination, sink in self._opened}
        return list(self._running.values())

    def reconfigure(self, uris: Sequence[str]) -> list[Output]:
        """Close what is not wanted any more, start what is new; what stays as it was is not touched.

        Raises TracerError where a new one cannot be opened; then nothing changes.
        """
        opened = _open(uris, self._running, HUNG_AFTER_S)
        gone = [self._running.pop(uri) for uri in list(self._running) if uri not in uris]
        for output in gone:
            output.end(EXCHANGE_S)
        for output in gone:
            output.close(EXCHANGE_S)
        for uri, destination, sink in opened:
            self._running[uri] = self._start(destination, sink)
        return [self._running[uri] for uri in uris]

    def statuses(self) -> list[OutputStatus]:
        """How they are; from any thread."""
        states = []
        for each in list(self._running.values()):
            queued, spooled_bytes = each.waiting
            states.append(
                OutputStatus(each.uri, queued, spooled_bytes, each.dropped, each.rejected, each.damaged, each.failing)
            )
        return states

    def _start(self, destination: Destination, sink: Sink) -> Output:
        max_bytes = int(destination.options["spool-bytes"] or 0)
        spool = None
        if self._folder is not None:
            try:
                spool = call_with_timeout(OPEN_TIMEOUT_S, partial(Spool, self._folder, destination.uri, max_bytes))
            except (TracerError, TimeoutError) as error:  # a full disk, say, which may be why memory is short
                warn(f"{error}; it goes on without keeping anything on disk")
        return Output(sink, spool, *_style_and_types(destination), self._disk)


def _open(uris: Sequence[str], known: Container[str], timeout_s: float) -> list[tuple[str, Destination, Sink]]:
    """Those that are not known; all or none.  ``timeout_s``: what each may take."""
    opened: list[tuple[str, Destination, Sink]] = []
    try:
        for uri, destination in zip(uris, parse_destinations(uris), strict=True):
            if uri not in known:
                opened.append((uri, destination, _within(timeout_s, destination)))
    except BaseException:
        for _, _, sink in opened:
            sink.close()
        raise
    return opened


def _within(timeout_s: float, destination: Destination) -> Sink:
    """Raises TracerError, also where the disk hangs."""
    try:
        return call_with_timeout(timeout_s, partial(open_sink, destination))
    except TimeoutError as error:
        raise TracerError(
            f"{destination.uri}: {error.strerror}", "see whether its disk hangs, or name another"
        ) from error


def _style_and_types(destination: Destination) -> tuple[str, frozenset[str] | None]:
    """The style of its lines, and the types of its records."""
    types = destination.options["types"]
    return str(destination.options["style"]), frozenset(str(types).split(",")) if types else None
