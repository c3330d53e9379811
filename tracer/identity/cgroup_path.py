# SPDX-License-Identifier: Apache-2.0
"""Names what a memory cgroup belongs to, from its path alone.

In goes a path as the kernel builds it, from the root of the hierarchy that has the memory controller (cgroup v1
or v2); out come the container, the pod and the systemd unit on it (``identify``), or what the cgroup itself is
(``level``).  Nothing is looked up: an OOM victim's cgroup is often removed before anybody can read it.

Hardly a manager documents its paths.  The table below follows what was seen on real hosts and in real kernel logs;
the sources of hashicorp/nomad (``client/lib/cgroupslib``) and cloudfoundry/bpm-release (``jobid``); and what
cilium/tetragon, coroot-node-agent, falcosecurity/plugins, netdata, google/cadvisor, grafana/beyla,
opentelemetry-ebpf-profiler, DataDog/dd-trace-go and elastic/apm test their own parsers against.  Where those
disagree, the comments say what is done here and why.

Whoever may write to a cgroup (a container with a subtree of its own, a user below user@UID.service) may create
children of any name below it; what they are called is that somebody's claim.  So the path is read from the root
down, and nothing below a container, or in a user's part of the tree, changes whose that is: the ``owner``.
"""

import re
from functools import lru_cache
from typing import Literal, NamedTuple, cast

from tracer.records.model import Level
from tracer.records.owner import Container, Identity, Kubernetes, Owner, OwnerContainer, Systemd

_QosClass = Literal["Guaranteed", "Burstable", "BestEffort"]

_HEX64 = r"[0-9a-f]{64}"
# BuildKit draws ids of its own: 25 digits to base 36.
_BASE36 = r"[0-9a-z]{25}"
_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_TASK = rf"(?:[0-9a-f]{{32}}|{_UUID})"
# An API pod's uid is a UUID, which the systemd driver writes with "_"; a static pod's is an MD5 of its configuration.
_POD_UID = r"[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32}"
# Below kubepods only the kubelet makes directories, and the manifest of a static pod may set any uid.
_ANY_UID = r"[0-9A-Za-z._-]{1,128}"
_QOS = r"besteffort|burstable"
# Where the name is the id, it is both groups.
_NAME = r"(([^/]+))"

# Kinds of rows.  Groups of the pattern: `container` id and, where the path has one, name; `kubepods` and `pod` QoS
# level and pod uid.  `group` is what holds the containers of one podman pod or one ECS task.
_Kind = Literal["container", "kubepods", "pod", "group", "other"]

# The first row that matches at a component wins, and takes one component or several.  Patterns must take linear
# time on any input: no two unbounded repeats that can share the same characters.
_TABLE: tuple[tuple[_Kind, str | None, str], ...] = (
    # docker/ID, docker-ID.scope and, where runc without systemd is given systemd's spec, SLICE:docker:ID.
    ("container", "docker", rf"docker[-:/]({_HEX64})(?:\.scope)?"),
    ("container", "containerd", rf"(?:cri-containerd|nerdctl)[-:]({_HEX64})(?:\.scope)?"),
    ("container", "cri-o", rf"crio[-:]({_HEX64})(?:\.scope)?"),
    # libpod-payload is `--cgroups=split`: quadlets and cephadm keep the container below their own service.
    ("container", "podman", rf"libpod(?:-payload)?[-:]({_HEX64})(?:\.scope)?"),
    ("container", "buildkit", rf"(?:docker[-:/]|buildkit[-:/])({_BASE36})(?:\.scope)?"),
    ("container", "lxc", rf"lxc(?:\.payload[./]|/){_NAME}"),
    ("container", "libvirt-lxc", rf"libvirt/lxc/{_NAME}"),
    ("container", "libvirt-lxc", rf"{_NAME}\.libvirt-lxc"),
    ("container", "libvirt-lxc", rf"machine-lxc\\x2d(?:[0-9]+\\x2d)?{_NAME}\.scope"),
    ("container", "systemd-nspawn", rf"systemd-nspawn@{_NAME}\.service"),
    # Virtual machines (machine-qemu\x2d1\x2dNAME.scope, Proxmox' qemu.slice/101.scope) are no containers.
    ("container", "systemd-nspawn", rf"(?<=/machine\.slice/)machine-(?!qemu\\x2d){_NAME}\.scope"),
    # The ECS agent starts its containers through Docker; on Fargate nothing tells what runs them.
    ("container", "docker", rf"ecs/{_TASK}/({_HEX64})"),
    ("container", "ecs", rf"ecs/(?:{_TASK}/)?([0-9a-f]{{32}}-[0-9]{{1,20}})"),
    # Garden cuts its UUIDs short: 8-4-4-4-4.
    ("container", "garden", r"garden/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{4,12})"),
    # One allocation holds several tasks, so its id alone would not tell them apart.
    ("container", "nomad", rf"(?:(?<=/share\.slice/)|(?<=/reserve\.slice/))({_UUID}\.([^/]+))\.scope"),
    ("container", "nomad", rf"nomad/({_UUID}\.([^/]+))"),
    # BPM writes any other byte as "." and two digits, so a unit's suffix is never part of a name.
    ("container", "bpm", r"(?:runc-|[0-9A-Za-z_-]{1,64}-bpm-)?(bpm-((?:[0-9A-Za-z_-]|\.[0-9a-f]{2})+))(?:\.scope)?"),
    # containerd without a plugin: /NAMESPACE/NAME, both free-form.  Only the namespaces that ctr, nerdctl, the CRI
    # plugin, dockerd and LinuxKit use are taken, and only at the root: otherwise every cgroup at depth two would be
    # a container (falcosecurity/plugins does that).  A namespace of a user's own stays unknown, unless the name is
    # 64 hex digits (nerdctl).
    ("container", "docker", rf"(?<=\A/)moby/({_HEX64})"),
    ("container", "containerd", rf"(?<=\A/)(?:default|k8s\.io|services\.linuxkit)/({_HEX64})"),
    (
        "container",
        "containerd",
        r"(?<=\A/)(?:default|k8s\.io|services\.linuxkit)/"
        r"(?![^/]*\.(?:service|scope|slice|socket|mount|swap)(?:/|\Z))(([0-9A-Za-z][0-9A-Za-z._-]{0,75}))",
    ),
    # kubelet, cgroupfs and systemd driver; a cgroup root of its own (kind: kubelet) comes in front.
    ("kubepods", None, rf"kubepods(?:/({_QOS})(?=/|\Z))?(?:/pod({_ANY_UID})(?=/|\Z))?"),
    ("kubepods", None, rf"(?:[^/:]*-)?kubepods(?:-({_QOS}))?(?:-pod({_ANY_UID}))?\.slice"),
    # As another cgroup namespace shows it, /../../podUID/ID: whether a QoS level is above cannot be seen.
    ("pod", None, rf"(?:({_QOS})/)?pod({_POD_UID})"),
    ("group", None, rf"libpod_parent/{_HEX64}"),
    ("group", None, rf"[a-z-]*libpod_pod_{_HEX64}\.slice"),
    ("group", None, rf"ecs/{_TASK}|ecstasks-{_TASK}\.slice"),
    # Docker, containerd and k3s under kubepods, and Docker with --cgroup-parent: the path does not tell which.
    ("container", None, rf"({_HEX64})"),
    ("other", None, r"[^/]+?"),
)

# runc without systemd takes systemd's SLICE:PREFIX:NAME for one directory; here the slice is a component, and so is
# the rest.
_SPEC = r"(?<=\.slice):(?=[^/:]+:[^/:]+(?:/|\Z))"
_SCAN = re.compile(
    rf"(?:/|{_SPEC})(?:" + "|".join(f"(?P<row{i}>{row[2]})" for i, row in enumerate(_TABLE)) + rf")(?=/|\Z|{_SPEC})"
)
# By Match.lastindex, the group that closed last: it is the row's own, which encloses the row's other groups.  Where
# those lie in Match.groups() follows from where the next row begins.
_STARTS = [*sorted(_SCAN.groupindex.values()), _SCAN.groups + 1]
_ROWS = {
    start: (kind, runtime, slice(start, end - 1))
    for (kind, runtime, _), start, end in zip(_TABLE, _STARTS, _STARTS[1:], strict=False)
}

_UNIT_TYPES = frozenset(("service", "scope", "socket", "mount", "swap"))
# What LXC, nspawn and libvirt put between a container's own cgroup and those that the container makes.
CONTAINER_ROOTS = frozenset(("ns", "payload", "libvirt"))
_QOS_CLASSES: dict[str | None, _QosClass] = {"besteffort": "BestEffort", "burstable": "Burstable", None: "Guaranteed"}
# A victim's cgroup is mostly its limit's, and its trigger's, and the same again when the next is killed.
_KEPT_PATHS = 32
_CUT = "…"  # in place of the beginning of a path that was cut
_USER_SLICE = re.compile(r"user-[0-9]+\.slice")
# Printable ASCII only: nothing that a name hides behind an escape may become a newline or a terminal's escape, nor "/".
_ESCAPE = re.compile(r"\\x(2[0-9a-e]|[3-6][0-9a-f]|7[0-9a-e])")


class _Found(NamedTuple):
    id: str
    runtime: str | None
    name: str | None


class _Owner(NamedTuple):
    container: _Found | None
    kubernetes: Kubernetes | None
    unit: str | None
    slice: str | None


class _Place(NamedTuple):
    owner: _Owner
    """What lies above all that somebody else than root may have made."""
    inner: _Found | None
    nested: bool
    """There is a container in the owner's."""
    kubernetes: Kubernetes | None
    unit: str | None
    slice: str | None
    level: Level


def parse_cgroup_path(path: str) -> Identity:
    """Name the container, pod and systemd unit on a cgroup's path; never raises, whatever the path holds.

    The container is the innermost on the path, ``node_container_id`` the outermost where that is another: the node
    of a kind or minikube cluster, or the container in which somebody runs Docker.  The pod is the outermost one:
    a container in a pod of this host's cluster cannot claim another, and a cluster inside it is not this host's.
    A pod inside a container counts only with a container of its own, which then has a ``node_container_id``: anybody
    who makes cgroups in a container can make one that is called like another's pod.

    The unit is the innermost that a systemd manages: a user's own (below user@1000.service), or that of a systemd
    inside the container, because "mariadb.service in container 102" is what the reader asks for.

    The ``owner`` is what the host made: the outermost container, its pod, the host's unit; of a user's his session or
    his user@1000.service.
    """
    place = _walk(path)
    owner = place.owner
    container: Container | None = None
    if place.inner:
        container = {
            "id": place.inner.id,
            "runtime": place.inner.runtime,
            "name": _name_of(place.inner),
            "image": None,
            "labels": None,
            "node_container_id": owner.container.id if place.nested and owner.container else None,
            "ip_addresses": None,
        }
    kubernetes = None if place.kubernetes is None else place.kubernetes.copy()
    shown = (place.inner, place.kubernetes, place.unit, place.slice)
    return Identity(container, kubernetes, _systemd(place.unit, place.slice), None if shown == owner else _made(owner))


def _made(owner: _Owner) -> Owner:
    found = owner.container
    container: OwnerContainer | None = None
    if found is not None:
        container = {"id": found.id, "runtime": found.runtime, "name": _name_of(found), "image": None}
    kubernetes = None if owner.kubernetes is None else owner.kubernetes.copy()
    return {"container": container, "kubernetes": kubernetes, "systemd": _systemd(owner.unit, owner.slice)}


def _name_of(found: _Found) -> str | None:
    return None if found.name is None else _unescape(found.name)


def _systemd(unit: str | None, slice_: str | None) -> Systemd | None:
    return {"unit": unit, "slice": slice_} if unit or slice_ else None


def classify_cgroup(path: str, is_cut: bool = False) -> Level:
    """Tell what a cgroup is, to say whose limit was hit; never raises, whatever the path holds.

    ``root``: the whole hierarchy.  ``slice``: a systemd slice, or the directory of all pods whichever driver made it.
    ``qos``: all pods of one quality of service.  ``pod``: what shares one limit among containers, that is a
    Kubernetes pod, a podman pod or an ECS task.  ``container``: a container's own cgroup or one that it made inside.
    ``unit``: any other systemd unit, or what the unit made inside.  ``other``: the rest.

    Inside a container the same names hold, because a limit of the node's pod or of mariadb.service in an LXC
    container is not the limit of the container.

    Of a path that lacks its end (``is_cut``) it is told only if it holds for all below.
    """
    found = _walk(path).level
    return found if not is_cut or found in ("container", "unit") else "other"


def parse_proc_cgroup(text: str) -> str | None:
    """Pick the memory controller's path from the text of /proc/PID/cgroup; None where there is none.

    The other v1 lines must not stand in: a container's place may differ between controllers (Garden).
    """
    unified: str | None = None
    # Not splitlines(): a cgroup's name may hold every line separator but "\n", which the kernel refuses.
    for line in text.split("\n"):
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not path.startswith("/"):
            continue
        # The kernel marks a cgroup that was removed under its last, dying process.
        path = path.removesuffix(" (deleted)")
        if "memory" in controllers.split(","):
            return path
        if hierarchy == "0":
            unified = path
    return unified


@lru_cache(_KEPT_PATHS)
def _walk(path: str) -> _Place:
    place: Level = "other" if path.strip("/") else "root"
    # "..": what /proc/PID/cgroup shows to a reader in another cgroup namespace; kernfs has no such names.
    components = [name for name in path.split("/") if name not in ("", ".", "..")] if path[:1] != _CUT else []
    path = "/" + "/".join(components) if components else ""
    owner: _Owner | None = None
    inner: _Found | None = None
    kubernetes: Kubernetes | None = None
    nested = pod_is_inside = False
    unit: str | None = None
    slice_: str | None = None
    # Whether systemd can have made the next component.  It nests units in slices only; below a unit everything is
    # the unit's own business, whatever it is called, unless the unit is itself a manager or a container with one.
    managed = True

    for match in _SCAN.finditer(path):
        kind, runtime, place_of_groups = _ROWS[cast(int, match.lastindex)]
        groups = match.groups()[place_of_groups]
        name = match[0][1:]
        # SLICE:PREFIX:NAME is one directory, and a token of several components is in none of systemd's trees.
        whole = "/" not in name and path[match.end() : match.end() + 1] != ":"
        suffix = name.rpartition(".")[2] if whole and managed else ""
        is_unit = suffix in _UNIT_TYPES
        # init.scope is where a systemd keeps itself: the unit or the container around it tells more.
        if is_unit and name == "init.scope" and (unit or inner):
            is_unit = False
        users = owner is None and kind == "other" and _is_users(match.start(), name, is_unit, unit, slice_)
        if is_unit:
            unit = _unescape_unit(name)
        elif suffix == "slice":
            slice_ = _unescape_unit(name)

        if kind == "container":
            inner = _Found(groups[0], runtime, groups[1] if len(groups) > 1 else None)
            if owner is None:
                owner = _Owner(inner, kubernetes, unit, slice_)
            elif owner.container and inner.id == owner.container.id:
                inner = owner.container  # once more the same
            else:
                nested = owner.container is not None
            place = "container"
        elif kind in ("kubepods", "pod"):
            qos, uid = groups
            place = "pod" if uid else "qos" if qos else "slice"
            if uid and kubernetes is None:
                kubernetes = _pod(uid, None if kind == "pod" and qos is None else _QOS_CLASSES[qos])
                pod_is_inside = owner is not None and owner.container is not None
        elif kind == "group":
            place = "pod"
        elif is_unit or suffix == "slice":
            place = "unit" if is_unit else "slice"
        elif place != "unit":
            place = "container" if inner else "other"
        if users:
            owner = _Owner(None, kubernetes, unit, slice_)

        if kind == "container":
            managed = True
        elif name not in CONTAINER_ROOTS:
            managed = suffix == "slice" or (is_unit and name.startswith("user@"))

    if pod_is_inside and not nested:
        kubernetes = None
    owner = owner or _Owner(inner, kubernetes, unit, slice_)
    return _Place(owner, inner, nested, kubernetes, unit, slice_, place)


def _is_users(start: int, name: str, is_unit: bool, unit: str | None, slice_: str | None) -> bool:
    """Whether what is below is a user's: a unit in the slice that logind makes for him (user@UID.service,
    session-N.scope), any user@UID.service, and what pam_cgfs gives to users (/user/NAME/N)."""
    if start == 0 and name == "user":
        return True
    return is_unit and unit is None and (name.startswith("user@") or _USER_SLICE.fullmatch(slice_ or "") is not None)


def _pod(uid: str, qos_class: _QosClass | None) -> Kubernetes:
    return {
        "pod_name": None,
        "namespace": None,
        "pod_uid": uid.replace("_", "-"),
        "container_name": None,
        "qos_class": qos_class,
    }


def _unescape(name: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), name)


def _unescape_unit(name: str) -> str:
    # systemd puts "_" before what would collide with a kernel file (_memory.service).  The \x2d of a unit's name
    # stays: it is part of the name that systemctl takes.
    return name.removeprefix("_")
