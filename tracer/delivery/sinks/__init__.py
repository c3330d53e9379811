# SPDX-License-Identifier: Apache-2.0
"""Sinks: how lines reach an output, one module per protocol, and the interface that they share."""

from collections.abc import Sequence
from typing import Protocol

from tracer.records.record_id import RecordId


class RejectedError(Exception):
    """The server examined the first line, and will never accept it.

    With ``among``: of the first ``among`` lines, ``count`` will never be accepted; which ones is unknown; the others
    were accepted.  If not ``is_certain``, the error may concern every line, as a proxy's: the line is at fault only if
    another one is accepted.
    """

    def __init__(self, reason: str, count: int = 1, among: int = 0, *, is_certain: bool = True) -> None:
        super().__init__(reason)
        self.count, self.among, self.is_certain = count, among, is_certain


class Sink(Protocol):
    """Delivers lines, from one thread.  It may block: only its own output waits for it."""

    uri: str
    """The URI without secrets."""
    batch_lines: int
    """Preferred number of lines per write: 1 if each is delivered on its own, more if a batch is one request."""
    dead: bool
    """Whether the sink can never deliver again; valid after ``write`` has raised."""

    def write(self, lines: Sequence[bytes]) -> int:
        """Deliver lines; return how many were delivered, from the first one, at least one.

        The others are the first lines of the next call.

        Raises OSError if none could be delivered, RejectedError if the first one never will be.  An OSError may have
        ``retry_after_s``, the delay that the server asks for.
        """

    def recent(self) -> set[RecordId]:
        """The latest records that the output has, as far as that is known.  Thread-safe."""

    def reopen(self) -> None:
        """Open what now has the name: the file may have been renamed.

        Raises TracerError if it cannot be opened; then nothing changes.
        """

    def close(self) -> None: ...


class RemoteSink:
    """A sink that cannot be queried for its records; ``reopen`` makes a new connection."""

    dead = False

    def recent(self) -> set[RecordId]:
        return set()

    def reopen(self) -> None:
        self.close()

    def close(self) -> None:
        raise NotImplementedError
