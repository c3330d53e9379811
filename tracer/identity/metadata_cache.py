# SPDX-License-Identifier: Apache-2.0
"""Caches containers' metadata: the runtime often removes its files before the victim's record is written.

A thread reads the files, so that a hung file system (a dead NFS server, a user's FUSE) delays no record.  It reads them
when a container's cgroup is created, for all existing cgroups at the start, and again for each victim.
"""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple, TypeVar

import orjson

from tracer.base import threads
from tracer.identity import cgroup_path
from tracer.identity.runtime_metadata import ContainerMetadata, ContainerState
from tracer.identity.runtimes import Runtimes
from tracer.linux import cgroupfs
from tracer.records.owner import owner_of, user_manager_uid

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

CACHED_MAX = 4096
"""Maximum number of cached containers; the least recently read are dropped."""
WAITING_BYTES_MAX = 4 << 20
"""Maximum memory of the queued cgroup paths."""
_PATH_BYTES = 100
"""Memory of a path in addition to its characters."""
FRESH_S = 2.0
"""Metadata that was read within this time is not read again; later it is, because a container may be renamed."""
TIMEOUT_S = 0.3
"""Maximum time that a record waits for metadata."""
REREAD_FACTOR = 50
"""Metadata is also fresh for this multiple of the time that its read took, so that a slow container takes at most 2 %
of the time."""
RETRY_AFTER_S = 1.0
"""Pause in requests after a reader thread hung and could not be replaced."""
HUNG_READERS_MAX = 4
"""Maximum number of hung reader threads; then no metadata is read."""


class MetadataRequest:
    """A request for the reader thread, and its result."""

    def __init__(self, container_id: str, runtime: str | None, pod_uid: str | None, user: int | None = None) -> None:
        self.container_id = container_id
        self.runtime = runtime
        self.pod_uid = pod_uid
        self.user = user
        """Uid of the user that owns the container; None: it is the host's."""
        self.state: ContainerState | None = None
        """The container's state, for a request by ``request_state``."""
        self.took_s = 0.0
        self.answered = threading.Event()


class _CachedMetadata(NamedTuple):
    fresh_until_s: float
    """CLOCK_MONOTONIC."""
    metadata_json: str
    """A tenth of the memory that the objects take.  As bytes it would keep orjson's larger buffer."""


class MetadataCache:
    """Returns metadata within TIMEOUT_S, from the cache if the files are gone."""

    def __init__(self, runtimes: Runtimes) -> None:
        self._runtimes = runtimes
        self._cache: OrderedDict[tuple[str, int | None], _CachedMetadata] = OrderedDict()
        """By id and user: containers of different users may have the same id."""
        self._pods: OrderedDict[str, str] = OrderedDict()
        """Pod name and namespace as JSON, by pod uid, from any of its containers; the pause container is the first."""
        self._changed = threading.Condition()
        """Guards the queues, in order of priority: requests of waiting records, state requests, cgroups to prefetch."""
        self._requests: deque[MetadataRequest] = deque()
        self._state_requests: deque[MetadataRequest] = deque()
        self._paths: deque[str] = deque()
        self._paths_bytes = 0
        self._is_rescan_needed = False
        """Whether to read all cgroups: their paths found no room in the queue."""
        self._rescan: Iterator[str] | None = None
        """The rest of all cgroups, while these are read."""
        self._busy_since_s: float | None = None
        self._reader: threading.Thread | None = None
        self._hung = 0
        self._not_before_s = 0.0
        self.timeouts = 0
        """Number of requests that timed out."""
        self._start_reader()

    def prefetch(self, path: str | None) -> None:
        """Queue the metadata of a cgroup's container for reading; None: of all existing cgroups."""
        with self._changed:
            if path is not None and self._paths_bytes + len(path) + _PATH_BYTES <= WAITING_BYTES_MAX:
                self._paths.append(path)
                self._paths_bytes += len(path) + _PATH_BYTES
            else:  # no room: once the queue is empty, all existing cgroups are read
                self._is_rescan_needed = True
            self._changed.notify()

    def fetch_metadata(
        self, container_id: str, runtime: str | None, pod_uid: str | None, user: int | None = None
    ) -> ContainerMetadata:
        """Metadata of a container; empty: unknown.  ``user``: uid of the user that owns the container, or None."""
        cached = self._cache.get((container_id, user))
        if cached is None or time.monotonic() > cached.fresh_until_s:
            self._ask(MetadataRequest(container_id, runtime, pod_uid, user))
            cached = self._cache.get((container_id, user))
        metadata: ContainerMetadata = orjson.loads(cached.metadata_json) if cached else {}
        pod = self._pods.get(pod_uid) if pod_uid is not None and user is None else None
        return metadata if pod is None else {**orjson.loads(pod), **metadata}

    def request_state(self, container_id: str, runtime: str, user: int | None = None) -> MetadataRequest:
        """Queue a read of the container's state, and return at once.

        The result is in ``state`` (None: unknown) once ``answered`` is set.
        """
        request = MetadataRequest(container_id, runtime, None, user)
        with self._changed:
            self._state_requests.append(request)
            self._changed.notify()
        self._replace_hung_reader()
        return request

    def _ask(self, request: MetadataRequest) -> None:
        if self._hung >= HUNG_READERS_MAX or time.monotonic() < self._not_before_s:
            return
        if self._reader is None and not self._start_reader():
            return
        with self._changed:
            self._requests.append(request)
            self._changed.notify()
        if not request.answered.wait(TIMEOUT_S):
            self.timeouts += 1
            self._replace_reader()

    def _replace_hung_reader(self) -> None:
        busy_since_s = self._busy_since_s
        if self._reader is None:
            self._start_reader()
        elif busy_since_s is not None and time.monotonic() - busy_since_s > TIMEOUT_S and self._hung < HUNG_READERS_MAX:
            self.timeouts += 1
            self._replace_reader()

    def _replace_reader(self) -> None:
        """Start another reader thread; if that fails, the hung one remains the reader."""
        with self._changed:
            is_replaced = self._start_reader()
            self._hung += is_replaced
        self._not_before_s = 0.0 if is_replaced else time.monotonic() + RETRY_AFTER_S

    def _start_reader(self) -> bool:
        with self._changed:  # the new thread must not complete a request before self._reader is set
            thread = threads.start("names", self._read_forever)
            if thread is None:
                return False
            self._reader, self._busy_since_s = thread, None
        return True

    def _read_forever(self) -> None:
        while True:
            read = self._next()
            try:
                read()
            except Exception as error:  # the thread must survive any file contents
                self._runtimes.count_error(repr(error))
            with self._changed:
                if threading.current_thread() is not self._reader:  # it hung, and was replaced
                    self._hung -= 1
                    return
                self._busy_since_s = None

    def _next(self) -> Callable[[], object]:
        """Wait for the next job, by priority."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._requests or self._state_requests or self._paths or self._rescan or self._is_rescan_needed
            )
            self._busy_since_s = time.monotonic()
            if self._requests:
                return partial(self._answer, self._requests.popleft(), self._read)
            if self._state_requests:
                return partial(self._answer, self._state_requests.popleft(), self._read_state)
            if self._paths:
                path = self._paths.popleft()
                self._paths_bytes -= len(path) + _PATH_BYTES
                return partial(self._read_cgroup, path)
            if self._rescan is None:
                self._rescan, self._is_rescan_needed = cgroupfs.list_cgroups(), False  # may miss later cgroups
            return partial(self._read_one_of, self._rescan)

    def _read_one_of(self, paths: Iterator[str]) -> None:
        path = None
        try:
            path = next(paths, None)
        finally:
            if path is None and self._rescan is paths:
                self._rescan = None
        if path is not None:
            self._read_cgroup(path)

    def _read_cgroup(self, path: str) -> None:
        identity = cgroup_path.parse_cgroup_path(path)
        owner = owner_of(identity._asdict())
        container, user = owner.container or identity.container, user_manager_uid(owner)
        # A container may create any number of cgroups inside, with any names.
        if container is not None and (identity.owner is None or user is not None):
            pod_uid = owner.kubernetes["pod_uid"] if owner.kubernetes else None
            self._read(MetadataRequest(container["id"], container["runtime"], pod_uid, user))

    def _answer(self, request: MetadataRequest, read: Callable[[MetadataRequest], None]) -> None:
        start_s = time.monotonic()
        try:
            read(request)
        finally:
            request.took_s = time.monotonic() - start_s
            request.answered.set()

    def _read_state(self, request: MetadataRequest) -> None:
        if request.runtime is not None:
            request.state = self._runtimes.fetch_state(request.container_id, request.runtime, request.user)

    def _read(self, request: MetadataRequest) -> None:
        start_s = time.monotonic()
        metadata = self._runtimes.fetch_metadata(request.container_id, request.runtime, request.pod_uid, request.user)
        if metadata:
            now_s = time.monotonic()
            fresh_until_s = now_s + max(FRESH_S, REREAD_FACTOR * (now_s - start_s))
            _store(
                self._cache,
                (request.container_id, request.user),
                _CachedMetadata(fresh_until_s, orjson.dumps(metadata).decode()),
            )
        if request.pod_uid is not None and request.user is None and "pod_name" in metadata:
            pod = {key: value for key, value in metadata.items() if key in ("pod_name", "namespace")}
            _store(self._pods, request.pod_uid, orjson.dumps(pod).decode())


def _store(cached: OrderedDict[_Key, _Value], key: _Key, value: _Value) -> None:
    cached[key] = value
    cached.move_to_end(key)
    if len(cached) > CACHED_MAX:
        cached.popitem(last=False)
