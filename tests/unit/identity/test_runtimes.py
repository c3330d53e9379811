# SPDX-License-Identifier: Apache-2.0
"""runtimes.py and its runtimes: metadata from their files, also from hostile ones."""

import contextlib
import errno
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.harness import bolt_file
from tests.harness.bolt_file import Tree
from tests.harness.environment import attempts, require
from tests.unit.commands.test_cli import oomtrace
from tracer.base.errors import TracerError
from tracer.identity.runtime_metadata import LABELS_MAX_BYTES, TEXT_MAX, parse_json_object
from tracer.identity.runtimes import Runtimes, parse_runtime_root
from tracer.linux.safe_files import UnreadableError

ID = "5aaf9eb7648eeb1459d86eaa0ace8bcfa93089642e5c3113a14250dae3238aaf"
UID = "6a4ce4a0-ba47-11ea-b2a7-0cc47ac5979e"
POD = {
    "io.kubernetes.pod.name": "web-0",
    "io.kubernetes.pod.namespace": "shop",
    "io.kubernetes.pod.uid": UID,
    "io.kubernetes.container.name": "app",
}
DOCKER = f"docker/containers/{ID}/config.v2.json"
BUNDLE = f"containerd/io.containerd.runtime.v2.task/k8s.io/{ID}/config.json"
STATUS = f"containerd-root/io.containerd.grpc.v1.cri/containers/{ID}/status"
META = "containerd-root/io.containerd.metadata.v1.bolt/meta.db"
BOLT_STATE = "containers-storage/libpod/bolt_state.db"
USERDATA = f"containers-storage/overlay-containers/{ID}/userdata"


def write(tmp_path: Path, name: str, content: Any) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def docker(**state: Any) -> dict[str, Any]:
    labels = {"com.example.team": "a", **POD}
    return {"Name": "/web", "Config": {"Image": "shop/web:1", "Labels": labels}, "State": state}


@pytest.mark.parametrize("runtime", ["docker", None])
def test_docker(runtime: str | None, runtimes: Runtimes, tmp_path: Path) -> None:
    """Name without its slash, image, labels; the pod if the kubelet used Docker."""
    write(tmp_path, DOCKER, docker())
    found = runtimes.fetch_metadata(ID, runtime, None)
    assert (found["runtime"], found["name"], found["image"]) == ("docker", "web", "shop/web:1")
    assert found["labels"] == {"com.example.team": "a", **POD}
    assert (found["pod_name"], found["namespace"], found["pod_uid"], found["container_name"]) == tuple(POD.values())
    assert runtimes.fetch_metadata(ID, "podman", None) == {}


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"Running": True, "OOMKilled": True, "ExitCode": 0}, (True, True, None)),
        ({"Running": False, "OOMKilled": False, "ExitCode": 137}, (False, False, 137)),
        ({"Running": False, "OOMKilled": "yes", "ExitCode": "137"}, (False, None, None)),
        ({}, (False, None, None)),
    ],
)
def test_docker_verdict(
    state: dict[str, Any], expected: tuple[bool, bool | None, int | None], runtimes: Runtimes, tmp_path: Path
) -> None:
    """The state that Docker wrote; a running container has no exit code."""
    write(tmp_path, DOCKER, docker(**state))
    verdict = runtimes.fetch_state(ID, "docker")
    assert verdict is not None
    assert (verdict["running"], verdict["oom_killed"], verdict["exit_code"]) == expected


def test_cri(runtimes: Runtimes, tmp_path: Path) -> None:
    """The CRI plugin's annotations; a bundle of Docker is ignored."""
    annotations = {
        "io.kubernetes.cri.container-name": "app",
        "io.kubernetes.cri.image-name": "docker.io/shop/web:1",
        "io.kubernetes.cri.sandbox-id": "f" * 64,
        "io.kubernetes.cri.sandbox-name": "web-0",
        "io.kubernetes.cri.sandbox-namespace": "shop",
        "io.kubernetes.cri.sandbox-uid": UID,
    }
    write(tmp_path, BUNDLE.replace("k8s.io", "moby"), {"annotations": annotations})
    assert runtimes.fetch_metadata(ID, None, None) == {}
    write(tmp_path, BUNDLE, {"annotations": annotations})
    assert runtimes.fetch_metadata(ID, None, UID) == {
        "runtime": "containerd",
        "name": "app",
        "image": "docker.io/shop/web:1",
        "pod_name": "web-0",
        "namespace": "shop",
        "pod_uid": UID,
        "container_name": "app",
    }


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"FinishedAt": 0, "Reason": "", "ExitCode": 0}, (True, None, None)),
        ({"FinishedAt": 0, "Reason": "OOMKilled"}, (True, True, None)),
        ({"FinishedAt": 17, "Reason": "OOMKilled", "ExitCode": 0}, (False, True, 0)),
        ({"FinishedAt": 17, "Reason": "Error", "ExitCode": 137}, (False, False, 137)),
    ],
)
def test_cri_verdict(
    status: dict[str, Any], expected: tuple[bool, bool | None, int | None], runtimes: Runtimes, tmp_path: Path
) -> None:
    """The reason that the CRI plugin reports to the kubelet."""
    write(tmp_path, STATUS, status)
    verdict = runtimes.fetch_state(ID, "containerd")
    assert verdict is not None
    assert (verdict["running"], verdict["oom_killed"], verdict["exit_code"]) == expected
    assert verdict.get("finished_at") == (status["FinishedAt"] or None)


def any_message(kind: bytes, value: bytes) -> bytes:
    """A protobuf Any."""
    return b"".join(
        bytes([tag, 0x80 | len(part) & 0x7F, len(part) >> 7]) + part for tag, part in ((10, kind), (18, value))
    )


def cri_container(labels: dict[str, str]) -> Tree:
    """What the CRI plugin puts into containerd's database; the image's labels are among the container's."""
    config = {
        "metadata": {"name": "app"},
        "image": {"image": "sha256:5"},
        "labels": labels,
        "envs": [{"key": "A"}] * 20,
    }
    metadata = json.dumps({"Version": "v1", "Metadata": {"ID": ID, "Config": config}}).encode()
    extension = any_message(b"github.com/containerd/cri/pkg/store/container/Metadata", metadata)
    return {
        b"createdat": b"1",
        b"image": b"docker.io/shop/web:1",
        b"labels": {b"io.cri-containerd.kind": b"container", b"of.the.image": b"x", b"app": b"web"},
        b"extensions": {b"io.cri-containerd.container.metadata": extension},
    }


def test_cri_database(runtimes: Runtimes, tmp_path: Path) -> None:
    """The labels are the pod author's, without the image's; the bundle has precedence."""
    labels = {"app": "web", **POD}
    tree: Tree = {b"v1": {b"version": b"5", b"k8s.io": {b"containers": {ID.encode(): cri_container(labels)}}}}
    bolt_file.write(tmp_path / META, tree)
    expected = {
        "runtime": "containerd",
        "name": "app",
        "image": "docker.io/shop/web:1",
        "labels": labels,
        "pod_name": "web-0",
        "namespace": "shop",
        "pod_uid": UID,
        "container_name": "app",
    }
    assert expected == runtimes.fetch_metadata(ID, None, UID)
    annotations = {"io.kubernetes.cri.sandbox-id": "f" * 64, "io.kubernetes.cri.image-name": "docker.io/shop/web:2"}
    write(tmp_path, BUNDLE, {"annotations": annotations})
    assert {**expected, "image": "docker.io/shop/web:2"} == runtimes.fetch_metadata(ID, "containerd", UID)


@pytest.mark.parametrize(
    "extension", [b"", b"\x12", b"\x12\xff", b"\x12\x05{", b"\xff" * 20, b"\x0a\x7f", b"\x12\x02[]"]
)
def test_cri_extension_is_damaged(extension: bytes, runtimes: Runtimes, tmp_path: Path) -> None:
    """A damaged database is counted, and only its metadata is missing."""
    container = cri_container({}) | {b"extensions": {b"io.cri-containerd.container.metadata": extension}}
    bolt_file.write(tmp_path / META, {b"v1": {b"k8s.io": {b"containers": {ID.encode(): container}}}})
    assert runtimes.fetch_metadata(ID, "containerd", None) == {}
    assert runtimes.errors == 1


def test_pause_container(runtimes: Runtimes, tmp_path: Path) -> None:
    """The pause container has only a bundle, and no name."""
    container: Tree = {b"image": b"pause:3", b"extensions": {b"io.cri-containerd.sandbox.metadata": b""}}
    bolt_file.write(tmp_path / META, {b"v1": {b"k8s.io": {b"containers": {ID.encode(): container}}}})
    assert runtimes.fetch_metadata(ID, "containerd", None) == {}
    write(tmp_path, BUNDLE, {"annotations": {"io.kubernetes.cri.sandbox-id": ID}})
    assert runtimes.fetch_metadata(ID, "containerd", None) == {"runtime": "containerd"}


def test_ctr(runtimes: Runtimes, tmp_path: Path) -> None:
    """ctr's containers have a name and namespace of the user's choice; the database has image and labels."""
    write(tmp_path, "containerd/io.containerd.runtime.v2.task/default/mine/config.json", {"annotations": {"a": "b"}})
    assert runtimes.fetch_metadata("mine", "containerd", None) == {"runtime": "containerd", "name": "mine"}
    container: Tree = {b"image": b"docker.io/shop/web:1", b"labels": {b"a": b"b", b"of.the.image": b"x"}}
    found = {
        "runtime": "containerd",
        "name": "mine",
        "image": "docker.io/shop/web:1",
        "labels": {"a": "b", "of.the.image": "x"},
    }
    other: Tree = {b"containers": {b"other": container}}
    moby: Tree = {b"containers": {b"mine": {b"image": b"of Docker"}}}
    spaces: Tree = {b"default": {b"containers": {b"mine": container}}, b"moby": moby, b"new": {}, b"other": other}
    bolt_file.write(tmp_path / META, {b"v1": spaces})
    assert found == runtimes.fetch_metadata("mine", "containerd", None)
    assert runtimes.fetch_metadata("none", "containerd", None) == {}
    # the same name in two namespaces is ambiguous
    bolt_file.write(tmp_path / META, {b"v1": {**spaces, b"other": {b"containers": {b"mine": {b"image": b"x"}}}}})
    assert runtimes.fetch_metadata("mine", "containerd", None) == {"runtime": "containerd", "name": "mine"}


def test_ctr_many_labels(runtimes: Runtimes, tmp_path: Path) -> None:
    """As many labels as fit are kept, and labels_cut is set."""
    labels: Tree = {b"label%05d" % number: "\u2615".encode() * 10 for number in range(5000)}
    bolt_file.write(tmp_path / META, {b"v1": {b"default": {b"containers": {b"mine": {b"labels": labels}}}}})
    found = runtimes.fetch_metadata("mine", "containerd", None)
    assert found["labels_cut"]
    assert found["labels"]["label00007"] == "\u2615" * 10
    assert sum(len(key) + len(value) for key, value in found["labels"].items()) <= LABELS_MAX_BYTES
    assert runtimes.errors == 0


def test_crio(runtimes: Runtimes, tmp_path: Path) -> None:
    """CRI-O's labels are JSON in a JSON string."""
    annotations = {
        **POD,
        "io.kubernetes.cri-o.ContainerID": ID,
        "io.kubernetes.cri-o.ImageName": "quay.io/shop/web:1",
        "io.kubernetes.cri-o.Labels": '{"app":"web"}',
    }
    write(tmp_path, f"{USERDATA}/config.json", {"annotations": annotations})
    finished = "2026-11-24T03:51:53.123456789+01:00"
    state = {"status": "stopped", "exitCode": 137, "oomKilled": True, "finished": finished}
    write(tmp_path, f"{USERDATA}/state.json", state)
    found = runtimes.fetch_metadata(ID, "cri-o", UID)
    assert (found["runtime"], found["name"], found["image"]) == ("cri-o", "app", "quay.io/shop/web:1")
    assert (found["labels"], found["pod_name"]) == ({"app": "web"}, "web-0")
    ended = {"running": False, "oom_killed": True, "exit_code": 137, "finished_at": finished}
    assert ended == runtimes.fetch_state(ID, "cri-o")


def test_podman_4(runtimes: Runtimes, tmp_path: Path) -> None:
    """All metadata from podman's older database."""
    config = {
        "id": ID,
        "name": "web",
        "rootfsImageName": "localhost/web:1",
        "labels": {"app": "web"},
        "spec": "x" * 9000,
    }
    finished = "2026-11-24T03:51:53.123456789+01:00"
    state = {"state": 6, "exitCode": 137, "oomKilled": True, "finishedTime": finished}
    container: Tree = {b"config": json.dumps(config).encode(), b"state": json.dumps(state).encode(), b"networks": {}}
    bolt_file.write(tmp_path / BOLT_STATE, {b"ctr": {ID.encode(): container}, b"all-ctrs": {ID.encode(): b"web"}})
    found = {"runtime": "podman", "name": "web", "image": "localhost/web:1", "labels": {"app": "web"}}
    assert found == runtimes.fetch_metadata(ID, "podman", None)
    ended = {"running": False, "oom_killed": True, "exit_code": 137, "finished_at": finished}
    assert ended == runtimes.fetch_state(ID, "podman")
    assert runtimes.fetch_metadata("0" * 64, "podman", None) == {}
    assert runtimes.fetch_state("0" * 64, "podman") is None


def test_podman_without_database(runtimes: Runtimes, tmp_path: Path) -> None:
    """Name and image from the list of all containers; no labels, no state."""
    metadata = json.dumps({"image-name": "localhost/web:1"})
    entries = [{"id": "0" * 64, "names": ["other"]}, 5, {"id": ID, "names": ["web"], "metadata": metadata}]
    write(tmp_path, "containers-storage/overlay-containers/containers.json", entries)
    found = {"runtime": "podman", "name": "web", "image": "localhost/web:1"}
    assert found == runtimes.fetch_metadata(ID, "podman", None)
    assert runtimes.fetch_state(ID, "podman") is None


def test_podman_5(runtimes: Runtimes, tmp_path: Path) -> None:
    """All metadata from podman's database."""
    (tmp_path / "containers-storage").mkdir()
    config = {"id": ID, "name": "web", "rootfsImageName": "localhost/web:1", "labels": {"app": "web"}}
    with contextlib.closing(sqlite3.connect(tmp_path / "containers-storage/db.sql")) as database, database:
        for table, value in (("ContainerConfig", config), ("ContainerState", {"state": 6, "exitCode": 137})):
            database.execute(f"CREATE TABLE {table} (ID TEXT PRIMARY KEY, JSON TEXT)")
            database.execute(f"INSERT INTO {table} VALUES (?, ?)", (ID, json.dumps(value).encode()))  # noqa: S608
    found = {"runtime": "podman", "name": "web", "image": "localhost/web:1", "labels": {"app": "web"}}
    assert found == runtimes.fetch_metadata(ID, "podman", None)
    assert runtimes.fetch_state(ID, "podman") == {"running": False, "oom_killed": False, "exit_code": 137}
    odd = tmp_path / "a#b?c%25 d"  # special characters in SQLite's URIs
    (tmp_path / "containers-storage").rename(odd)
    assert found == Runtimes([("containers-storage", str(odd))]).fetch_metadata(ID, "podman", None)


def test_podman_busy(runtimes: Runtimes, tmp_path: Path) -> None:
    """While podman locks its database, the list of --rm containers has name and image."""
    metadata = json.dumps({"image-name": "localhost/web:1"})
    entries = [{"id": ID, "names": ["web"], "metadata": metadata}]
    write(tmp_path, "containers-storage/overlay-containers/volatile-containers.json", entries)
    with contextlib.closing(sqlite3.connect(tmp_path / "containers-storage/db.sql")) as database, database:
        database.execute("BEGIN EXCLUSIVE")
        found = {"runtime": "podman", "name": "web", "image": "localhost/web:1"}
        assert found == runtimes.fetch_metadata(ID, "podman", None)
        assert runtimes.fetch_metadata("0" * 64, "podman", None) == {}
        assert runtimes.errors == 1


def test_kubelet_logs(runtimes: Runtimes, tmp_path: Path) -> None:
    """The kubelet's links and directories name containers that the runtime has removed."""
    (tmp_path / "container-logs").mkdir()
    (tmp_path / "pod-logs").mkdir()
    assert runtimes.fetch_metadata(ID, None, UID) == {}
    (tmp_path / f"pod-logs/shop_web-0_{UID}").mkdir()
    assert runtimes.fetch_metadata(ID, None, UID) == {"namespace": "shop", "pod_name": "web-0"}
    (tmp_path / f"container-logs/web-0_shop_app-{ID}.log").symlink_to("nowhere")
    found = {"pod_name": "web-0", "namespace": "shop", "container_name": "app", "name": "app"}
    assert found == runtimes.fetch_metadata(ID, None, UID)


HOSTILE = (
    "",
    "{",
    "[]",
    "null",
    "[" * 100_000,
    {"Name": 5, "Config": [], "State": 7},
    {"Name": {}, "Config": {"Image": [], "Labels": "x"}, "State": {"OOMKilled": {}, "ExitCode": 1.5}},
    {"annotations": [1, 2]},
    {"annotations": {"io.kubernetes.cri.sandbox-id": 5, "io.kubernetes.cri.image-name": {"a": 1}}},
    '{"Name": "\\ud800"}',
)


@pytest.mark.parametrize("content", HOSTILE)
def test_wrong_types(content: Any, runtimes: Runtimes, tmp_path: Path) -> None:
    """Invalid JSON, or a value of the wrong type, only costs its own metadata."""
    for name in (DOCKER, BUNDLE, STATUS, f"{USERDATA}/config.json", f"{USERDATA}/state.json",
                 "containers-storage/overlay-containers/containers.json", "containers-storage/db.sql", BOLT_STATE,
                 META):  # fmt: skip
        write(tmp_path, name, content)
    for runtime in ("docker", "containerd", "podman", "cri-o"):
        found: dict[str, Any] = {**runtimes.fetch_metadata(ID, runtime, UID)}
        assert all(isinstance(value, str) for key, value in found.items() if key not in ("labels", "labels_cut"))
        verdict = runtimes.fetch_state(ID, runtime)
        assert verdict is None or verdict["exit_code"] is None


def test_errors_are_counted(runtimes: Runtimes, tmp_path: Path) -> None:
    """An unreadable file is counted, and the error names it; a missing file is not an error."""
    assert runtimes.fetch_metadata(ID, "docker", None) == {}
    assert runtimes.errors == 0
    write(tmp_path, DOCKER, "{")
    assert runtimes.fetch_metadata(ID, "docker", None) == {}
    assert runtimes.errors == 1
    assert DOCKER in runtimes.last_error


def test_many_labels(runtimes: Runtimes, tmp_path: Path) -> None:
    """As many labels as fit are kept, and labels_cut is set; a long name is cut."""
    config = docker()
    config["Name"] = "n" * 10_000
    config["Config"]["Labels"] = {f"label{number}": "v" * 20 for number in range(10_000)} | {"number": 5}
    write(tmp_path, DOCKER, config)
    found = runtimes.fetch_metadata(ID, "docker", None)
    assert found["labels_cut"]
    assert len(found["labels"]) > 100
    assert sum(len(key) + len(value) for key, value in found["labels"].items()) <= LABELS_MAX_BYTES
    assert len(found["name"]) == TEXT_MAX


@pytest.mark.parametrize("container_id", ["..", ".", "../other", "a/b", "x" * 300, ""])
def test_ids_are_no_paths(container_id: str, runtimes: Runtimes, tmp_path: Path) -> None:
    """An untrusted id from a cgroup's path cannot leave the directory."""
    write(tmp_path, "docker/config.v2.json", docker())
    write(tmp_path, "docker/containers/config.v2.json", docker())
    write(tmp_path, "docker/other/config.v2.json", docker())
    assert runtimes.fetch_metadata(container_id, None, None) == {}
    assert runtimes.fetch_state(container_id, "docker") is None


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_parse(data: bytes) -> None:
    """Any bytes yield an object or UnreadableError."""
    with contextlib.suppress(UnreadableError):
        assert isinstance(parse_json_object(data, "file"), dict)


@pytest.mark.parametrize("text", ["", "docker", "docker=", "docker=relative", "rkt=/x", "=/x"])
def test_parse_root_refuses(text: str) -> None:
    """An invalid option is an error that shows the valid form."""
    with pytest.raises(TracerError, match="NAME=/FOLDER"):
        parse_runtime_root(text)


def test_parse_root() -> None:
    """The directory may contain any characters."""
    assert parse_runtime_root("docker=/a=b c") == ("docker", "/a=b c")


def podman_database(tmp_path: Path, *statements: str) -> None:
    (tmp_path / "containers-storage").mkdir()
    with contextlib.closing(sqlite3.connect(tmp_path / "containers-storage/db.sql")) as database, database:
        for statement in statements:
            database.execute(statement)


@pytest.mark.parametrize(
    "view",
    [
        f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT '{ID}' AS ID, max(i) AS JSON FROM n",  # noqa: S608
        f"SELECT '{ID}' AS ID, zeroblob(900000000) AS JSON",
        f"SELECT '{ID}' AS ID, hex(zeroblob(400000000)) AS JSON",
    ],
)
def test_podman_hostile_database(view: str, runtimes: Runtimes, tmp_path: Path) -> None:
    """A user's database that computes endlessly, or produces gigabytes, is abandoned quickly."""
    podman_database(tmp_path, f"CREATE VIEW ContainerConfig AS {view}")
    began = time.thread_time()  # CPU time, because the machine may be busy
    assert runtimes.fetch_metadata(ID, "podman", None) == {}
    assert time.thread_time() - began < 2
    assert "db.sql" in runtimes.last_error


def test_podman_damaged_schema(runtimes: Runtimes, tmp_path: Path) -> None:
    """SQLite's error may contain a name with invalid UTF-8."""
    podman_database(tmp_path, "CREATE VIEW ContainerConfig AS SELECT * FROM nowhereZ")
    path = tmp_path / "containers-storage/db.sql"
    path.write_bytes(path.read_bytes().replace(b"nowhereZ", b"nowhere\xff"))
    assert runtimes.fetch_metadata(ID, "podman", None) == {}
    assert runtimes.errors == 1


def test_podman_read_error(runtimes: Runtimes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database on a failing disk is an error of that file; its descriptor is closed."""
    podman_database(tmp_path, "CREATE TABLE ContainerConfig (ID TEXT PRIMARY KEY, JSON TEXT)")

    def fail(descriptor: int, size: int, offset: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", fail)
    descriptors = len(os.listdir("/proc/self/fd"))
    assert runtimes.fetch_metadata(ID, "podman", None) == {}
    assert runtimes.last_error == f"{tmp_path}/containers-storage/db.sql: Input/output error"
    assert len(os.listdir("/proc/self/fd")) == descriptors


def with_log(folder: Path) -> sqlite3.Connection:
    """podman's database with a write-ahead log, as of podman 4.5.0; a container was created since it was opened."""
    folder.mkdir(parents=True)
    database = sqlite3.connect(folder / "db.sql")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("CREATE TABLE ContainerConfig (ID TEXT PRIMARY KEY, JSON TEXT)")
    database.execute("PRAGMA wal_checkpoint")
    database.execute("INSERT INTO ContainerConfig VALUES (?, ?)", (ID, b'{"name":"web"}'))
    database.commit()
    return database


def tree(folder: Path) -> dict[str, tuple[int, ...]]:
    """All files there: names, sizes, owners, times."""
    found = {path: path.stat() for path in (folder, *folder.iterdir())}
    return {path.name: (each.st_size, each.st_uid, each.st_mtime_ns) for path, each in found.items()}


@pytest.mark.parametrize("podman", ["runs", "has ended", "was killed", "was killed, and a copy without -shm is read"])
def test_podman_write_ahead_log(podman: str, tmp_path: Path) -> None:
    """podman's data is read, and its directory stays unchanged."""
    folder = tmp_path / "containers-storage"
    database = with_log(folder)
    if podman == "has ended":
        database.close()
        assert [path.name for path in folder.iterdir()] == ["db.sql"]
    elif podman != "runs":
        shutil.copytree(folder, tmp_path / "copy")
        folder = tmp_path / "copy"
        if "-shm" in podman:
            (folder / "db.sql-shm").unlink()
    before, runtimes = tree(folder), Runtimes([("containers-storage", str(folder))])
    found = runtimes.fetch_metadata(ID, "podman", None)
    assert tree(folder) == before
    if "-shm" in podman:
        assert (found, "write-ahead log has no index" in runtimes.last_error) == ({}, True)
    else:
        assert (found, runtimes.errors) == ({"runtime": "podman", "name": "web", "labels": {}}, 0)
    database.close()


@pytest.mark.parametrize("is_open", [False, True])
def test_podman_of_a_user(is_open: bool, tmp_path: Path) -> None:
    """A command of root neither creates files in a user's directory nor changes their owners."""
    require(os.geteuid() == 0, "root: only root may change owners")
    folder = tmp_path / "containers-storage"
    database = with_log(folder)
    if not is_open:
        database.close()
    os.chown(folder, 1000, 1000)
    for path in folder.iterdir():
        os.chown(path, 1000, 1000)
    if is_open:
        os.chown(folder / "db.sql-wal", 1001, 1001)
    before = tree(folder), [path.stat().st_ctime_ns for path in sorted(folder.iterdir())]
    cgroup = f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope"
    told = oomtrace("resolve", cgroup, "--json", "--runtime-root", f"containers-storage={folder}")
    assert json.loads(told.stdout)["container"]["name"] == "web"
    assert (tree(folder), [path.stat().st_ctime_ns for path in sorted(folder.iterdir())]) == before
    database.close()


WRITES_ON = """
import contextlib, json, sqlite3, sys
for number in range(1_000_000):
    with contextlib.closing(sqlite3.connect(sys.argv[1], timeout=60)) as database, database:
        value = json.dumps({"name": f"web{number}", "spec": "x" * 9000}).encode()
        database.execute("UPDATE ContainerConfig SET JSON = ?", (value,))
"""


def test_podman_writes_meanwhile(tmp_path: Path) -> None:
    """While podman repeatedly opens, writes and closes its database, a result is what was written, or an error."""
    folder = tmp_path / "containers-storage"
    with_log(folder).close()
    runtimes = Runtimes([("containers-storage", str(folder))])
    names: set[str] = set()
    # In another process: POSIX locks are released when any descriptor of the file is closed.
    with subprocess.Popen([sys.executable, "-c", WRITES_ON, folder / "db.sql"]) as writer:
        for _ in attempts():
            found = runtimes.fetch_metadata(ID, "podman", None)
            if found:
                names.add(found["name"])
            if len(names) > 20:
                break
        assert writer.poll() is None
        writer.kill()
    assert len(names) > 20, runtimes.last_error
    assert all(re.fullmatch(r"web\d*", name) for name in names)
    assert not re.search("malformed|JSON", runtimes.last_error), runtimes.last_error


@pytest.mark.parametrize("end", ["-wal", "-journal", "-shm"])
@pytest.mark.parametrize("is_empty", [False, True])
def test_podman_hostile_files_beside_the_database(end: str, is_empty: bool, runtimes: Runtimes, tmp_path: Path) -> None:
    """A user's files beside the database are not removed, and do not block."""
    podman_database(tmp_path, "CREATE TABLE ContainerConfig (ID, JSON)")
    folder = tmp_path / "containers-storage"
    if is_empty:
        (folder / "db.sql").write_bytes(b"")
    for make in (lambda path: path.write_bytes(b"\xd9\xd5\x05\xf9 \xa1c\xd7" + b"x" * 600), os.mkfifo):
        make(folder / f"db.sql{end}")
        before, began = tree(folder), time.monotonic()
        assert runtimes.fetch_metadata(ID, "podman", None) == {}
        assert (tree(folder), time.monotonic() - began < 1) == (before, True)
        (folder / f"db.sql{end}").unlink()


def test_podman_database_elsewhere(runtimes: Runtimes, tmp_path: Path) -> None:
    """A database behind a link that leaves the directory is not read."""
    values = f"VALUES ('{ID}', CAST('{{\"name\":\"secret\"}}' AS BLOB))"
    podman_database(tmp_path, "CREATE TABLE ContainerConfig (ID, JSON)", f"INSERT INTO ContainerConfig {values}")
    assert runtimes.fetch_metadata(ID, "podman", None)["name"] == "secret"
    (tmp_path / "containers-storage/db.sql").rename(tmp_path / "elsewhere")
    (tmp_path / "containers-storage/db.sql").symlink_to("../elsewhere")
    assert runtimes.fetch_metadata(ID, "podman", None) == {}
    assert runtimes.errors == 1


def test_kubelet_names_that_are_no_text(runtimes: Runtimes, tmp_path: Path) -> None:
    """Metadata from file names with invalid UTF-8 can be written as JSON."""
    folder = os.fsencode(tmp_path / "container-logs")
    os.mkdir(folder)
    open(folder + b"/web\xff_shop_app-" + ID.encode() + b".log", "wb").close()
    assert runtimes.fetch_metadata(ID, "containerd", UID)["pod_name"] == "web\\xff"


@pytest.mark.parametrize("way", ["folder", "above", "link"])
def test_folder_of_a_user(way: str, tmp_path: Path) -> None:
    """A user's directory or link is read only for that user's containers, root's only for the host's."""
    require(os.geteuid() == 0, "root: only root may change owners")
    folder = tmp_path / "home" / "docker"
    ended = docker(Running=False, OOMKilled=True, ExitCode=1)
    write(tmp_path, f"home/docker/containers/{ID}/config.v2.json", ended)
    if way == "link":
        folder = tmp_path / "link"
        folder.symlink_to(tmp_path / "home" / "docker")
    os.chown({"folder": folder, "above": folder.parent, "link": folder}[way], 1000, 1000, follow_symlinks=False)
    of_user = Runtimes([("docker", str(folder))])
    assert of_user.fetch_metadata(ID, "docker", None) == {}
    assert of_user.fetch_state(ID, "docker") is None
    assert list(of_user.list_containers()) == []
    assert of_user.fetch_metadata(ID, "docker", None, 1000)["name"] == "web"
    assert of_user.fetch_state(ID, "docker", 1000) is not None
    assert of_user.fetch_metadata(ID, "docker", None, 1001) == {}
    assert of_user.fetch_metadata(ID, "docker", None, 0) == {}
    own = Runtimes([("docker", str(tmp_path / "home" / "docker"))])
    if way == "link":  # the directory itself is root's
        assert own.fetch_metadata(ID, "docker", None)["name"] == "web"
        assert own.fetch_metadata(ID, "docker", None, 1000) == {}
