# SPDX-License-Identifier: Apache-2.0
"""What a user types -> its cgroup, and whose that is: what ``oomtrace resolve`` shows."""

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
    """Folders of runtimes that could not be read, and what may be missing for that."""


def resolve_target(target: str, runtimes: Runtimes) -> ResolvedTarget:
    """The same objects as in a record, with the names that the runtimes' files tell now.

    ``target``: a cgroup path, the pid of a process, or the name of a container, pod or unit that runs.

    Raises TracerError (exit code 2) where it is none of these, or the name of several.
    """
    if is_pid(target):
        path = _path_of_pid(int(target))
    elif target.startswith("/"):
        path = normalize_cgroup_path(target)
    else:
        path = _path_of_name(target, runtimes)
    whose = enrich.resolve_cgroup(path, runtimes.fetch_metadata)
    return {
        "cgroup": path,
        "level": cgroup_path.classify_cgroup(path),
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


def _path_of_name(target: str, runtimes: Runtimes) -> str:
    """The cgroup of what runs under that name, of the first kind that has it; KIND:NAME means one kind."""
    name, only = split_kind(target, MATCHERS)
    paths = [cgroupfs.escape_path(path) for path in cgroupfs.list_cgroups()]
    identified = {path: enrich.resolve_cgroup(path, runtimes.fetch_metadata)._asdict() for path in paths}
    for kind in MATCHERS if only is None else (only,):
        found = _topmost([path for path, fields in identified.items() if MATCHERS[kind](name, fields)])
        if kind == "pod":  # where only its containers' cgroups have its name
            found = sorted({_pod_of(path) for path in found})
        if len(found) > 1:
            raise TracerError(
                f"{target!r} names several cgroups", f"give one of {', '.join(sorted(found))}", EXIT_USAGE
            )
        if found:
            return found[0]
    raise TracerError(
        f"nothing that runs is called {target!r}",
        "give a container, pod or unit, a cgroup path (/sys/fs/cgroup/...) or a PID",
        EXIT_USAGE,
    )


def _topmost(paths: list[str]) -> list[str]:
    """Without those below others; parents come first."""
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
    """A cgroup's path as records spell it, wherever the user copied it from.

    Raises TracerError (exit code 2) where it is not absolute.
    """
    path = cgroupfs.escape_path(text)
    if not path.startswith("/"):
        raise TracerError(f"{path!r} is not a cgroup path", "give /sys/fs/cgroup/... or a path below it", EXIT_USAGE)
    return _MOUNT.sub("", path).rstrip("/") or "/"


def format_owner(text: str) -> str:
    """KIND:NAME of the container, pod or unit that a cgroup is of.

    Raises TracerError (exit code 2) for one of the host's own.
    """
    path = normalize_cgroup_path(text)
    own = owner_of(cgroup_path.parse_cgroup_path(path)._asdict())
    if own.container is not None:
        return f"container:{own.container['id']}"
    if own.kubernetes is not None and own.kubernetes["pod_uid"]:
        return f"pod:{own.kubernetes['pod_uid']}"
    if own.systemd is not None and own.systemd["unit"]:
        return f"unit:{own.systemd['unit']}"
    raise TracerError(f"cgroup {path} is of no container, pod or unit", "give one of these, or a PID", EXIT_USAGE)
