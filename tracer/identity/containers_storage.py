# SPDX-License-Identifier: Apache-2.0
"""Files of podman and CRI-O below the graph root of containers/storage (/var/lib/containers/storage).

podman: db.sql (since podman 5) or libpod/bolt_state.db (before) has everything; overlay-containers/containers.json
lists all containers with name and image, volatile-containers.json those of `podman run --rm` in newer versions.
CRI-O: overlay-containers/ID/userdata/config.json is the OCI specification with the pod in its annotations, and
state.json beside it has the state.
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
"""Maximum size of containers.json; a container takes about 1 KiB."""
_DRIVERS = ("overlay", "vfs", "btrfs", "zfs")
_LISTS = [f"{driver}-containers/{kind}containers.json" for driver in _DRIVERS for kind in ("", "volatile-")]
_SQLITE = "db.sql"
_SQLITE_LOCK_TIMEOUT_S = 0.1
_SQLITE_TIMEOUT_S = 0.2
_SQLITE_STEPS = 1000
"""Virtual machine instructions between two checks of the timeout."""
_SQLITE_LIMIT_LENGTH = 0
"""SQLITE_LIMIT_LENGTH in sqlite3.h; sqlite3 has it since Python 3.11."""
_SQLITE_HEADER_LEN = 100
_SQLITE_WAL = 2
"""Bytes 18 and 19 of the header for a database with a write-ahead log (SQLite, fileformat2).  podman 4.5.0 created such
databases, and later versions keep them.  SQLite creates missing -wal and -shm files when it reads one, even with
mode=ro.  If there is a log, readonly_shm uses the existing index; otherwise immutable reads only the database."""
_SQLITE_TABLES = {"config": "ContainerConfig", "state": "ContainerState"}
_BOLT = "libpod/bolt_state.db"
"""Its buckets ctr/ID have the same JSON under the keys of _SQLITE_TABLES (podman, libpod/boltdb_state_internal.go)."""
_ENDED = (4, 6, 7)
"""The states stopped, exited and removing (podman, libpod/define/containerstate.go)."""


def fetch_crio_metadata(root: str, container_id: str) -> ContainerMetadata | None:
    """Name, image, labels and pod of a CRI-O container; None: there is no such container.

    Raises UnreadableError.
    """
    config = _userdata(root, container_id, "config.json")
    annotations = runtime_metadata.get_object(config or {}, "annotations")
    if "io.kubernetes.cri-o.ContainerID" not in annotations:
        return None
    metadata: ContainerMetadata = {"runtime": "cri-o"}
    runtime_metadata.set_kubernetes(metadata, annotations)
    runtime_metadata.set_strings(
        metadata,
        name=annotations.get("io.kubernetes.container.name"),
        image=annotations.get("io.kubernetes.cri-o.ImageName"),
    )
    labels = annotations.get("io.kubernetes.cri-o.Labels")  # JSON in a JSON string
    if isinstance(labels, str):
        runtime_metadata.set_labels(
            metadata, runtime_metadata.parse_json_object(labels.encode(errors="replace"), "io.kubernetes.cri-o.Labels")
        )
    return metadata


def fetch_crio_state(root: str, container_id: str) -> ContainerState | None:
    """State of a CRI-O container; None: there is no such container.

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
    """Name, image and labels; None: podman has no such container.

    Raises UnreadableError.
    """
    metadata: ContainerMetadata = {"runtime": "podman"}
    problem = None
    try:
        config = _database(root, "config", container_id)
    except UnreadableError as error:  # podman 5 locks it for writes, for a long time if busy
        config, problem = None, error
    if config is not None:
        runtime_metadata.set_strings(metadata, name=config.get("name"), image=config.get("rootfsImageName"))
        runtime_metadata.set_labels(metadata, runtime_metadata.get_object(config, "labels"))
        return metadata
    for name in _LISTS:
        data = safe_files.read_file(root, name, LIST_MAX_BYTES)
        # A search is cheaper than parsing, and most containers are not podman's.
        if data is None or container_id.encode() not in data:
            continue
        for entry in _list(data, f"{root}/{name}"):
            if entry.get("id") == container_id:
                names, details = entry.get("names"), entry.get("metadata")
                more = (
                    runtime_metadata.parse_json_object(details.encode(errors="replace"), name)
                    if isinstance(details, str)
                    else {}
                )
                runtime_metadata.set_strings(metadata, name=names[0] if isinstance(names, list) and names else None)
                runtime_metadata.set_strings(metadata, image=more.get("image-name"))
                return metadata
    if problem:
        raise problem
    return None


def fetch_podman_state(root: str, container_id: str) -> ContainerState | None:
    """State of a podman container; None: there is no such container.

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


def _database(root: str, key: str, container_id: str) -> dict[str, Any] | None:
    """podman's JSON of a container: ``key`` is `config` or `state`."""
    data = _sqlite(root, _SQLITE_TABLES[key], container_id)
    if data is not None:
        return runtime_metadata.parse_json_object(data, f"{root}/{_SQLITE}")
    data = boltdb.query_database(root, _BOLT, lambda database: _bolt(database, key.encode(), container_id))
    return None if data is None else runtime_metadata.parse_json_object(data, f"{root}/{_BOLT}")


def _bolt(database: Bucket, key: bytes, container_id: str) -> bytes | None:
    container = database.bucket(b"ctr", container_id.encode(errors="replace"))
    return None if container is None else container.value(key)


def _sqlite(root: str, table: str, container_id: str) -> bytes | None:
    """Read the JSON of one row; None: there is no such database or row.

    The database may be a user's, so its schema may compute endlessly or produce gigabytes.  Nothing in its directory is
    created, changed or removed.

    Raises UnreadableError.
    """
    descriptor = safe_files.open_file(root, _SQLITE)  # no link out of the directory, no FIFO
    if descriptor is None:
        return None
    path = f"{root}/{_SQLITE}"
    try:
        header = os.pread(descriptor, _SQLITE_HEADER_LEN, 0)
    except OSError as error:
        raise UnreadableError(f"{path}: {error.strerror}") from error
    finally:
        os.close(descriptor)
    if len(header) < _SQLITE_HEADER_LEN:  # SQLite would remove its log
        raise UnreadableError(f"{path}: empty")
    import sqlite3  # 1 MB, only needed on hosts with podman 5

    before = _sqlite_files(root)
    has_log = (log := before["-wal"]) is not None and log.size_bytes > 0
    is_immutable = _SQLITE_WAL in header[18:20] and not has_log
    if has_log and before["-shm"] is None:
        raise UnreadableError(f"{path}: the write-ahead log has no index (-shm), which a read would create")
    try:
        quoted = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        parameter = "immutable=1" if is_immutable else "readonly_shm=1"
        connection = sqlite3.connect(f"file:{quoted}?mode=ro&{parameter}", uri=True, timeout=_SQLITE_LOCK_TIMEOUT_S)
        try:
            if hasattr(connection, "setlimit"):
                connection.setlimit(_SQLITE_LIMIT_LENGTH, safe_files.FILE_MAX_BYTES)
            deadline_s = time.monotonic() + _SQLITE_TIMEOUT_S
            connection.set_progress_handler(lambda: time.monotonic() > deadline_s, _SQLITE_STEPS)
            connection.execute("PRAGMA trusted_schema = OFF")
            # The column is declared as text, but podman stores blobs.
            query = f"SELECT CAST(JSON AS BLOB) FROM {table} WHERE ID = ?"  # noqa: S608
            row = connection.execute(query, (container_id,)).fetchone()
        finally:
            connection.close()
    except (sqlite3.Error, UnicodeDecodeError, MemoryError) as error:  # SQLite's message may quote invalid UTF-8
        raise UnreadableError(f"{path}: {error}") from error
    if is_immutable and _sqlite_files(root) != before:  # it was read without a lock
        raise UnreadableError(f"{path}: changed during the read")
    return None if row is None or not isinstance(row[0], bytes) else row[0]


def _sqlite_files(root: str) -> dict[str, safe_files.FileStamp | None]:
    """Stamps of the database and SQLite's files beside it, by suffix.

    Raises UnreadableError, also if one is a FIFO, on which SQLite would block.
    """
    return {suffix: safe_files.read_stamp(root, f"{_SQLITE}{suffix}") for suffix in ("", "-journal", "-wal", "-shm")}
