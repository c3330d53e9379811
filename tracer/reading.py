# SPDX-License-Identifier: Apache-2.0
"""All that is read of what others control, with the bounds of docs/security.md: for the daemon, and for commands."""

from collections.abc import Callable, Iterable, Sequence

from tracer import process_reader
from tracer.disk import Disk
from tracer.folder_reader import FolderReader
from tracer.hung import Hung
from tracer.process_reader import ProcessReader
from tracer.reader import Readers
from tracer.runtimes import QUESTIONS, Runtimes

FUNCTIONS: tuple[Callable[..., object], ...] = (*process_reader.FUNCTIONS, *QUESTIONS)
"""What a reader does."""


class Reading:
    """To be made before there are threads and descriptors; ``begin`` comes once these may be there."""

    def __init__(self, capabilities: Sequence[int] | None, functions: Iterable[Callable[..., object]] = ()) -> None:
        """What readers keep (None: all capabilities), and what they do besides."""
        self.readers = Readers((*FUNCTIONS, *functions), capabilities)

    def begin(
        self,
        roots: Iterable[tuple[str, str]],
        kept: str | None = None,
        boot_id: str | None = None,
        disk: Disk | None = None,
    ) -> None:
        """``roots``: of runtimes.  ``kept``: the file that tells what hung in earlier runs, written by ``disk``."""
        self.hung = Hung(kept, boot_id, disk)
        self.processes = ProcessReader(self.readers, self.hung)
        self.runtimes = Runtimes(roots, FolderReader(self.readers, self.hung).read)

    @property
    def unread(self) -> int:
        """Parts of records that stayed unknown."""
        return self.runtimes.errors + self.processes.timeouts
