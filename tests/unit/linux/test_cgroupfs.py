# SPDX-License-Identifier: Apache-2.0
"""cgroupfs.py: where the memory cgroups are mounted."""

from pathlib import Path

import pytest

from tracer.identity.cgroup_path import parse_proc_cgroup
from tracer.linux import cgroupfs, procfs
from tracer.linux.cgroupfs import Mount, parse_mountinfo

V1 = "35 32 0:31 / /sys/fs/cgroup/memory rw,nosuid shared:12 - cgroup cgroup rw,memory\n"
CPU = "36 32 0:33 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
V2 = "34 32 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n"
INSIDE = "40 32 0:30 /docker/abc /sys/fs/cgroup ro master:9 - cgroup2 cgroup rw\n"
GIVEN = "41 32 0:30 /../../.. /sys/fs/cgroup ro - cgroup2 cgroup rw\n"
"""The host's hierarchy in a container with its own cgroup namespace."""
SPACE = "40 32 0:30 / /mnt/my\\040cgroups ro - cgroup2 cgroup rw\n"


@pytest.mark.parametrize(
    ("mountinfo", "expected"),
    [
        (V2, Mount("/", "/sys/fs/cgroup")),
        (V2 + CPU + V1, Mount("/", "/sys/fs/cgroup/memory")),
        (CPU, None),
        (INSIDE, Mount("/docker/abc", "/sys/fs/cgroup")),
        (GIVEN, Mount("/", "/sys/fs/cgroup")),
        (SPACE, Mount("/", "/mnt/my cgroups")),
        ("", None),
        ("garbage\n - cgroup2\n" + V2, Mount("/", "/sys/fs/cgroup")),
    ],
)
def test_find_mount(mountinfo: str, expected: Mount | None) -> None:
    """The hierarchy with the memory controller, v1 before v2."""
    assert parse_mountinfo(mountinfo) == expected


def test_paths() -> None:
    """The list contains this process's cgroup."""
    text = procfs.read_cgroup(1)
    assert text is not None
    if parse_mountinfo(Path(cgroupfs.MOUNTINFO).read_text()) is None:
        assert list(cgroupfs.list_cgroups()) == []
    else:
        assert parse_proc_cgroup(text) in list(cgroupfs.list_cgroups())
