# SPDX-License-Identifier: Apache-2.0
"""resolve.py: a path or a pid, as a user types it, becomes a path from the root of the hierarchy."""

import os
from pathlib import Path

import pytest

from tests.harness.events import NOBODY
from tracer.base.errors import EXIT_USAGE, TracerError
from tracer.identity.cgroup_path import parse_proc_cgroup
from tracer.identity.resolve import resolve
from tracer.identity.runtimes import Runtimes

ID = "5aaf9eb7648eeb1459d86eaa0ace8bcfa93089642e5c3113a14250dae3238aaf"


@pytest.mark.parametrize(
    ("typed", "path"),
    [
        ("/", "/"),
        ("/system.slice/a.service", "/system.slice/a.service"),
        ("/sys/fs/cgroup", "/"),
        ("/sys/fs/cgroup/", "/"),
        ("/sys/fs/cgroup/system.slice/a.service", "/system.slice/a.service"),
        # cgroup v1, and v1 beside v2
        ("/sys/fs/cgroup/memory", "/"),
        ("/sys/fs/cgroup/memory/", "/"),
        (f"/sys/fs/cgroup/memory/docker/{ID}", f"/docker/{ID}"),
        (f"/sys/fs/cgroup/unified/docker/{ID}", f"/docker/{ID}"),
        (f"/sys/fs/cgroup/systemd/docker/{ID}", f"/docker/{ID}"),
        (f"/sys/fs/cgroup/cpu,memory/docker/{ID}", f"/docker/{ID}"),
        (f"/sys/fs/cgroup/memory,hugetlb/docker/{ID}", f"/docker/{ID}"),
        # no mount point
        ("/sys/fs/cgroup/memory.slice/a.service", "/memory.slice/a.service"),
        ("/sys/fs/cgroup/unified.service", "/unified.service"),
        ("/sys/fs/cgroup.old/a", "/sys/fs/cgroup.old/a"),
        ("/memory/a", "/memory/a"),
        ("/a/sys/fs/cgroup/b", "/a/sys/fs/cgroup/b"),
    ],
)
def test_path(typed: str, path: str) -> None:
    """Where the hierarchy is mounted is no part of a cgroup's path."""
    assert path == resolve(typed, Runtimes())["cgroup"]


def test_what_it_is() -> None:
    """The same is told as in a record."""
    resolved = resolve(f"/sys/fs/cgroup/memory/docker/{ID}", Runtimes())
    assert resolved["level"] == "container"
    assert resolved["container"] is not None
    assert (resolved["container"]["id"], resolved["container"]["runtime"]) == (ID, "docker")
    assert (resolved["kubernetes"], resolved["systemd"]) == (None, None)


def test_bytes() -> None:
    """A path that is no UTF-8 is written as in a record."""
    assert resolve(os.fsdecode(b"/a\xff"), Runtimes())["cgroup"] == "/a\\xff"


def test_pid() -> None:
    """A process's path is that of the memory controller."""
    path = parse_proc_cgroup(Path("/proc/self/cgroup").read_text())
    assert path is not None
    assert path == resolve(str(os.getpid()), Runtimes())["cgroup"]


@pytest.mark.parametrize("typed", ["", " ", "docker", "a/b", "./a", "-1", "1.5", "0x10", str(NOBODY), "0", "9" * 40])
def test_neither(typed: str) -> None:
    """What is neither a path nor the pid of a process is wrong usage."""
    with pytest.raises(TracerError) as caught:
        resolve(typed, Runtimes())
    assert caught.value.exit_code == EXIT_USAGE
