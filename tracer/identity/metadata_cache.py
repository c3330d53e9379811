# SPDX-License-Identifier: Apache-2.0
"""Names of containers, remembered: a container's files are often gone before its victim's record is written.

A thread reads the files, so that one that hangs (a dead NFS server, a user's FUSE file system) holds no record up.  It
reads when a container's cgroup appears, for all that are there at the start, and again for a victim.
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
"""Containers that are remembered: those that were seen last."""
WAITING_BYTES_MAX = 4 << 20
"""Of the paths that wait to be read."""
_PATH_BYTES = 100
"""What one takes beside its characters."""
FRESH_S = 2.0
"""For so long what was read is taken for what the files say; Docker, for one, allows containers to be renamed."""
TIMEOUT_S = 0.3
"""How long a record waits for names at most."""
REREAD_FACTOR = 50
"""A container whose files take long to read is read again after so many times as long: 2 % of the time are its."""
RETRY_AFTER_S = 1.0
"""So long nothing is asked after a reader took too long and there can be no other."""
HUNG_READERS_MAX = 4
"""Readers that hang; when there are so many, names are no longer looked up."""


class MetadataRequest:
    """What somebody waits for."""

    def __init__(self, container_id: str, runtime: str | None, pod_uid: str | None, user: int | None = None) -> None:
        self.container_id = container_id
        self.runtime = runtime
        self.pod_uid = pod_uid
        self.user = user
        """Whose container it is; None: the host's."""
        self.state: ContainerState | None = None
        """Where that is asked for: what the runtime says of the end of this container."""
        self.took_s = 0.0
        self.answered = threading.Event()


class _Kept(NamedTuple):
    fresh_until_s: float
    """Monotonic time."""
    facts: str
    """As JSON: a tenth of the memory that the same takes as objects.  Bytes would keep the larger buffer of orjson."""


class MetadataCache:
    """Answers within DEADLINE_S, from memory where nothing else is left."""

    def __init__(self, runtimes: Runtimes) -> None:
        self._runtimes = runtimes
        self._kept: OrderedDict[tuple[str, int | None], _Kept] = OrderedDict()
        """By id and user: two runtimes may have the same id, and each speaks for its own containers."""
        self._pods: OrderedDict[str, str] = OrderedDict()
        """Pod uid -> what its containers tell of the pod; the pause container is there first."""
        self._news = threading.Condition()
        """Guards what waits: names that a record waits for come first, then verdicts, then what nobody waits for."""
        self._questions: deque[MetadataRequest] = deque()
        self._verdicts: deque[MetadataRequest] = deque()
        self._paths: deque[str] = deque()
        self._paths_bytes = 0
        self._all_wait = False
        """Whether all cgroups are to be read: somebody who makes them at any rate makes this be asked again."""
        self._all: Iterator[str] | None = None
        """Those that are left of all cgroups."""
        self._busy_since_s: float | None = None
        self._reader: threading.Thread | None = None
        self._hung = 0
        self._not_before_s = 0.0
        self.timeouts = 0
        """Records that did not wait for an answer any longer."""
        self._start_reader()

    def prefetch(self, path: str | None) -> None:
        """A cgroup is there, or None for all that are: read what it is, soon."""
        with self._news:
            if path is not None and self._paths_bytes + len(path) + _PATH_BYTES <= WAITING_BYTES_MAX:
                self._paths.append(path)
                self._paths_bytes += len(path) + _PATH_BYTES
            else:  # there is no room: once those that wait are read, all that are there then
                self._all_wait = True
            self._news.notify()

    def fetch_metadata(
        self, container_id: str, runtime: str | None, pod_uid: str | None, user: int | None = None
    ) -> ContainerMetadata:
        """What is known of a container, of a user's if there is one; empty where nothing is."""
        kept = self._kept.get((container_id, user))
        if kept is None or time.monotonic() > kept.fresh_until_s:
            self._ask(MetadataRequest(container_id, runtime, pod_uid, user))
            kept = self._kept.get((container_id, user))
        found: ContainerMetadata = orjson.loads(kept.facts) if kept else {}
        pod = self._pods.get(pod_uid) if pod_uid is not None and user is None else None
        return found if pod is None else {**orjson.loads(pod), **found}

    def request_state(self, container_id: str, runtime: str, user: int | None = None) -> MetadataRequest:
        """Have the runtime's files read; nobody waits.

        ``answered`` is set when that is done, and ``verdict`` then tells what the runtime says of the container's end,
        or None.
        """
        question = MetadataRequest(container_id, runtime, None, user)
        with self._news:
            self._verdicts.append(question)
            self._news.notify()
        self._replace_hung_reader()
        return question

    def _ask(self, question: MetadataRequest) -> None:
        if self._hung >= HUNG_READERS_MAX or time.monotonic() < self._not_before_s:
            return
        if self._reader is None and not self._start_reader():
            return
        with self._news:
            self._questions.append(question)
            self._news.notify()
        if not question.answered.wait(TIMEOUT_S):
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
        """The one that hangs goes on to be the reader where there can be no other."""
        with self._news:
            is_replaced = self._start_reader()
            self._hung += is_replaced
        self._not_before_s = 0.0 if is_replaced else time.monotonic() + RETRY_AFTER_S

    def _start_reader(self) -> bool:
        with self._news:  # for which it waits: it may not be through with its first question before it is known here
            began = threads.start("names", self._read_forever)
            if began is None:
                return False
            self._reader, self._busy_since_s = began, None
        return True

    def _read_forever(self) -> None:
        while True:
            read = self._next()
            try:
                read()
            except Exception as error:  # whatever is in those files, the next container is read
                self._runtimes.count_error(repr(error))
            with self._news:
                if threading.current_thread() is not self._reader:  # it took too long, and another one took over
                    self._hung -= 1
                    return
                self._busy_since_s = None

    def _next(self) -> Callable[[], object]:
        """What is to be done next, once there is anything."""
        with self._news:
            self._news.wait_for(lambda: self._questions or self._verdicts or self._paths or self._all or self._all_wait)
            self._busy_since_s = time.monotonic()
            if self._questions:
                return partial(self._answer, self._questions.popleft(), self._read)
            if self._verdicts:
                return partial(self._answer, self._verdicts.popleft(), self._judge)
            if self._paths:
                path = self._paths.popleft()
                self._paths_bytes -= len(path) + _PATH_BYTES
                return partial(self._read_cgroup, path)
            if self._all is None:
                self._all, self._all_wait = cgroupfs.list_cgroups(), False  # those made from here on may be missed
            return partial(self._read_one_of, self._all)

    def _read_one_of(self, paths: Iterator[str]) -> None:
        path = None
        try:
            path = next(paths, None)
        finally:
            if path is None and self._all is paths:
                self._all = None
        if path is not None:
            self._read_cgroup(path)

    def _read_cgroup(self, path: str) -> None:
        shown = cgroup_path.parse_cgroup_path(path)
        owner = owner_of(shown._asdict())
        container, user = owner.container or shown.container, user_manager_uid(owner)
        # What is made inside of a container is called as that container likes, and as often as it likes.
        if container is not None and (shown.owner is None or user is not None):
            pod_uid = owner.kubernetes["pod_uid"] if owner.kubernetes else None
            self._read(MetadataRequest(container["id"], container["runtime"], pod_uid, user))

    def _answer(self, question: MetadataRequest, read: Callable[[MetadataRequest], None]) -> None:
        began_s = time.monotonic()
        try:
            read(question)
        finally:
            question.took_s = time.monotonic() - began_s
            question.answered.set()

    def _judge(self, question: MetadataRequest) -> None:
        if question.runtime is not None:
            question.state = self._runtimes.fetch_state(question.container_id, question.runtime, question.user)

    def _read(self, question: MetadataRequest) -> None:
        began_s = time.monotonic()
        found = self._runtimes.fetch_metadata(question.container_id, question.runtime, question.pod_uid, question.user)
        if found:
            now_s = time.monotonic()
            fresh_until_s = now_s + max(FRESH_S, REREAD_FACTOR * (now_s - began_s))
            _keep(
                self._kept, (question.container_id, question.user), _Kept(fresh_until_s, orjson.dumps(found).decode())
            )
        if question.pod_uid is not None and question.user is None and "pod_name" in found:
            pod = {key: value for key, value in found.items() if key in ("pod_name", "namespace")}
            _keep(self._pods, question.pod_uid, orjson.dumps(pod).decode())


def _keep(kept: OrderedDict[_Key, _Value], key: _Key, value: _Value) -> None:
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > CACHED_MAX:
        kept.popitem(last=False)
