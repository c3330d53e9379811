# SPDX-License-Identifier: Apache-2.0
"""All reads of sources that others control, with the limits of docs/security.md; for the daemon and for commands."""

import gc
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from tracer.base.hung_disk import DiskWorker
from tracer.identity.runtimes import READ_FUNCTIONS, Runtimes
from tracer.linux.safe_files import UnreadableError
from tracer.reading import procfs_reader
from tracer.reading.directory_reader import DirectoryReader
from tracer.reading.hung_sources import HungSources
from tracer.reading.procfs_reader import ProcfsReader
from tracer.reading.reader_processes import ReaderPool

if TYPE_CHECKING:
    from tracer.identity.interface_cache import InterfaceCache
    from tracer.identity.network import NamespaceContents, NetworkNamespaces

NAMESPACE_S = 0.3
"""Timeout of a visit to a network namespace, which itself ends after 0.2 s."""
FUNCTIONS: tuple[Callable[..., object], ...] = (*procfs_reader.FUNCTIONS, *READ_FUNCTIONS)
"""The functions that a reader has to have."""


class Reading:
    """To be created before there are threads and descriptors; ``begin`` is called afterwards."""

    def __init__(
        self,
        capabilities: Sequence[int] | None = None,
        functions: Iterable[Callable[..., object]] = (),
        *,
        network: bool = False,
    ) -> None:
        """``capabilities``: what readers keep (None: all). ``functions``: what readers can call beside `FUNCTIONS`.

        Raises TracerError (EXIT_USAGE) if ``network`` is set and pyroute2 is missing.
        """
        self.interfaces: InterfaceCache | None = None
        self._namespaces: NetworkNamespaces | None = None
        if network:
            from tracer.identity import network as namespaces  # needs pyroute2, and takes 2 MB

            self._namespaces = namespaces.NetworkNamespaces()
            functions = (*functions, self._namespaces.read)
        gc.collect()
        gc.freeze()  # keeps memory shared with readers: gc.collect() writes into the objects that it visits
        self.readers = ReaderPool((*FUNCTIONS, *functions), capabilities)

    def begin(
        self,
        roots: Iterable[tuple[str, str]],
        kept: str | None = None,
        boot_id: str | None = None,
        disk: DiskWorker | None = None,
    ) -> None:
        """``roots``: of runtimes. ``kept``: the file of what hung in earlier runs, written by ``disk``."""
        self.hung = HungSources(kept, boot_id, disk)
        self.processes = ProcfsReader(self.readers, self.hung)
        self.runtimes = Runtimes(roots, DirectoryReader(self.readers, self.hung).read)
        if self._namespaces is not None:
            from tracer.identity import interface_cache

            self.interfaces = interface_cache.InterfaceCache(self._namespaces, self._read_namespace)

    def close(self) -> None:
        """End the reader processes, as the exit of this process does."""
        self.readers.close()

    def _read_namespace(self, path: str, expected: int | None) -> "NamespaceContents | None":
        assert self._namespaces is not None
        try:
            found = self.readers.ask(NAMESPACE_S, self._namespaces.read, path, expected)
        except UnreadableError:
            return None
        return None if found is None else (found[0], found[1], found[2])

    @property
    def unread(self) -> int:
        """The number of parts of records that are unknown because of a failed read."""
        return self.runtimes.errors + self.processes.timeouts
