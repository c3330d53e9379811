# SPDX-License-Identifier: Apache-2.0
"""The mounted hierarchy of memory cgroups."""

import os
from collections.abc import Iterator
from typing import NamedTuple

from tracer.base.clock import boottime_ns

MOUNTINFO = "/proc/self/mountinfo"
COUNT_MAX = 50_000
"""Maximum number of cgroups that are listed."""
OOM_KILL_FILES = ("memory.events.local", "memory.oom_control")
"""Of cgroup v2 (Linux 5.2 and later) and of v1.  Both count only the cgroup's own victims, not those below it."""
READ_MAX = 4096
"""Size of the read buffer in bytes; such a file has a few short lines."""
_ESCAPES = {"\\040": " ", "\\011": "\t", "\\012": "\n", "\\134": "\\"}


class Mount(NamedTuple):
    root: str
    """The cgroup that is mounted: ``/``, except in a container that does not have the host's hierarchy."""
    point: str


class OomKillCount(NamedTuple):
    """A cgroup's own counter."""

    inode: int
    """Distinguishes the cgroup from an earlier or later one with the same path."""
    oom_kills: int
    """Processes killed in this cgroup, not in those below it."""
    read_ns: int
    """Time of the read (CLOCK_BOOTTIME); the count includes all kills before it."""


def parse_mountinfo(mountinfo: str) -> Mount | None:
    """The memory controller's mount, from the text of /proc/PID/mountinfo (proc(5)); None: it is not mounted."""
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
    """The memory controller's mount on this host; None: it is not mounted."""
    try:
        with open(MOUNTINFO, encoding="utf-8", errors="surrogateescape") as file:
            return parse_mountinfo(file.read())
    except OSError:
        return None


def first_process(mount: Mount, path: str) -> int | None:
    """Pid of a process in a cgroup; None: no visible process, or no such cgroup."""
    try:
        with open(f"{mount.point}/{path.removeprefix(mount.root)}/cgroup.procs", encoding="ascii") as file:
            return int(file.readline()) or None
    except (OSError, ValueError):
        return None


def list_cgroups() -> Iterator[str]:
    """Paths of all visible memory cgroups, as the kernel names them; parents first, at most COUNT_MAX."""
    return (path for path, _folder in _walk_directories())


def list_oom_kill_counts() -> Iterator[tuple[str, OomKillCount]]:
    """Path and count of each memory cgroup that counts OOM kills."""
    for path, folder in _walk_directories():
        count = _count_in(folder)
        if count is not None:
            yield path, count


def read_oom_kill_count(mount: Mount, path: str) -> OomKillCount | None:
    """The count of the cgroup with this path; None: it is gone, is not visible, or does not count OOM kills."""
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
        except OSError:  # removed meanwhile
            continue
        finally:
            os.close(opened)
    return None


def escape_path(path: str) -> str:
    """A cgroup path as records have it: bytes that are not UTF-8 as backslash escapes instead of surrogates."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _walk_directories() -> Iterator[tuple[str, str]]:
    """Path and directory of each visible memory cgroup, parents first."""
    mount = find_mount()
    waiting = [mount.point] if mount else []
    seen = 0
    while waiting and mount and seen < COUNT_MAX:
        folder = waiting.pop()
        seen += 1
        path = mount.root.rstrip("/") + folder[len(mount.point.rstrip("/")) :]
        yield escape_path(path or "/"), folder
        try:
            with os.scandir(folder) as entries:
                waiting.extend(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
        except OSError:  # removed meanwhile
            continue


def _without_parents(root: str) -> str:
    """Replace a root of ".." components by "/".

    A process in a cgroup namespace sees the root of the whole hierarchy as /../..; a mount of a part of the hierarchy
    has a path that leads down.
    """
    return "/" if set(root.split("/")) <= {"", ".."} else root


def _unescape(text: str) -> str:
    for escaped, char in _ESCAPES.items():
        text = text.replace(escaped, char)
    return text
