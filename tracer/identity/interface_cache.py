# SPDX-License-Identifier: Apache-2.0
"""Caches the network interfaces of containers: a container's network namespace ends with its init.

A thread reads them when a container's cgroup is created, again while its network is set up, and for all existing
containers at the start.
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
"""Times of the reads after the creation of a cgroup: processes follow it, and addresses follow these."""
WAITING_MAX = 16384
"""Maximum number of queued reads."""
WAITING_BYTES_MAX = 4 << 20
"""Maximum memory of the queued paths.  Containers that find no room are read only when they have a victim."""
LOCK_TIMEOUT_S = 0.3
"""Maximum time that a record waits for the end of another read."""


class InterfaceCache:
    """``read`` does what ``namespaces.read`` does, with a timeout."""

    def __init__(self, namespaces: NetworkNamespaces, read: ReadNamespace) -> None:
        self._namespaces = namespaces
        namespaces.read_remotely = read
        self._lock = threading.Lock()
        self._mount = cgroupfs.find_mount()
        self._order = itertools.count()
        self._waiting: list[tuple[float, int, str | None]] = []
        """Heap of (CLOCK_MONOTONIC in s, order, cgroup or None for all)."""
        self._waiting_bytes = 0
        self._changed = threading.Condition()
        self._thread = threads.start("interfaces", self._read_forever)

    def prefetch(self, path: str | None) -> None:
        """Queue reads of the interfaces of a cgroup's container, at VISIT_DELAYS_S; None: of all containers, now."""
        if path is not None and parse_cgroup_path(path).container is None:
            return
        now_s = time.monotonic()
        self._thread = self._thread or threads.start("interfaces", self._read_forever)
        with self._changed:
            for after_s in VISIT_DELAYS_S if path is not None else (0.0,):
                has_room = self._waiting_bytes + len(path or "") <= WAITING_BYTES_MAX
                if has_room and len(self._waiting) < WAITING_MAX:
                    heapq.heappush(self._waiting, (now_s + after_s, next(self._order), path))
                    self._waiting_bytes += len(path or "")
            self._changed.notify()

    def look_up(self, cookie: int, cgroup: str | None, inode: int, pids: Sequence[int]) -> list[Interface] | None:
        """The interfaces of a network namespace, read now or, if that fails, from the cache; None: unknown.

        ``cookie``: the kernel's cookie of the namespace; 0: it has none, and the cache is not used.  The namespace is
        entered through one of ``pids``, or through a remaining process of ``cgroup``.
        """
        remaining = cgroupfs.first_process(self._mount, cgroup) if self._mount and cgroup is not None else None
        if remaining is not None:
            pids = [*pids, remaining]
        if not self._lock.acquire(timeout=LOCK_TIMEOUT_S):
            return None
        try:
            return self._namespaces.look_up(inode, pids, cookie)
        finally:
            self._lock.release()

    def _read_forever(self) -> None:
        while True:
            path = self._next()
            for each in cgroupfs.list_cgroups() if path is None else (path,):
                if path is not None or parse_cgroup_path(each).container is not None:
                    with contextlib.suppress(Exception):  # the thread must survive any error
                        self._visit(each)

    def _next(self) -> str | None:
        with self._changed:
            while True:
                wait_s = self._waiting[0][0] - time.monotonic() if self._waiting else None
                if wait_s is not None and wait_s <= 0:
                    path = heapq.heappop(self._waiting)[2]
                    self._waiting_bytes -= len(path or "")
                    return path
                self._changed.wait(wait_s)

    def _visit(self, path: str) -> None:
        pid = cgroupfs.first_process(self._mount, path) if self._mount else None
        if pid is not None:
            with self._lock:
                self._namespaces.snapshot(pid)
