# SPDX-License-Identifier: Apache-2.0
"""Files of runtimes, damaged or hostile: JSON, databases, names of files."""

import contextlib
import json
import os
import shutil
import sqlite3
import struct
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import orjson

from tests.harness.bolt_file import Tree, Writer, fnv
from tests.unit.identity.test_runtimes import (
    BOLT_STATE,
    BUNDLE,
    DOCKER,
    ID,
    META,
    POD,
    STATUS,
    UID,
    USERDATA,
    cri_container,
)
from tracer.identity import boltdb, enrich
from tracer.identity.boltdb import Bucket
from tracer.identity.runtime_metadata import LABELS_MAX_BYTES, TEXT_MAX
from tracer.identity.runtimes import ROOTS, Runtimes
from tracer.linux.safe_files import UnreadableError

from .target import Target, mutate

PAGE_BYTES = 1024
_SOON_S = 1.0
_SQLITE = "containers-storage/db.sql"
_PLACES = (
    DOCKER,
    BUNDLE,
    STATUS,
    f"{USERDATA}/config.json",
    f"{USERDATA}/state.json",
    "containers-storage/overlay-containers/containers.json",
    _SQLITE,
    BOLT_STATE,
    META,
)
"""Selected by the first byte of an input; the rest is the file."""
_LOGS = len(_PLACES)
"""The next selector: names of files in the kubelet's directories."""
_PATHS = (
    f"/docker/{ID}",
    f"/kubepods/pod{UID}/{ID}",
    f"/machine.slice/libpod-{ID}.scope",
    f"/system.slice/crio-{ID}.scope",
)


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="oomtrace-fuzz-")


def _write(name: str, content: bytes) -> None:
    path = Path(_folder().name) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def run_readers(data: bytes) -> None:
    """With any file, the metadata has the right types and sizes, and can be encoded."""
    top = _folder().name
    shutil.rmtree(top)
    os.mkdir(top)
    kind, content = data[:1], data[1:]
    number = (kind or b"\0")[0] % (_LOGS + 1)
    if number == _LOGS:
        for name in content.split(b"\0")[:20]:
            _touch("container-logs", name + f"-{ID}.log".encode())
            _touch("pod-logs", name + f"_{UID}".encode())
    elif number in (_PLACES.index(BOLT_STATE), _PLACES.index(META)):
        _write(_PLACES[number], with_checksums(content))
    else:
        _write(_PLACES[number], content)
    runtimes = Runtimes([(name, f"{top}/{name}") for name in ROOTS])
    began = time.thread_time()  # CPU time, as the machine may be busy
    for path in _PATHS:
        whose = enrich.resolve_cgroup(path, runtimes.fetch_metadata)
        orjson.dumps(tuple(whose))
        if whose.container is not None:
            check_facts(whose.container["labels"], whose.container["name"], whose.container["image"])
        check_facts(None, *(whose.kubernetes or {}).values())
    for runtime in ("docker", "containerd", "podman", "cri-o"):
        orjson.dumps(runtimes.fetch_state(ID, runtime))
    assert time.thread_time() - began < _SOON_S


def check_facts(labels: dict[str, str] | None, *texts: Any) -> None:
    assert all(text is None or (text and len(text) <= TEXT_MAX) for text in texts)
    assert sum(len(key) + len(value) for key, value in (labels or {}).items()) <= LABELS_MAX_BYTES


def _touch(folder: str, name: bytes) -> None:
    if b"/" not in name and len(name) < 256:
        path = os.fsencode(f"{_folder().name}/{folder}")
        os.makedirs(path, exist_ok=True)
        open(path + b"/" + name, "wb").close()


def with_checksums(data: bytes, page_size: int = PAGE_BYTES) -> bytes:
    """Correct the checksums of the database's meta pages, so that damaged pages are read."""
    fixed = bytearray(data)
    for start in (16, page_size + 16):
        if len(fixed) >= start + 64:
            fixed[start + 56 : start + 64] = struct.pack("=Q", fnv(bytes(fixed[start : start + 56])))
    return bytes(fixed)


def run_bolt(data: bytes) -> None:
    """Reading all of a database, and single keys: a result or the documented error, in bounded time."""
    _write("bolt/db", with_checksums(data))
    began = time.thread_time()  # CPU time, as the machine may be busy
    questions: tuple[Callable[[Bucket], Any], ...] = (
        lambda top: list(top.values()),
        lambda top: [list(bucket.values()) for _, bucket in top.buckets()],
        lambda top: top.bucket(b"ctr", ID.encode()),
        lambda top: top.value(b"a"),
    )
    for question in questions:
        with contextlib.suppress(UnreadableError):
            boltdb.query_database(f"{_folder().name}/bolt", "db", question)
    assert time.thread_time() - began < _SOON_S


def bolt_seeds() -> list[bytes]:
    trees: list[Tree] = [
        {b"a": b"1", b"ctr": {ID.encode(): {b"config": b"{}", b"large": b"x" * 3000}}},
        {b"%03d" % number: b"v" for number in range(60)},
        {b"v1": {b"k8s.io": {b"containers": {ID.encode(): cri_container(POD)}}}},
    ]
    return [Writer(PAGE_BYTES, most).file(tree) for tree in trees for most in (4, 1000)]


def mutate_bolt(data: bytes, random: Random) -> bytes:
    """Mostly change a number in a page's header or element, which hold the structure."""
    if random.randrange(4) == 0 or len(data) < 3 * PAGE_BYTES:
        return mutate(data, random)
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 3))):
        page = random.randrange(len(changed) // PAGE_BYTES) * PAGE_BYTES
        place = page + 4 * random.randrange(20)
        value = random.choice((0, 1, 2, 3, 16, 255, random.randrange(64), 65535, (1 << 32) - 1))
        changed[place : place + 4] = value.to_bytes(4, "little")
    return bytes(changed)


def reader_seeds() -> list[bytes]:
    cri = {"annotations": {"io.kubernetes.cri.sandbox-id": "f" * 64, "io.kubernetes.cri.container-name": "app"}}
    crio = {"annotations": {**POD, "io.kubernetes.cri-o.ContainerID": ID, "io.kubernetes.cri-o.Labels": '{"a":"b"}'}}
    listed = [{"id": ID, "names": ["web"], "metadata": '{"image-name":"x"}'}]
    texts: dict[str, Any] = {
        DOCKER: {
            "Name": "/web",
            "Config": {"Image": "x", "Labels": POD},
            "State": {"ExitCode": 137, "OOMKilled": True},
        },
        BUNDLE: cri,
        STATUS: {"FinishedAt": 5, "Reason": "OOMKilled", "ExitCode": 137},
        f"{USERDATA}/config.json": crio,
        f"{USERDATA}/state.json": {"status": "stopped", "exitCode": 137},
        "containers-storage/overlay-containers/containers.json": listed,
    }
    contents = {name: json.dumps(value).encode() for name, value in texts.items()}
    container: Tree = {b"config": b'{"name":"web","labels":{"a":"b"}}', b"state": b'{"state":6,"exitCode":1}'}
    contents[BOLT_STATE] = Writer(PAGE_BYTES).file({b"ctr": {ID.encode(): container}})
    contents[META] = bolt_seeds()[-1]
    contents[_SQLITE] = _database()
    found = [bytes([_PLACES.index(name)]) + content for name, content in contents.items()]
    return [*found, bytes([_LOGS]) + b"web-0_shop_app\0shop_web-0"]


def _database() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        connection = sqlite3.connect(f"{folder}/db")
        connection.execute("PRAGMA page_size = 512")
        for table in ("ContainerConfig", "ContainerState"):
            connection.execute(f"CREATE TABLE {table} (ID TEXT PRIMARY KEY, JSON TEXT)")
            connection.execute(f"INSERT INTO {table} VALUES (?, ?)", (ID, b'{"name":"web","exitCode":1}'))  # noqa: S608
        connection.commit()
        connection.close()
        return Path(folder, "db").read_bytes()


def mutate_reader(data: bytes, random: Random) -> bytes:
    """Mostly keep the kind of file, and replace a JSON value by one of another type."""
    kind, content = data[:1], data[1:]
    number = (kind or b"\0")[0] % (_LOGS + 1)
    if number < _LOGS and _PLACES[number] in (BOLT_STATE, META):
        return kind + mutate_bolt(content, random)
    if random.randrange(2):
        with contextlib.suppress(orjson.JSONDecodeError):
            return kind + orjson.dumps(_other(orjson.loads(content), random))
    return kind + mutate(content, random)


_VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1 << 63,
    1e308,
    "",
    "x" * 600,
    "\u202e\x1b",
    [],
    {},
    {"a": {}},
    [[]],
    {"x": "y" * 5000},
)


def _other(value: Any, random: Random) -> Any:
    if random.randrange(4) == 0 or not isinstance(value, (dict, list)) or not value:
        return random.choice(_VALUES)
    if isinstance(value, list):
        return [_other(value[0], random), *value[1:]]
    key = random.choice(list(value))
    return {**value, key: _other(value[key], random)}


METADATA = (
    Target("bolt", run_bolt, bolt_seeds, mutate_bolt),
    Target("readers", run_readers, reader_seeds, mutate_reader),
)
