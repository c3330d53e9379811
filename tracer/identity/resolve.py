# SPDX-License-Identifier: Apache-2.0
"""A cgroup path or a pid, as a user types it -> container, pod, unit: what ``oomtrace resolve`` shows."""

import os
import re
from typing import TypedDict

from tracer.base.errors import EXIT_USAGE, TracerError
from tracer.identity import cgroup_path, enrich
from tracer.identity.runtimes import Runtimes
from tracer.linux import procfs
from tracer.records.model import Level
from tracer.records.owner import Container, Kubernetes, Owner, Systemd

_CONTROLLER = "(?:blkio|cpu|cpuacct|cpuset|devices|freezer|hugetlb|memory|misc|net_cls|net_prio|perf_event|pids|rdma)"
_MOUNT = re.compile(rf"^/sys/fs/cgroup(?:/(?:unified|systemd|{_CONTROLLER}(?:,{_CONTROLLER})*))?(?=/|$)")


class Resolved(TypedDict):
    cgroup: str
    level: Level
    container: Container | None
    kubernetes: Kubernetes | None
    systemd: Systemd | None
    owner: Owner | None
    unread: list[str]
    """Folders of runtimes that could not be read, and what may be missing for that."""


def resolve(target: str, runtimes: Runtimes) -> Resolved:
    """The same objects as in a record, with the names that the runtimes' files tell now.

    Raises TracerError (exit code 2) where ``target`` is neither a path nor the pid of a process.
    """
    path = _path_of_pid(int(target)) if target.isdecimal() else _path_of(target)
    whose = enrich.identify(path, runtimes.find)
    return {
        "cgroup": path,
        "level": cgroup_path.level(path),
        "container": whose.container,
        "kubernetes": whose.kubernetes,
        "systemd": whose.systemd,
        "owner": whose.owner,
        "unread": list(runtimes.unread.values()),
    }


def _path_of_pid(pid: int) -> str:
    text = procfs.read_cgroup(pid)
    if text is None:
        raise TracerError(f"no process has the pid {pid}", "give the pid of a running process", EXIT_USAGE)
    path = cgroup_path.parse_proc_cgroup(text)
    if path is None:
        raise TracerError(f"process {pid} is in no memory cgroup", "mount the memory controller", EXIT_USAGE)
    return path


def _path_of(target: str) -> str:
    path = os.fsencode(target).decode("utf-8", "backslashreplace")
    if not path.startswith("/"):
        raise TracerError(
            f"{path!r} is neither a cgroup path nor a pid",
            "give /sys/fs/cgroup/..., a path below it, or a pid",
            EXIT_USAGE,
        )
    return _MOUNT.sub("", path).rstrip("/") or "/"
