# SPDX-License-Identifier: Apache-2.0
"""The mounted hierarchy of memory cgroups."""

import os
from collections.abc import Iterator
from typing import NamedTuple

from tracer.base.clock import boottime_ns

MOUNTINFO = "/proc/self/mountinfo"
COUNT_MAX = 50_000
OOM_KILL_FILES = ("memory.events.local", "memory.oom_control")
"""Of cgroup v2 (Linux 5.2 and later) and v1: both count the cgroup's own victims only."""
READ_MAX = 4096
"""Such a file has a handful of short lines."""
_ESCAPES = {"\\040": " ", "\\011": "\t", "\\012": "\n", "\\134": "\\"}


class Mount(NamedTuple):
    root: str
    """Which cgroup is mounted: ``/``, but in a container that was not given the host's."""
    point: str


class OomKillCount(NamedTuple):
    """What a cgroup says of itself."""

    inode: int
    """Tells it from another one that had, or will have, the same path."""
    oom_kills: int
    """Processes that were killed in it, not in those below."""
    read_ns: int
    """When it was read, CLOCK_BOOTTIME; what was killed before is in it."""


def parse_mountinfo(mountinfo: str) -> Mount | None:
    """Where the memory controller is, from the text of /proc/PID/mountinfo (proc(5)); None: nowhere."""
    unified: Mount | None = None
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, kinds = left.split(" "), right.split(" ")
        if kinds[0] not in ("cgroup", "cgroup2") or len(fields) < 5:
            continue
        mount = Mount(_without_parents(_unescape(fields[3])), _unescape(fields[4]))
        if kinds[0] == "cgroup" and "memory" in kinds[-1].split(","):
            return mount
        if kinds[0] == "cgroup2" and unified is None:
            unified = mount
    return unified


def find_mount() -> Mount | None:
    """Where the memory controller is on this host; None: nowhere."""
    try:
        with open(MOUNTINFO, encoding="utf-8", errors="surrogateescape") as file:
            return parse_mountinfo(file.read())
    except OSError:
        return None


def first_process(mount: Mount, path: str) -> int | None:
    """A process of a cgroup; None: there is none that this process can see, or no such cgroup."""
    try:
        with open(f"{mount.point}/{path.removeprefix(mount.root)}/cgroup.procs", encoding="ascii") as file:
            return int(file.readline()) or None
    except (OSError, ValueError):
        return None


def list_cgroups() -> Iterator[str]:
    """All memory cgroups that this process can see, as the kernel names them, at most COUNT_MAX; parents first."""
    return (path for path, _folder in _folders())


def list_oom_kill_counts() -> Iterator[tuple[str, OomKillCount]]:
    """The memory cgroups that count OOM kills, and how many."""
    for path, folder in _folders():
        count = _count_in(folder)
        if count is not None:
            yield path, count


def read_oom_kill_count(mount: Mount, path: str) -> OomKillCount | None:
    """What the cgroup counts that the kernel names so; None: it is gone, cannot be seen, or does not count."""
    below = path.removeprefix(mount.root.rstrip("/"))
    is_inside = mount.root == "/" or below != path
    return _count_in(f"{mount.point}{below}") if is_inside and (below.startswith("/") or not below) else None


def _count_in(folder: str) -> OomKillCount | None:
    for name in OOM_KILL_FILES:
        try:
            opened = os.open(f"{folder}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            _, found, kills = os.read(opened, READ_MAX).partition(b"oom_kill ")
            if found:
                return OomKillCount(os.fstat(opened).st_ino, int(kills.split(maxsplit=1)[0]), boottime_ns())
        except OSError:  # it is gone
            continue
        finally:
            os.close(opened)
    return None


def _folders() -> Iterator[tuple[str, str]]:
    """Path and folder of each, parents first."""
    mount = find_mount()
    waiting = [mount.point] if mount else []
    seen = 0
    while waiting and mount and seen < COUNT_MAX:
        folder = waiting.pop()
        seen += 1
        path = mount.root.rstrip("/") + folder[len(mount.point.rstrip("/")) :]
        yield os.fsencode(path or "/").decode("utf-8", "backslashreplace"), folder
        try:
            with os.scandir(folder) as entries:
                waiting.extend(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
        except OSError:  # it is gone
            continue


def _without_parents(root: str) -> str:
    """The root as the kernel names it, where a process in a cgroup namespace sees a way up: /../.. is above its own.

    What is mounted there is the whole hierarchy: who mounts a part of it mounts one that leads down.
    """
    return "/" if set(root.split("/")) <= {"", ".."} else root


def _unescape(text: str) -> str:
    for escaped, char in _ESCAPES.items():
        text = text.replace(escaped, char)
    return text
