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

from tracer.identity import boltdb, runtime_metadata
from tracer.identity.boltdb import Bucket
from tracer.identity.runtime_metadata import ContainerMetadata, ContainerState
from tracer.linux import safe_files
from tracer.linux.safe_files import UnreadableError

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
_SQLITE_HEADER_LEN = 100
_SQLITE_WAL = 2
"""At bytes 18 and 19 of the header: with a write-ahead log (SQLite, fileformat2).  podman 4.5.0 made its database so,
and later ones leave it as it is.  To read one SQLite makes -wal and -shm where they are missing, with mode=ro, too.
Where there is a log, readonly_shm takes the index as it is; where there is none, immutable reads the database alone."""
_SQLITE_TABLES = {"config": "ContainerConfig", "state": "ContainerState"}
_BOLT = "libpod/bolt_state.db"
"""Its buckets ctr/ID have the same JSON at these keys (podman, libpod/boltdb_state_internal.go)."""
_ENDED = (4, 6, 7)
"""Stopped, exited, removing (podman, libpod/define/containerstate.go)."""


def fetch_crio_metadata(root: str, container_id: str) -> ContainerMetadata | None:
    """Name, image, labels and pod of a CRI-O container; None where there is none.

    Raises UnreadableError.
    """
    config = _userdata(root, container_id, "config.json")
    annotations = runtime_metadata.get_object(config or {}, "annotations")
    if "io.kubernetes.cri-o.ContainerID" not in annotations:
        return None
    found: ContainerMetadata = {"runtime": "cri-o"}
    runtime_metadata.set_kubernetes(found, annotations)
    runtime_metadata.set_strings(
        found,
        name=annotations.get("io.kubernetes.container.name"),
        image=annotations.get("io.kubernetes.cri-o.ImageName"),
    )
    labels = annotations.get("io.kubernetes.cri-o.Labels")  # JSON in JSON
    if isinstance(labels, str):
        runtime_metadata.set_labels(
            found, runtime_metadata.parse_json_object(labels.encode(errors="replace"), "io.kubernetes.cri-o.Labels")
        )
    return found


def fetch_crio_state(root: str, container_id: str) -> ContainerState | None:
    """How a CRI-O container ended.

    Raises UnreadableError.
    """
    state = _userdata(root, container_id, "state.json")
    if state is None:
        return None
    running = state.get("status") not in ("stopped", None)
    return runtime_metadata.make_state(
        running, state.get("oomKilled", False), state.get("exitCode"), state.get("finished")
    )


def fetch_podman_metadata(root: str, container_id: str) -> ContainerMetadata | None:
    """Name, image and labels; None where podman has no such container.

    Raises UnreadableError.
    """
    found: ContainerMetadata = {"runtime": "podman"}
    problem = None
    try:
        config = _database(root, "config", container_id)
    except UnreadableError as error:  # podman 5 locks it to write, for long when it is busy
        config, problem = None, error
    if config is not None:
        runtime_metadata.set_strings(found, name=config.get("name"), image=config.get("rootfsImageName"))
        runtime_metadata.set_labels(found, runtime_metadata.get_object(config, "labels"))
        return found
    for name in _LISTS:
        data = safe_files.read_file(root, name, LIST_MAX_BYTES)
        # Searching is cheap, and most containers are somebody else's.
        if data is None or container_id.encode() not in data:
            continue
        for entry in _list(data, f"{root}/{name}"):
            if entry.get("id") == container_id:
                names, metadata = entry.get("names"), entry.get("metadata")
                more = (
                    runtime_metadata.parse_json_object(metadata.encode(errors="replace"), name)
                    if isinstance(metadata, str)
                    else {}
                )
                runtime_metadata.set_strings(found, name=names[0] if isinstance(names, list) and names else None)
                runtime_metadata.set_strings(found, image=more.get("image-name"))
                return found
    if problem:
        raise problem
    return None


def fetch_podman_state(root: str, container_id: str) -> ContainerState | None:
    """How a podman container ended.

    Raises UnreadableError.
    """
    state = _database(root, "state", container_id)
    if state is None:
        return None
    running = state.get("state") not in _ENDED
    return runtime_metadata.make_state(
        running, state.get("oomKilled", False), state.get("exitCode", 0), state.get("finishedTime")
    )


def _userdata(root: str, container_id: str, file: str) -> dict[str, Any] | None:
    for driver in _DRIVERS:
        name = f"{driver}-containers/{container_id}/userdata/{file}"
        data = safe_files.read_file(root, name)
        if data is not None:
            return runtime_metadata.parse_json_object(data, f"{root}/{name}")
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
        return runtime_metadata.parse_json_object(data, f"{root}/{_SQLITE}")
    data = boltdb.query_database(root, _BOLT, lambda database: _bolt(database, what.encode(), container_id))
    return None if data is None else runtime_metadata.parse_json_object(data, f"{root}/{_BOLT}")


def _bolt(database: Bucket, key: bytes, container_id: str) -> bytes | None:
    container = database.bucket(b"ctr", container_id.encode(errors="replace"))
    return None if container is None else container.value(key)


def _sqlite(root: str, table: str, container_id: str) -> bytes | None:
    """A value of a database that may be a user's own: its schema may compute without end, or make gigabytes.

    Nothing is made, changed or removed in its folder.
    """
    descriptor = safe_files.open_file(root, _SQLITE)  # neither a link out of the folder nor a FIFO
    if descriptor is None:
        return None
    path = f"{root}/{_SQLITE}"
    try:
        header = os.pread(descriptor, _SQLITE_HEADER_LEN, 0)
    except OSError as error:
        raise UnreadableError(f"{path}: {error.strerror}") from error
    finally:
        os.close(descriptor)
    if len(header) < _SQLITE_HEADER_LEN:  # SQLite removes a log that lies beside it
        raise UnreadableError(f"{path}: it is empty")
    import sqlite3  # 1 MB, for hosts with podman 5 only

    before = _sqlite_files(root)
    has_log = (log := before["-wal"]) is not None and log.size_bytes > 0
    is_alone = _SQLITE_WAL in header[18:20] and not has_log
    if has_log and before["-shm"] is None:
        raise UnreadableError(f"{path}: its write-ahead log has no index (-shm), and to read it makes one")
    try:
        named = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        way = "immutable=1" if is_alone else "readonly_shm=1"
        connection = sqlite3.connect(f"file:{named}?mode=ro&{way}", uri=True, timeout=_SQLITE_WAIT_S)
        try:
            if hasattr(connection, "setlimit"):
                connection.setlimit(_SQLITE_LIMIT_LENGTH, safe_files.FILE_MAX_BYTES)
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
    if is_alone and _sqlite_files(root) != before:  # it was read without a lock
        raise UnreadableError(f"{path}: changed while it was read")
    return None if row is None or not isinstance(row[0], bytes) else row[0]


def _sqlite_files(root: str) -> dict[str, safe_files.FileStamp | None]:
    """The database and what SQLite keeps beside it, by the end of the name.

    Raises UnreadableError, also for a FIFO among these, for which SQLite would wait.
    """
    return {end: safe_files.read_stamp(root, f"{_SQLITE}{end}") for end in ("", "-journal", "-wal", "-shm")}
