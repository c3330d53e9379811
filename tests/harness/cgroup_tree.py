# SPDX-License-Identifier: Apache-2.0
"""A directory that imitates a mounted cgroup v2 hierarchy, as far as OOM kills are counted in it."""

import shutil
from pathlib import Path

import pytest

from tracer.linux import cgroupfs


class CgroupTree:
    """The hierarchy that cgroupfs finds, in place of the host's."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, root: str = "/") -> None:
        self._mount = folder / "cgroup"
        self._mount.mkdir()
        mountinfo = folder / "mountinfo"
        mountinfo.write_text(f"34 32 0:30 {root} {self._mount} rw,nsdelegate - cgroup2 cgroup2 rw\n")
        monkeypatch.setattr(cgroupfs, "MOUNTINFO", str(mountinfo))

    def count(self, path: str, oom_kills: int) -> None:
        """Set the count of OOM kills of a cgroup, which is created if it is missing."""
        folder = self._mount / path.strip("/")
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "memory.events.local").open("w") as file:  # in place, to keep the inode
            file.write(f"low 0\nmax 9\noom {oom_kills}\noom_kill {oom_kills}\noom_group_kill 0\n")

    def remake(self, path: str, oom_kills: int) -> None:
        """Replace a cgroup by another one of the same name."""
        folder = self._mount / path.strip("/")
        folder.rename(folder.with_name("gone"))  # kept meanwhile, so that its inode is not reused
        self.count(path, oom_kills)
        self.remove("/gone")

    def remove(self, path: str) -> None:
        shutil.rmtree(self._mount / path.strip("/"))
