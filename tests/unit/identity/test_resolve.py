# SPDX-License-Identifier: Apache-2.0
"""resolve.py: a NAME, pid or path from a user becomes a path from the root of the hierarchy."""

import json
import os
from pathlib import Path

import pytest

from tests.harness.cgroup_tree import CgroupTree
from tests.harness.events import NOBODY
from tracer.base.errors import EXIT_USAGE, TracerError
from tracer.identity.cgroup_path import parse_proc_cgroup
from tracer.identity.resolve import format_owner, resolve_target
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
        # not a mount point
        ("/sys/fs/cgroup/memory.slice/a.service", "/memory.slice/a.service"),
        ("/sys/fs/cgroup/unified.service", "/unified.service"),
        ("/sys/fs/cgroup.old/a", "/sys/fs/cgroup.old/a"),
        ("/memory/a", "/memory/a"),
        ("/a/sys/fs/cgroup/b", "/a/sys/fs/cgroup/b"),
    ],
)
def test_path(typed: str, path: str) -> None:
    """The mount point is not part of a cgroup's path."""
    assert path == resolve_target(typed, Runtimes())["cgroup"]


def test_what_it_is() -> None:
    """The result is the same as in a record."""
    resolved = resolve_target(f"/sys/fs/cgroup/memory/docker/{ID}", Runtimes())
    assert resolved["level"] == "container"
    assert resolved["container"] is not None
    assert (resolved["container"]["id"], resolved["container"]["runtime"]) == (ID, "docker")
    assert (resolved["kubernetes"], resolved["systemd"]) == (None, None)


def test_bytes() -> None:
    """A path with invalid UTF-8 is escaped as in a record."""
    assert resolve_target(os.fsdecode(b"/a\xff"), Runtimes())["cgroup"] == "/a\\xff"


def test_pid() -> None:
    """A process's path is the memory controller's."""
    path = parse_proc_cgroup(Path("/proc/self/cgroup").read_text())
    assert path is not None
    assert path == resolve_target(str(os.getpid()), Runtimes())["cgroup"]


POD_UID = "2c48913c-b29f-11e7-9350-020968147796"
POD = f"/kubepods.slice/kubepods-pod{POD_UID.replace('-', '_')}.slice"
OTHER = ID[::-1]


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runtimes:
    """A Docker container with a cgroup inside, two containers of a pod, and a unit."""
    tree = CgroupTree(tmp_path, monkeypatch)
    for path in (f"/docker/{ID}/inner", f"{POD}/cri-containerd-{OTHER}.scope", "/system.slice/mail.service/inner"):
        tree.count(path, 0)
    tree.count(f"{POD}/cri-containerd-{OTHER[::-1].replace('5', '6')}.scope", 0)
    config = tmp_path / "docker" / "containers" / ID / "config.v2.json"
    config.parent.mkdir(parents=True)
    config.write_text(json.dumps({"Name": "/cart"}))
    return Runtimes([("docker", str(tmp_path / "docker"))])


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("cart", f"/docker/{ID}"),
        (ID, f"/docker/{ID}"),
        (ID[:12], f"/docker/{ID}"),
        ("container:cart", f"/docker/{ID}"),
        (POD_UID, POD),
        (f"pod:{POD_UID}", POD),
        ("mail", "/system.slice/mail.service"),
        ("mail.service", "/system.slice/mail.service"),
        ("unit:m*", "/system.slice/mail.service"),
    ],
)
def test_name(running: Runtimes, name: str, path: str) -> None:
    """A name resolves to its topmost cgroup, not to one inside or to a part."""
    resolved = resolve_target(name, running)
    assert resolved["cgroup"] == path
    assert resolved == resolve_target(path, running)


@pytest.mark.parametrize("name", ["unit:cart", ID[:5], "car", "pod:cart"])
def test_no_name(running: Runtimes, name: str) -> None:
    """Another kind, too few digits of an id and a part of a name do not match."""
    with pytest.raises(TracerError, match="no running container, pod or unit is called") as caught:
        resolve_target(name, running)
    assert caught.value.exit_code == EXIT_USAGE


def test_several(running: Runtimes, tmp_path: Path) -> None:
    """An ambiguous name is an error that lists all cgroups."""
    (tmp_path / "cgroup/system.slice/music.service").mkdir()
    with pytest.raises(TracerError, match=r"several cgroups have the name .*/mail\.service, .*/music\.service"):
        resolve_target("unit:m*", running)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (f"/sys/fs/cgroup/docker/{ID}/inner", f"container:{ID}"),
        (POD, f"pod:{POD_UID}"),
        ("/sys/fs/cgroup/memory/system.slice/mail.service", "unit:mail.service"),
    ],
)
def test_owner_name(path: str, name: str) -> None:
    """The KIND:NAME for `oomtrace why` with the path of a cgroup."""
    assert format_owner(path) == name


@pytest.mark.parametrize("path", ["/", "/system.slice", "/kubepods.slice"])
def test_of_nothing(path: str) -> None:
    """A cgroup of the host without container, pod or unit is an error."""
    with pytest.raises(TracerError, match="belongs to no container") as caught:
        format_owner(path)
    assert caught.value.exit_code == EXIT_USAGE


@pytest.mark.parametrize("typed", ["", " ", "nothing", "a/b", "./a", "-1", "1.5", "0x10", str(NOBODY), "0", "9" * 40])
def test_neither(typed: str) -> None:
    """Anything else is a usage error."""
    with pytest.raises(TracerError) as caught:
        resolve_target(typed, Runtimes())
    assert caught.value.exit_code == EXIT_USAGE
