# SPDX-License-Identifier: Apache-2.0
"""What podman and CRI-O keep below the graph root of containers/storage (/var/lib/containers/storage).

podman: db.sql (since podman 5) or libpod/bolt_state.db (before) has all; overlay-containers/containers.json lists all
containers with name and image, volatile-containers.json those of `podman run --rm` where podman is new enough.  CRI-O:
overlay-containers/ID/userdata/config.json is the OCI specification with the pod in its annotations, state.json beside
it tells the end.
"""

import os
import time
from typing import Any

import orjson

from tracer import bolt, facts, files
from tracer.bolt import Bucket
from tracer.facts import Facts, Verdict
from tracer.files import UnreadableError

LIST_MAX_BYTES = 8 << 20
"""A container takes about 1 KiB of containers.json."""
_DRIVERS = ("overlay", "vfs", "btrfs", "zfs")
_LISTS = [f"{driver}-containers/{kind}containers.json" for driver in _DRIVERS for kind in ("", "volatile-")]
_SQLITE = "db.sql"
_SQLITE_WAIT_S = 0.1
_SQLITE_DEADLINE_S = 0.2
_SQLITE_STEPS = 1000
"""Instructions between two looks at the clock."""
_SQLITE_LIMIT_LENGTH = 0
"""SQLITE_LIMIT_LENGTH, sqlite3.h; Python has a name for it since 3.11."""
_SQLITE_TABLES = {"config": "ContainerConfig", "state": "ContainerState"}
_BOLT = "libpod/bolt_state.db"
"""Its buckets ctr/ID have the same JSON at these keys (podman, libpod/boltdb_state_internal.go)."""
_ENDED = (4, 6, 7)
"""Stopped, exited, removing (podman, libpod/define/containerstate.go)."""


def find_crio(root: str, container_id: str) -> Facts | None:
    """Name, image, labels and pod of a CRI-O container; None where there is none.

    Raises UnreadableError.
    """
    config = _userdata(root, container_id, "config.json")
    annotations = facts.child(config or {}, "annotations")
    if "io.kubernetes.cri-o.ContainerID" not in annotations:
        return None
    found: Facts = {"runtime": "cri-o"}
    facts.put_kubernetes(found, annotations)
    facts.put(
        found,
        name=annotations.get("io.kubernetes.container.name"),
        image=annotations.get("io.kubernetes.cri-o.ImageName"),
    )
    labels = annotations.get("io.kubernetes.cri-o.Labels")  # JSON in JSON
    if isinstance(labels, str):
        facts.put_labels(found, facts.parse(labels.encode(errors="replace"), "io.kubernetes.cri-o.Labels"))
    return found


def verdict_crio(root: str, container_id: str) -> Verdict | None:
    """How a CRI-O container ended.

    Raises UnreadableError.
    """
    state = _userdata(root, container_id, "state.json")
    if state is None:
        return None
    running = state.get("status") not in ("stopped", None)
    return facts.verdict(running, state.get("oomKilled", False), state.get("exitCode"), state.get("finished"))


def find_podman(root: str, container_id: str) -> Facts | None:
    """Name, image and labels; None where podman has no such container.

    Raises UnreadableError.
    """
    found: Facts = {"runtime": "podman"}
    problem = None
    try:
        config = _database(root, "config", container_id)
    except UnreadableError as error:  # podman 5 locks it to write, for long when it is busy
        config, problem = None, error
    if config is not None:
        facts.put(found, name=config.get("name"), image=config.get("rootfsImageName"))
        facts.put_labels(found, facts.child(config, "labels"))
        return found
    for name in _LISTS:
        data = files.read(root, name, LIST_MAX_BYTES)
        # Searching is cheap, and most containers are somebody else's.
        if data is None or container_id.encode() not in data:
            continue
        for entry in _list(data, f"{root}/{name}"):
            if entry.get("id") == container_id:
                names, metadata = entry.get("names"), entry.get("metadata")
                more = facts.parse(metadata.encode(errors="replace"), name) if isinstance(metadata, str) else {}
                facts.put(found, name=names[0] if isinstance(names, list) and names else None)
                facts.put(found, image=more.get("image-name"))
                return found
    if problem:
        raise problem
    return None


def verdict_podman(root: str, container_id: str) -> Verdict | None:
    """How a podman container ended.

    Raises UnreadableError.
    """
    state = _database(root, "state", container_id)
    if state is None:
        return None
    running = state.get("state") not in _ENDED
    return facts.verdict(running, state.get("oomKilled", False), state.get("exitCode", 0), state.get("finishedTime"))


def _userdata(root: str, container_id: str, file: str) -> dict[str, Any] | None:
    for driver in _DRIVERS:
        name = f"{driver}-containers/{container_id}/userdata/{file}"
        data = files.read(root, name)
        if data is not None:
            return facts.parse(data, f"{root}/{name}")
    return None


def _list(data: bytes, source: str) -> list[dict[str, Any]]:
    try:
        entries = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise UnreadableError(f"{source}: {error}") from error
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _database(root: str, what: str, container_id: str) -> dict[str, Any] | None:
    """The JSON that podman keeps of a container: its `config` or its `state`."""
    data = _sqlite(root, _SQLITE_TABLES[what], container_id)
    if data is not None:
        return facts.parse(data, f"{root}/{_SQLITE}")
    data = bolt.ask(root, _BOLT, lambda database: _bolt(database, what.encode(), container_id))
    return None if data is None else facts.parse(data, f"{root}/{_BOLT}")


def _bolt(database: Bucket, key: bytes, container_id: str) -> bytes | None:
    container = database.bucket(b"ctr", container_id.encode(errors="replace"))
    return None if container is None else container.value(key)


def _sqlite(root: str, table: str, container_id: str) -> bytes | None:
    """A value of a database that may be a user's own: its schema may compute without end, or make gigabytes."""
    descriptor = files.open_file(root, _SQLITE)  # neither a link out of the folder nor a FIFO
    if descriptor is None:
        return None
    os.close(descriptor)
    import sqlite3  # 1 MB, for hosts with podman 5 only

    path = f"{root}/{_SQLITE}"
    try:
        named = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        connection = sqlite3.connect(f"file:{named}?mode=ro", uri=True, timeout=_SQLITE_WAIT_S)
        try:
            if hasattr(connection, "setlimit"):
                connection.setlimit(_SQLITE_LIMIT_LENGTH, files.FILE_MAX_BYTES)
            until = time.monotonic() + _SQLITE_DEADLINE_S
            connection.set_progress_handler(lambda: time.monotonic() > until, _SQLITE_STEPS)
            connection.execute("PRAGMA trusted_schema = OFF")
            # The column is declared as text; podman puts blobs in.
            query = f"SELECT CAST(JSON AS BLOB) FROM {table} WHERE ID = ?"  # noqa: S608
            row = connection.execute(query, (container_id,)).fetchone()
        finally:
            connection.close()
    except (sqlite3.Error, UnicodeDecodeError, MemoryError) as error:  # a message may quote any bytes of the file
        raise UnreadableError(f"{path}: {error}") from error
    return None if row is None or not isinstance(row[0], bytes) else row[0]
