# SPDX-License-Identifier: Apache-2.0
"""cgroup_path.py with paths of real managers, and with hostile paths.

cgroup_paths.json has one path per line with its expected identity; an absent key stands for null.
"""

import json
import time
from typing import Any, get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.harness import DATA
from tracer.identity.cgroup_path import classify_cgroup, parse_cgroup_path, parse_proc_cgroup
from tracer.records.model import Level
from tracer.records.owner import Identity, Kubernetes

Vector = dict[str, Any]

VECTORS: list[Vector] = json.loads((DATA / "cgroup_paths.json").read_text())
IN_CONTAINER = [vector for vector in VECTORS if "container" in vector]
IN_POD = [vector for vector in VECTORS if "kubernetes" in vector]

ID = "5aaf9eb7648eeb1459d86eaa0ace8bcfa93089642e5c3113a14250dae3238aaf"
FAKE = "f" * 64
POD = "6a4ce4a0-ba47-11ea-b2a7-0cc47ac5979e"

# Components of real paths, and components that are meant to break a parser.
_FRAGMENTS = [
    *sorted({name for vector in VECTORS for name in vector["path"].split("/")}),
    "..",
    ".",
    " ",
    "a\nb",
    "\\xff\\xfe",
    "\u2028",
    "\x1b[31m",
    "x" * 4096,
    ":",
    ".slice:",
    "a.slice:b:c",
    ".scope",
    ".slice",
    "-.slice",
    "pod",
    f"pod{POD}",
    "kubepods-pod.slice",
    f"docker-{FAKE}.scope",
    f"libpod-{FAKE}",
    f"cri-containerd-{FAKE}.scope",
    FAKE,
    "system.slice",
    "sshd.service",
    "libpod_parent",
    "share.slice",
    "default",
    "lxc.payload.",
    "machine-.scope",
    "systemd-nspawn@.service",
]
PATHS = st.one_of(
    st.text(),
    st.lists(st.one_of(st.sampled_from(_FRAGMENTS), st.text(max_size=8)), max_size=12).map("/".join),
)


def _expected(vector: Vector) -> Identity:
    container = None
    owner: Any = None
    if "container" in vector:
        unknown = dict.fromkeys(("runtime", "name", "image", "labels", "node_container_id", "ip_addresses"))
        container = unknown | vector["container"]
    if "owner" in vector:
        made = vector["owner"]
        unknown = dict.fromkeys(("runtime", "name", "image"))
        owner = {
            "container": unknown | made["container"] if "container" in made else None,
            "kubernetes": _kubernetes(made),
            "systemd": made.get("systemd"),
        }
    return Identity(container, _kubernetes(vector), vector.get("systemd"), owner)


def _kubernetes(vector: Vector) -> Kubernetes | None:
    unknown = dict.fromkeys(("pod_name", "namespace", "container_name", "qos_class"))
    return unknown | vector["kubernetes"] if "kubernetes" in vector else None


def _outermost(identity: Identity) -> str | None:
    if identity.container is None:
        return None
    return identity.container["node_container_id"] or identity.container["id"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["shape"])
def test_identify(vector: Vector) -> None:
    """The identity of a path is the expected container, pod and unit."""
    assert _expected(vector) == parse_cgroup_path(vector["path"])


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["shape"])
def test_level(vector: Vector) -> None:
    """The level of a path is the expected one."""
    assert vector["level"] == classify_cgroup(vector["path"])


def test_every_level_is_tested() -> None:
    """The vectors have every level of the record model."""
    assert set(get_args(Level)) == {vector["level"] for vector in VECTORS}


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["shape"])
def test_from_another_cgroup_namespace(vector: Vector) -> None:
    """Leading "..", seen from another cgroup namespace, changes nothing."""
    assert _expected(vector) == parse_cgroup_path(
        "/../.." + "/" * (not vector["path"].startswith("/")) + vector["path"]
    )


@pytest.mark.parametrize(
    "path", ["//system.slice//docker-{}.scope/", "/./system.slice/../system.slice/docker-{}.scope"]
)
def test_odd_components(path: str) -> None:
    """Components that no cgroup can have are skipped."""
    assert parse_cgroup_path(f"/system.slice/system.slice/docker-{ID}.scope") == parse_cgroup_path(
        path.replace("/system.slice//", "/system.slice/system.slice/").format(ID)
    )


@pytest.mark.parametrize(
    "child",
    [
        f"docker-{FAKE}.scope",
        f"libpod-{FAKE}",
        FAKE,
        f"kubepods/pod00000000-1111-4222-8333-444444444444/{FAKE}",
        f"kubepods.slice/kubepods-pod00000000_1111_4222_8333_444444444444.slice/crio-{FAKE}.scope",
        f"../../pod00000000-1111-4222-8333-444444444444/{FAKE}",
        f"foo.slice:cri-containerd:{FAKE}",
    ],
)
def test_forged_container(child: str) -> None:
    """A container that creates cgroups with the name of another container or pod remains the owner."""
    identity = parse_cgroup_path(f"/kubepods/burstable/pod{POD}/{ID}/{child}")
    assert identity.container
    assert identity.container["id"] == FAKE
    assert identity.container["node_container_id"] == ID
    assert identity.kubernetes
    assert identity.kubernetes["pod_uid"] == POD
    assert identity.kubernetes["qos_class"] == "Burstable"


def test_same_id_twice_is_one_container() -> None:
    """A container with its id twice on the path is not its own node."""
    identity = parse_cgroup_path(f"/docker/{ID}/docker/{ID}")
    assert identity.container
    assert identity.container["node_container_id"] is None


@pytest.mark.parametrize(
    ("escaped", "name"),
    [
        ("web\\x2d1", "web-1"),
        ("a\\x5cx2d", "a\\x2d"),
        ("\\x0a\\x1b\\x7f\\xff", "\\x0a\\x1b\\x7f\\xff"),
        ("\\x2", "\\x2"),
    ],
)
def test_unescape(escaped: str, name: str) -> None:
    """systemd's escapes in a name are decoded, unless the result is not printable ASCII."""
    container = parse_cgroup_path(f"/machine.slice/systemd-nspawn@{escaped}.service").container
    assert container
    assert (escaped, name) == (container["id"], container["name"])


@given(PATHS)
@example("/" * 10_000)
@example("/a" * 10_000)
@example(f"/docker/{ID}" * 1_000)
@example("/" + "x" * 4096)
@example("/docker-\n.scope\n/\n")
def test_any_path(path: str) -> None:
    """No path raises; ids are verbatim, and no escape becomes a control character."""
    identity = parse_cgroup_path(path)
    assert classify_cgroup(path) in get_args(Level)
    if identity.container:
        assert identity.container["id"] in path
        assert (identity.container["node_container_id"] or "") in path
        assert {c for c in identity.container["name"] or "" if not c.isprintable()} <= set(path)
    if identity.kubernetes:
        assert identity.kubernetes["pod_uid"]
    if identity.systemd:
        assert identity.systemd["unit"] or identity.systemd["slice"]
        assert (identity.systemd["unit"] or "") in path


@given(st.sampled_from(IN_CONTAINER), PATHS)
def test_below_a_container(vector: Vector, child: str) -> None:
    """No name below a container changes or removes the outermost container."""
    assert _outermost(parse_cgroup_path(vector["path"])) == _outermost(parse_cgroup_path(f"{vector['path']}/{child}"))


@given(st.sampled_from(IN_POD), PATHS)
def test_below_a_pod(vector: Vector, child: str) -> None:
    """No name below a pod changes the pod."""
    assert parse_cgroup_path(vector["path"]).kubernetes == parse_cgroup_path(f"{vector['path']}/{child}").kubernetes


@given(PATHS, PATHS)
def test_below_anything(path: str, child: str) -> None:
    """The owner of a path stays the owner of all cgroups below it."""
    above = parse_cgroup_path(path)
    below = parse_cgroup_path(f"{path}/{child}")
    if above.container:
        assert _outermost(above) == _outermost(below)
    if above.kubernetes:
        assert above.kubernetes == below.kubernetes


@pytest.mark.parametrize(
    ("head", "unit"),
    [
        ("", "/"),
        ("", "/a"),
        ("/", "x"),
        ("", f"/docker-{ID}.scope"),
        ("/", "docker-"),
        ("/", "kubepods-"),
        ("/", "kubepods-burstable-pod"),
        ("/kubepods/pod", "0"),
        ("/", "x.slice:"),
        ("/", f"x.slice:docker:{ID}"),
        ("/", "-bpm-bpm-"),
        ("/bpm-", ".2e"),
        ("/machine.slice/machine-", ".scope"),
        ("/", "machine-lxc\\x2d1\\x2d"),
        ("/", "libpod_pod_"),
        ("/", ".libvirt-lxc"),
        ("/default/", ".service"),
        ("/lxc/", "\n"),
        ("/", "\\x2d"),
        ("/system.slice", "/init.scope"),
    ],
)
def test_long_path(head: str, unit: str) -> None:
    """A path of 100 kB is parsed in linear time: no pattern backtracks."""
    path = head + unit * (100_000 // len(unit))
    start = time.process_time()
    parse_cgroup_path(path)
    classify_cgroup(path)
    # About 0.05 s; a quadratic pattern takes minutes.
    assert time.process_time() - start < 5


CGROUP_V1 = f"""\
12:memory:/system.slice/garden.service/garden/6f265890-5165-7fab-6b52-18d1
11:rdma:/
10:freezer:/garden/6f265890-5165-7fab-6b52-18d1
3:cpu,cpuacct:/docker/{ID}
1:name=systemd:/docker/{ID}
0::/system.slice/containerd.service
"""


@pytest.mark.parametrize(
    ("text", "path"),
    [
        pytest.param(CGROUP_V1, "/system.slice/garden.service/garden/6f265890-5165-7fab-6b52-18d1", id="v1"),
        pytest.param("4:cpu,memory,pids:/a\n0::/b\n", "/a", id="v1, several controllers"),
        pytest.param("0::/b\n4:memory:/a\n", "/a", id="v1, in whatever order"),
        pytest.param("4:hugetlb:/a\n0::/b\n", "/b", id="hybrid, memory on v2"),
        pytest.param("1:name=memory:/a\n0::/b\n", "/b", id="a named hierarchy is no controller"),
        pytest.param(f"0::/docker/{ID}\n", f"/docker/{ID}", id="v2"),
        pytest.param("0::/\n", "/", id="v2, root or a cgroup namespace"),
        pytest.param("0::/../../x\n", "/../../x", id="v2, another cgroup namespace"),
        pytest.param("0::/a/b (deleted)\n", "/a/b", id="v2, removed"),
        pytest.param("0::/a:b:c", "/a:b:c", id="colons"),
        pytest.param("0::/a\x0b\x85\u2028\rb\n", "/a\x0b\x85\u2028\rb", id="line separators other than a newline"),
        pytest.param("4:cpu:/a\n1:name=systemd:/b\n", None, id="no memory controller"),
        pytest.param("", None, id="empty: a process without a cgroup"),
        pytest.param("memory\n0:\n0::\n::\nnonsense\n", None, id="malformed"),
    ],
)
def test_parse_proc_cgroup(text: str, path: str | None) -> None:
    """The path is the memory controller's, v1 before v2."""
    assert path == parse_proc_cgroup(text)


@given(st.text())
def test_parse_proc_cgroup_any_text(text: str) -> None:
    """No text raises, and a path is absolute and part of the text."""
    path = parse_proc_cgroup(text)
    assert path is None or (path.startswith("/") and path in text)


@given(st.text().filter(lambda name: "\n" not in name and not name.endswith(" (deleted)")))
def test_parse_proc_cgroup_any_name(name: str) -> None:
    """Every name that the kernel allows is returned unchanged."""
    assert f"/{name}" == parse_proc_cgroup(f"1:cpu:/x\n0::/{name}\n")


@pytest.mark.parametrize(
    "child",
    [
        "kubepods/pod00000000-1111-4222-8333-444444444444",
        f"kubepods/pod00000000-1111-4222-8333-444444444444/{ID}",
        f"kubepods.slice/kubepods-pod00000000_1111_4222_8333_444444444444.slice/docker-{ID}.scope",
    ],
)
def test_forged_pod(child: str) -> None:
    """A container outside pods cannot enter a pod by names of its own cgroups."""
    identity = parse_cgroup_path(f"/docker/{ID}/{child}")
    assert identity.container
    assert (identity.container["id"], identity.container["node_container_id"]) == (ID, None)
    assert identity.kubernetes is None


def test_forged_pod_with_a_container() -> None:
    """With a container inside, the pod counts as a node's, and node_container_id is set, in any order of the names."""
    pod = "kubepods/pod00000000-1111-4222-8333-444444444444"
    for child in (f"{pod}/{FAKE}", f"{pod}/{FAKE}/docker/{ID}", f"docker/{FAKE}/{pod}/{ID}"):
        identity = parse_cgroup_path(f"/docker/{ID}/{child}")
        assert identity.container
        assert identity.container["node_container_id"] == ID
