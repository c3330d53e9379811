# SPDX-License-Identifier: Apache-2.0
"""Names of containers, remembered: a container's files are often gone before its victim's record is written.

A thread reads the files, so that one that hangs (a dead NFS server, a user's FUSE file system) holds no record up.  It
reads when a container's cgroup appears, for all that are there at the start, and again for a victim.
"""

import threading
import time
from collections import OrderedDict, deque
from typing import NamedTuple, TypeVar

import orjson

from tracer import cgroup, cgroupfs, threads
from tracer.facts import Facts, Verdict
from tracer.runtimes import Runtimes

_Value = TypeVar("_Value")

KEPT_MAX = 4096
"""Containers that are remembered: those that were seen last."""
WAITING_MAX = 65536
FRESH_S = 2.0
"""For so long what was read is taken for what the files say; Docker, for one, allows containers to be renamed."""
DEADLINE_S = 0.3
"""How long a record waits for names at most."""
PAUSE_S = 1.0
"""So long nothing is asked after a reader took too long and there can be no other."""
HUNG_MAX = 4
"""Readers that hang; when there are so many, names are no longer looked up."""


class _Question:
    """What somebody waits for."""

    def __init__(self, container_id: str, runtime: str | None, pod_uid: str | None, verdict: bool) -> None:
        self.container_id = container_id
        self.runtime = runtime
        self.pod_uid = pod_uid
        self.wants_verdict = verdict
        self.verdict: Verdict | None = None
        self.answered = threading.Event()


class _Kept(NamedTuple):
    read_s: float
    """Monotonic time."""
    facts: str
    """As JSON: a tenth of the memory that the same takes as objects.  Bytes would keep the larger buffer of orjson."""


class Names:
    """Answers within DEADLINE_S, from memory where nothing else is left."""

    def __init__(self, runtimes: Runtimes) -> None:
        self._runtimes = runtimes
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._pods: OrderedDict[str, str] = OrderedDict()
        """Pod uid -> what its containers tell of the pod; the pause container is there first."""
        self._waiting: deque[str | _Question | None] = deque()
        """A cgroup's path, a question, or None: all cgroups."""
        self._all_wait = False
        """Whether all cgroups are to be read already: somebody who makes them at any rate makes this be asked again."""
        self._work = threading.Semaphore(0)
        self._reader: threading.Thread | None = None
        self._hung = 0
        self._not_before_s = 0.0
        self.timeouts = 0
        """Records that did not wait for an answer any longer."""
        self._start_reader()

    def expect(self, path: str | None) -> None:
        """A cgroup is there, or None for all that are: read what it is, soon."""
        if path is None and self._all_wait:
            return
        if len(self._waiting) < WAITING_MAX:
            self._all_wait = self._all_wait or path is None
            self._waiting.append(path)
            self._work.release()

    def find(self, container_id: str, runtime: str | None, pod_uid: str | None) -> Facts:
        """What is known of a container; empty where nothing is."""
        kept = self._kept.get(container_id)
        if kept is None or time.monotonic() - kept.read_s > FRESH_S:
            self._ask(_Question(container_id, runtime, pod_uid, verdict=False))
            kept = self._kept.get(container_id)
        found: Facts = orjson.loads(kept.facts) if kept else {}
        pod = self._pods.get(pod_uid) if pod_uid is not None else None
        return found if pod is None else {**orjson.loads(pod), **found}

    def verdict(self, container_id: str, runtime: str) -> Verdict | None:
        """What the runtime says of the end of this container; None where it does not tell, or not in time."""
        question = _Question(container_id, runtime, None, verdict=True)
        self._ask(question)
        return question.verdict

    def _ask(self, question: _Question) -> None:
        if self._hung >= HUNG_MAX or time.monotonic() < self._not_before_s:
            return
        if self._reader is None and not self._start_reader():
            return
        self._waiting.appendleft(question)  # before all that nobody waits for
        self._work.release()
        if not question.answered.wait(DEADLINE_S):
            self.timeouts += 1
            is_replaced = self._start_reader()
            self._hung += is_replaced
            self._not_before_s = 0.0 if is_replaced else time.monotonic() + PAUSE_S

    def _start_reader(self) -> bool:
        """The one that hangs goes on to be the reader where there can be no other."""
        began = threads.start("names", self._read_forever)
        if began is None:
            return False
        self._reader = began
        return True

    def _read_forever(self) -> None:
        while True:
            self._work.acquire()
            wanted = self._waiting.popleft()
            try:
                self._answer(wanted)
            except Exception as error:  # whatever is in those files, the next container is read
                self._runtimes.note(repr(error))
            if isinstance(wanted, _Question):
                wanted.answered.set()
            if threading.current_thread() is not self._reader:  # it took too long, and another one took over
                self._hung -= 1
                return

    def _answer(self, wanted: str | _Question | None) -> None:
        if wanted is None:
            self._all_wait = False  # those made from here on may be missed
            for path in cgroupfs.paths():
                self.expect(path)
        elif isinstance(wanted, str):
            container, kubernetes, _ = cgroup.identify(wanted)
            if container is not None and container["node_container_id"] is None:
                self._read(container["id"], container["runtime"], kubernetes["pod_uid"] if kubernetes else None)
        else:
            if wanted.wants_verdict and wanted.runtime is not None:
                wanted.verdict = self._runtimes.verdict(wanted.container_id, wanted.runtime)
            elif not wanted.wants_verdict:
                self._read(wanted.container_id, wanted.runtime, wanted.pod_uid)

    def _read(self, container_id: str, runtime: str | None, pod_uid: str | None) -> None:
        found = self._runtimes.find(container_id, runtime, pod_uid)
        if found:
            _keep(self._kept, container_id, _Kept(time.monotonic(), orjson.dumps(found).decode()))
        if pod_uid is not None and "pod_name" in found:
            pod = {key: value for key, value in found.items() if key in ("pod_name", "namespace")}
            _keep(self._pods, pod_uid, orjson.dumps(pod).decode())


def _keep(kept: OrderedDict[str, _Value], key: str, value: _Value) -> None:
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > KEPT_MAX:
        kept.popitem(last=False)
