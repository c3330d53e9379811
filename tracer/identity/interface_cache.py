# SPDX-License-Identifier: Apache-2.0
"""The interfaces of containers, read while these live: with its init, a container's network is gone as well.

A thread reads them when a container's cgroup appears, again when its network has had time to be set up, and for all
that are there at the start.
"""

import contextlib
import heapq
import itertools
import threading
import time
from collections.abc import Sequence

from tracer.base import threads
from tracer.identity.cgroup_path import parse_cgroup_path
from tracer.identity.network import NetworkNamespaces, ReadNamespace
from tracer.linux import cgroupfs
from tracer.records.owner import Interface

VISIT_DELAYS_S = (0.1, 0.5, 1.5, 5.0)
"""When a new container is visited: its cgroup is older than its processes, and those than its last address."""
WAITING_MAX = 16384
WAITING_BYTES_MAX = 4 << 20
"""Of the paths that wait.  Beyond, a container is visited only for its victims."""
LOCK_TIMEOUT_S = 0.3
"""How long a record waits for a visit to end."""


class InterfaceCache:
    """``read`` does what ``namespaces.read`` does, in time."""

    def __init__(self, namespaces: NetworkNamespaces, read: ReadNamespace) -> None:
        self._namespaces = namespaces
        namespaces.read_remotely = read
        self._lock = threading.Lock()
        self._mount = cgroupfs.find_mount()
        self._order = itertools.count()
        self._waiting: list[tuple[float, int, str | None]] = []
        """(monotonic seconds, order, cgroup or None for all), a heap."""
        self._waiting_bytes = 0
        self._changed = threading.Condition()
        self._thread = threads.start("interfaces", self._learn_forever)

    def prefetch(self, path: str | None) -> None:
        """A cgroup is there, or None for all that are: see who is in it, soon and a little later."""
        if path is not None and parse_cgroup_path(path)[0] is None:
            return
        now_s = time.monotonic()
        self._thread = self._thread or threads.start("interfaces", self._learn_forever)
        with self._changed:
            for after_s in VISIT_DELAYS_S if path is not None else (0.0,):
                has_room = self._waiting_bytes + len(path or "") <= WAITING_BYTES_MAX
                if has_room and len(self._waiting) < WAITING_MAX:
                    heapq.heappush(self._waiting, (now_s + after_s, next(self._order), path))
                    self._waiting_bytes += len(path or "")
            self._changed.notify()

    def look_up(self, cookie: int, cgroup: str | None, inode: int, pids: Sequence[int]) -> list[Interface] | None:
        """The interfaces of a network namespace: read now where it can be entered, else as they were.

        ``cookie`` is the kernel's, 0 where it has none: then nothing that was read before counts.  Whoever is left in
        ``cgroup`` may lead into the namespace, too.
        """
        left = cgroupfs.first_process(self._mount, cgroup) if self._mount and cgroup is not None else None
        if left is not None:
            pids = [*pids, left]
        if not self._lock.acquire(timeout=LOCK_TIMEOUT_S):
            return None
        try:
            return self._namespaces.look_up(inode, pids, cookie)
        finally:
            self._lock.release()

    def _learn_forever(self) -> None:
        while True:
            path = self._next()
            for each in cgroupfs.list_cgroups() if path is None else (path,):
                if path is not None or parse_cgroup_path(each)[0] is not None:
                    with contextlib.suppress(Exception):  # whatever it is, the next one is visited
                        self._visit(each)

    def _next(self) -> str | None:
        with self._changed:
            while True:
                left_s = self._waiting[0][0] - time.monotonic() if self._waiting else None
                if left_s is not None and left_s <= 0:
                    path = heapq.heappop(self._waiting)[2]
                    self._waiting_bytes -= len(path or "")
                    return path
                self._changed.wait(left_s)

    def _visit(self, path: str) -> None:
        pid = cgroupfs.first_process(self._mount, path) if self._mount else None
        if pid is not None:
            with self._lock:
                self._namespaces.snapshot(pid)
