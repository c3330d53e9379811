# SPDX-License-Identifier: Apache-2.0
"""Resolves a NAME to its cgroup and the cgroup's owner, for ``oomtrace resolve``."""

import os
import re
from typing import TypedDict

from tracer.base.errors import EXIT_USAGE, TracerError
from tracer.identity import cgroup_path, enrich
from tracer.identity.runtimes import Runtimes
from tracer.linux import cgroupfs, procfs
from tracer.records.matching import MATCHERS, is_below, is_pid, split_kind
from tracer.records.model import Level
from tracer.records.owner import Container, Kubernetes, Owner, Systemd, owner_of

_CONTROLLER = "(?:blkio|cpu|cpuacct|cpuset|devices|freezer|hugetlb|memory|misc|net_cls|net_prio|perf_event|pids|rdma)"
_MOUNT = re.compile(rf"^/sys/fs/cgroup(?:/(?:unified|systemd|{_CONTROLLER}(?:,{_CONTROLLER})*))?(?=/|$)")


class ResolvedTarget(TypedDict):
    cgroup: str
    level: Level
    container: Container | None
    kubernetes: Kubernetes | None
    systemd: Systemd | None
    owner: Owner | None
    unread: list[str]
    """Runtimes' directories that could not be read, with what may be missing."""


def resolve_target(target: str, runtimes: Runtimes) -> ResolvedTarget:
    """The same objects as in a record, with the current metadata of the runtimes.

    ``target``: a cgroup path, a pid, or the name of a running container, pod or unit.

    Raises TracerError (exit code 2) if nothing has this name, or several things have it.
    """
    if is_pid(target):
        path = _path_of_pid(int(target))
    elif target.startswith("/"):
        path = normalize_cgroup_path(target)
    else:
        path = _path_of_name(target, runtimes)
    identity = enrich.resolve_cgroup(path, runtimes.fetch_metadata)
    return {
        "cgroup": path,
        "level": cgroup_path.classify_cgroup(path),
        "container": identity.container,
        "kubernetes": identity.kubernetes,
        "systemd": identity.systemd,
        "owner": identity.owner,
        "unread": list(runtimes.unread.values()),
    }


def _path_of_pid(pid: int) -> str:
    text = procfs.read_cgroup(pid)
    if text is None:
        raise TracerError(f"no process has the pid {pid}", "use the pid of a running process", EXIT_USAGE)
    path = cgroup_path.parse_proc_cgroup(text)
    if path is None:
        raise TracerError(f"process {pid} is not in a memory cgroup", "mount the memory controller", EXIT_USAGE)
    return path


def _path_of_name(target: str, runtimes: Runtimes) -> str:
    """The cgroup of a running container, pod or unit; if several kinds have the name, the first applies (``KINDS``)."""
    name, only = split_kind(target, MATCHERS)
    paths = [cgroupfs.escape_path(path) for path in cgroupfs.list_cgroups()]
    identified = {path: enrich.resolve_cgroup(path, runtimes.fetch_metadata)._asdict() for path in paths}
    for kind in MATCHERS if only is None else (only,):
        found = _topmost([path for path, fields in identified.items() if MATCHERS[kind](name, fields)])
        if kind == "pod":  # the name may be known of its containers' cgroups only
            found = sorted({_pod_of(path) for path in found})
        if len(found) > 1:
            raise TracerError(
                f"several cgroups have the name {target!r}", f"use one of {', '.join(sorted(found))}", EXIT_USAGE
            )
        if found:
            return found[0]
    raise TracerError(
        f"no running container, pod or unit is called {target!r}",
        "use the name of one, a cgroup path (/sys/fs/cgroup/...) or a PID",
        EXIT_USAGE,
    )


def _topmost(paths: list[str]) -> list[str]:
    """Drop cgroups below others; ``paths`` has parents first."""
    found: list[str] = []
    for path in paths:
        if not any(is_below(path, each) for each in found):
            found.append(path)
    return found


def _pod_of(path: str) -> str:
    parent = os.path.dirname(path)
    return (
        parent if cgroup_path.classify_cgroup(path) != "pod" and cgroup_path.classify_cgroup(parent) == "pod" else path
    )


def normalize_cgroup_path(text: str) -> str:
    """A cgroup's path as records spell it; ``text`` may be a path below the mount point.

    Raises TracerError (exit code 2) if it is not absolute.
    """
    path = cgroupfs.escape_path(text)
    if not path.startswith("/"):
        raise TracerError(f"{path!r} is not a cgroup path", "use /sys/fs/cgroup/... or a path below it", EXIT_USAGE)
    return _MOUNT.sub("", path).rstrip("/") or "/"


def format_owner(text: str) -> str:
    """KIND:NAME of the container, pod or unit that owns a cgroup.

    Raises TracerError (exit code 2) if none does.
    """
    path = normalize_cgroup_path(text)
    owner = owner_of(cgroup_path.parse_cgroup_path(path)._asdict())
    if owner.container is not None:
        return f"container:{owner.container['id']}"
    if owner.kubernetes is not None and owner.kubernetes["pod_uid"]:
        return f"pod:{owner.kubernetes['pod_uid']}"
    if owner.systemd is not None and owner.systemd["unit"]:
        return f"unit:{owner.systemd['unit']}"
    raise TracerError(
        f"cgroup {path} belongs to no container, pod or unit", "use the name of one, or a PID", EXIT_USAGE
    )
