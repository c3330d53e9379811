# SPDX-License-Identifier: Apache-2.0
"""metadata_cache.py: a container's metadata, in time or not at all."""

import json
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tracer.identity import metadata_cache
from tracer.identity.metadata_cache import HUNG_READERS_MAX, TIMEOUT_S, MetadataCache
from tracer.identity.runtime_metadata import ContainerMetadata
from tracer.identity.runtimes import Runtimes
from tracer.linux import cgroupfs

ID = "5aaf9eb7648eeb1459d86eaa0ace8bcfa93089642e5c3113a14250dae3238aaf"
PAUSE = "f" * 64
UID = "6a4ce4a0-ba47-11ea-b2a7-0cc47ac5979e"


def create(tmp_path: Path, container_id: str = ID, name: str = "web") -> Path:
    """A container of Docker; returns its directory."""
    folder = tmp_path / f"docker/containers/{container_id}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.v2.json").write_text(json.dumps({"Name": f"/{name}", "Config": {"Image": "web:1"}}))
    return folder


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_fetch_metadata(runtimes: Runtimes, tmp_path: Path) -> None:
    """Metadata from the files; empty without files."""
    create(tmp_path)
    cache = MetadataCache(runtimes)
    assert cache.fetch_metadata(ID, "docker", None)["name"] == "web"
    assert cache.fetch_metadata(PAUSE, "docker", None) == {}


def test_outlives_its_files(runtimes: Runtimes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container whose cgroup was seen has metadata after its files are gone."""
    monkeypatch.setattr(metadata_cache, "FRESH_S", 0.0)
    monkeypatch.setattr(metadata_cache, "REREAD_FACTOR", 0)
    folder = create(tmp_path)
    cache = MetadataCache(runtimes)
    cache.prefetch(f"/docker/{ID}")
    wait_until(lambda: (ID, None) in cache._cache)
    shutil.rmtree(folder)
    assert cache.fetch_metadata(ID, "docker", None)["name"] == "web"


def test_renamed(runtimes: Runtimes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Current files replace cached metadata."""
    monkeypatch.setattr(metadata_cache, "FRESH_S", 0.0)
    monkeypatch.setattr(metadata_cache, "REREAD_FACTOR", 0)
    cache = MetadataCache(runtimes)
    for name in ("web", "shop"):
        create(tmp_path, name=name)
        assert cache.fetch_metadata(ID, None, None)["name"] == name


def test_pod_from_another_container(runtimes: Runtimes, tmp_path: Path) -> None:
    """The pause container has the pod of a container whose bundle was removed too early."""
    bundle = tmp_path / f"containerd/io.containerd.runtime.v2.task/k8s.io/{PAUSE}/config.json"
    bundle.parent.mkdir(parents=True)
    annotations = {"sandbox-id": PAUSE, "sandbox-name": "web-0", "sandbox-namespace": "shop", "sandbox-uid": UID}
    bundle.write_text(
        json.dumps({"annotations": {f"io.kubernetes.cri.{key}": value for key, value in annotations.items()}})
    )
    cache = MetadataCache(runtimes)
    cache.prefetch(f"/kubepods/burstable/pod{UID}/{PAUSE}")
    wait_until(lambda: UID in cache._pods)
    assert cache.fetch_metadata(ID, None, UID) == {"pod_name": "web-0", "namespace": "shop"}


def test_bounded(runtimes: Runtimes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache holds the last CACHED_MAX containers."""
    monkeypatch.setattr(metadata_cache, "CACHED_MAX", 3)
    cache = MetadataCache(runtimes)
    for number in range(5):
        container_id = f"{number:064x}"
        create(tmp_path, container_id)
        cache.fetch_metadata(container_id, "docker", None)
    assert [f"{number:064x}" for number in (2, 3, 4)] == [container_id for container_id, _ in cache._cache]


class Hanging(Runtimes):
    """Files on a file server that does not answer until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.server = threading.Event()

    def fetch_metadata(
        self, container_id: str, runtime: str | None, pod_uid: str | None, user: int | None = None
    ) -> ContainerMetadata:
        if container_id == ID:
            self.server.wait(30)
        return {"name": container_id}


def test_files_that_hang() -> None:
    """No request exceeds the timeout, others are answered meanwhile, and with too many hung readers none waits."""
    hanging = Hanging()
    cache = MetadataCache(hanging)
    try:
        for _ in range(HUNG_READERS_MAX):
            began = time.monotonic()
            assert cache.fetch_metadata(ID, None, None) == {}
            assert TIMEOUT_S <= time.monotonic() - began < 3 * TIMEOUT_S
            if cache._hung < HUNG_READERS_MAX:
                assert cache.fetch_metadata(PAUSE, None, None) == {"name": PAUSE}
                cache._cache.clear()
        assert cache.timeouts == HUNG_READERS_MAX
        began = time.monotonic()
        assert cache.fetch_metadata(ID, None, None) == {}
        assert time.monotonic() - began < TIMEOUT_S
        before = threading.active_count()
    finally:
        hanging.server.set()
    wait_until(lambda: cache._hung == 0)
    wait_until(lambda: threading.active_count() == before - HUNG_READERS_MAX)
    assert cache.fetch_metadata(ID, None, None) == {"name": ID}


class Failing(Runtimes):
    def fetch_metadata(
        self, container_id: str, runtime: str | None, pod_uid: str | None, user: int | None = None
    ) -> ContainerMetadata:
        raise MemoryError


def test_failure_is_counted() -> None:
    """An unexpected exception only costs the metadata."""
    failing = Failing()
    cache = MetadataCache(failing)
    for count in (1, 2):
        assert cache.fetch_metadata(ID, None, None) == {}
        assert (failing.errors, cache.timeouts) == (count, 0)


def test_a_storm_of_cgroups(runtimes: Runtimes, tmp_path: Path) -> None:
    """A victim's request comes before all queued cgroups."""
    create(tmp_path)
    cache = MetadataCache(runtimes)
    for number in range(20_000):
        cache.prefetch(f"/docker/{number:064x}")
    assert cache.fetch_metadata(ID, "docker", None)["name"] == "web"
    assert cache.timeouts == 0


def test_container_in_a_container(runtimes: Runtimes, tmp_path: Path) -> None:
    """Cgroups that a container creates cause no reads, and do not replace a cached container of that name."""
    create(tmp_path)
    cache = MetadataCache(runtimes)
    cache.prefetch(f"/docker/{PAUSE}/docker/{ID}")
    cache.prefetch(f"/docker/{ID}")
    wait_until(lambda: (ID, None) in cache._cache)
    before = cache._cache[ID, None]
    cache.prefetch(f"/docker/{PAUSE}/docker/{ID}")
    assert cache.fetch_metadata(PAUSE, "docker", None) == {}  # after the queue is empty
    assert cache._cache[ID, None] is before


def test_all_are_read_once(runtimes: Runtimes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeated requests for all cgroups queue one scan; a request during a scan queues another."""
    begun, go_on, runs = threading.Event(), threading.Event(), []

    def paths() -> Iterator[str]:
        runs.append(1)
        begun.set()
        go_on.wait(10)
        yield "/"

    monkeypatch.setattr(cgroupfs, "list_cgroups", paths)
    cache = MetadataCache(runtimes)
    cache.prefetch(None)
    assert begun.wait(10)
    for _ in range(100):
        cache.prefetch(None)
    go_on.set()
    assert cache.fetch_metadata(ID, None, None) == {}
    wait_until(lambda: len(runs) == 2)
    assert cache.fetch_metadata(PAUSE, None, None) == {}
    wait_until(lambda: not cache._paths and cache._rescan is None)
    assert len(runs) == 2


def test_what_waits_is_bounded(runtimes: Runtimes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cgroups with long paths do not fill the memory; a container that finds no room is read later."""
    monkeypatch.setattr(metadata_cache, "WAITING_BYTES_MAX", 100_000)
    create(tmp_path)
    begun, go_on = threading.Event(), threading.Event()

    class Waiting(Runtimes):
        def fetch_metadata(
            self, container_id: str, runtime: str | None, pod_uid: str | None, user: int | None = None
        ) -> ContainerMetadata:
            begun.set()
            go_on.wait(10)
            return runtimes.fetch_metadata(container_id, runtime, pod_uid)

    monkeypatch.setattr(cgroupfs, "list_cgroups", lambda: iter(["/", f"/docker/{ID}"]))
    cache = MetadataCache(Waiting())
    cache.prefetch(f"/docker/{PAUSE}")
    assert begun.wait(10)
    for number in range(1000):
        cache.prefetch(f"/{number:04}" + "/x" * 1500)
        assert cache._paths_bytes <= 100_000
    assert sum(map(len, cache._paths)) <= 100_000
    cache.prefetch(f"/docker/{ID}")
    go_on.set()
    wait_until(lambda: (ID, None) in cache._cache)


class HangingOnce(Runtimes):
    """A file server that answers every request except the first, like that of an abandoned directory."""

    def __init__(self) -> None:
        super().__init__()
        self.server, self.is_asked = threading.Event(), threading.Event()

    def fetch_metadata(
        self, container_id: str, runtime: str | None, pod_uid: str | None, user: int | None = None
    ) -> ContainerMetadata:
        if not self.is_asked.is_set():
            self.is_asked.set()
            self.server.wait(30)
        return {"name": container_id}


def test_who_takes_over_stays() -> None:
    """A reader that replaced a hung one answers the next requests, no matter how fast it is."""
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(10):
            hanging = HangingOnce()
            cache = MetadataCache(hanging)
            first = threading.Thread(target=cache.fetch_metadata, args=(ID, None, None))
            first.start()
            assert hanging.is_asked.wait(10)
            cache.prefetch(f"/docker/{PAUSE}")
            first.join()
            for number in range(3):
                container_id = f"{number:064x}"
                assert cache.fetch_metadata(container_id, None, None) == {"name": container_id}
            hanging.server.set()
            wait_until(lambda cache=cache: cache._hung == 0)  # type: ignore[misc]
    finally:
        sys.setswitchinterval(interval_s)
