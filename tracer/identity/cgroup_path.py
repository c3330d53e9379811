# SPDX-License-Identifier: Apache-2.0
"""Identifies a memory cgroup by its path alone.

The path is as the kernel builds it, from the root of the hierarchy that has the memory controller (cgroup v1 or v2).
``parse_cgroup_path`` returns the container, the pod and the systemd unit on it; ``classify_cgroup`` returns what the
cgroup itself is.  Neither reads any file: an OOM victim's cgroup is often removed before it could be read.
``tracer/identity/cgroup_forms.py`` has the forms of path that container managers use.

Anybody who may write to a cgroup (a container with a subtree of its own, a user below user@UID.service) may create
children with any name below it; such a name is only that user's claim.  So the path is read from the root down, and
nothing below a container, or in a user's part of the tree, changes the ``owner``.
"""

import re
from functools import lru_cache
from typing import Literal, NamedTuple

from tracer.identity import cgroup_forms
from tracer.identity.cgroup_forms import Component
from tracer.records.model import Level
from tracer.records.owner import Container, Identity, Kubernetes, Owner, OwnerContainer, Systemd

_QosClass = Literal["Guaranteed", "Burstable", "BestEffort"]

_UNIT_TYPES = frozenset(("service", "scope", "socket", "mount", "swap"))
CONTAINER_ROOTS = frozenset(("ns", "payload", "libvirt"))
"""What LXC, nspawn and libvirt put between a container's own cgroup and those that the container creates."""
_QOS_CLASSES: dict[str | None, _QosClass] = {"besteffort": "BestEffort", "burstable": "Burstable", None: "Guaranteed"}
_CACHED_PATHS = 32
"""Victim, limit and trigger mostly have the same cgroup, and so has the next kill."""
_CUT = "…"
"""Replaces the beginning of a path that was cut."""
_USER_SLICE = re.compile(r"user-[0-9]+\.slice")
# Printable ASCII except "/": an escape in a name must not become a newline or a terminal's escape sequence.
_ESCAPE = re.compile(r"\\x(2[0-9a-e]|[3-6][0-9a-f]|7[0-9a-e])")


class _PathContainer(NamedTuple):
    id: str
    runtime: str | None
    name: str | None
    """As in the path, escapes included."""


class _PathOwner(NamedTuple):
    container: _PathContainer | None
    kubernetes: Kubernetes | None
    unit: str | None
    slice: str | None


def parse_cgroup_path(path: str) -> Identity:
    """Return the container, pod and systemd unit on a cgroup's path.  Never raises.

    ``container``: the innermost one.  ``node_container_id`` is the outermost one if that differs: the node of a kind or
    minikube cluster, or a container that runs Docker.
    ``kubernetes``: the outermost pod, because a container in a pod of this host's cluster cannot claim another pod, and
    a cluster inside the pod is not this host's.  A pod inside a container counts only with a container of its own,
    which has a ``node_container_id``: a process that creates cgroups in a container can use the name of another pod.
    ``systemd``: the innermost unit that a systemd manages, be it a user's own (below user@1000.service) or that of a
    systemd inside the container, because users look for "mariadb.service in container 102".
    ``owner``: what the host created: the outermost container, its pod, the host's unit; for a user's processes the
    session or user@UID.service.  None: the three parts above are the owner.
    """
    walk = _walk(path)
    innermost = walk.here()
    owner = walk.owner or innermost
    container: Container | None = None
    if walk.container is not None:
        container = {
            "id": walk.container.id,
            "runtime": walk.container.runtime,
            "name": _name_of(walk.container),
            "image": None,
            "labels": None,
            "node_container_id": owner.container.id if walk.is_nested and owner.container else None,
            "ip_addresses": None,
        }
    systemd = _systemd(innermost.unit, innermost.slice)
    return Identity(container, _copy(innermost.kubernetes), systemd, None if innermost == owner else _to_record(owner))


def _to_record(owner: _PathOwner) -> Owner:
    outermost = owner.container
    container: OwnerContainer | None = None
    if outermost is not None:
        container = {"id": outermost.id, "runtime": outermost.runtime, "name": _name_of(outermost), "image": None}
    return {
        "container": container,
        "kubernetes": _copy(owner.kubernetes),
        "systemd": _systemd(owner.unit, owner.slice),
    }


def _copy(pod: Kubernetes | None) -> Kubernetes | None:
    """The cached one must not change when the caller adds names."""
    return None if pod is None else pod.copy()


def _name_of(container: _PathContainer) -> str | None:
    return None if container.name is None else _unescape(container.name)


def _systemd(unit: str | None, slice_: str | None) -> Systemd | None:
    return {"unit": unit, "slice": slice_} if unit or slice_ else None


def classify_cgroup(path: str, is_cut: bool = False) -> Level:
    """Return the kind of a cgroup whose limit was hit.  Never raises.

    ``root``: the whole hierarchy.  ``slice``: a systemd slice, or the directory of all pods under either driver.
    ``qos``: all pods of one QoS class.  ``pod``: a limit that several containers share: of a Kubernetes pod, a podman
    pod or an ECS task.  ``container``: a container's own cgroup or one that it created inside.  ``unit``: any other
    systemd unit, or a cgroup that the unit created inside.  ``other``: the rest.

    Inside a container the same names apply: a limit of the node's pod, or of mariadb.service in an LXC container, is
    not the container's limit.

    A path that lacks its end (``is_cut``) has a kind only if all cgroups below have the same.
    """
    level = _walk(path).level
    return level if not is_cut or level in ("container", "unit") else "other"


def parse_proc_cgroup(text: str) -> str | None:
    """Return the memory controller's path from the text of /proc/PID/cgroup (cgroups(7)); None: there is none.

    No other v1 line can replace it: the controllers may have a container at different paths (Garden).
    """
    unified: str | None = None
    # Not splitlines(): a cgroup's name may contain any line separator except "\n", which the kernel rejects.
    for line in text.split("\n"):
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not path.startswith("/"):
            continue
        # The kernel's mark on a cgroup that was removed while its last process exits.
        path = path.removesuffix(" (deleted)")
        if "memory" in controllers.split(","):
            return path
        if hierarchy == "0":
            unified = path
    return unified


@lru_cache(_CACHED_PATHS)
def _walk(path: str) -> "_Walk":
    """The state at the end of the path."""
    walk = _Walk("other" if path.strip("/") else "root")
    # "..": /proc/PID/cgroup, read from another cgroup namespace; kernfs has no such names.
    names = [name for name in path.split("/") if name not in ("", ".", "..")] if path[:1] != _CUT else []
    for component in cgroup_forms.split_path("/" + "/".join(names) if names else ""):
        walk.enter(component)
    walk.drop_forged_pod()
    return walk


class _Walk:
    """What the components of a path, read from the root down, belong to so far."""

    def __init__(self, level: Level) -> None:
        self.level = level
        self.owner: _PathOwner | None = None
        """None: everything so far was created by root on the host."""
        self.container: _PathContainer | None = None
        """The innermost one."""
        self.is_nested = False
        """Whether there is a container inside the owner's."""
        self._kubernetes: Kubernetes | None = None
        self._is_pod_in_container = False
        self._unit: str | None = None
        self._slice: str | None = None
        self._is_managed = True
        """Whether systemd can have created the next component.  It nests units in slices only.  Below a unit every name
        is the unit's own choice, unless the unit is a manager or a container with one."""

    def here(self) -> _PathOwner:
        return _PathOwner(self.container, self._kubernetes, self._unit, self._slice)

    def enter(self, component: Component) -> None:
        kind, name = component.form.kind, component.name
        suffix = name.rpartition(".")[2] if component.is_directory and self._is_managed else ""
        # init.scope holds systemd itself: the unit or the container around it says more.
        is_unit = suffix in _UNIT_TYPES and not (name == "init.scope" and (self._unit or self.container))
        is_slice = suffix == "slice"
        begins_user_part = self.owner is None and kind == "other" and self._is_users(component, is_unit)
        if is_unit:
            self._unit = _strip_unit_prefix(name)
        elif is_slice:
            self._slice = _strip_unit_prefix(name)

        if kind == "container":
            self._enter_container(component)
        elif kind in ("kubepods", "pod"):
            self._enter_pod(component)
        elif kind == "group":
            self.level = "pod"
        elif is_unit or is_slice:
            self.level = "unit" if is_unit else "slice"
        elif self.level != "unit":
            self.level = "container" if self.container else "other"

        if begins_user_part:
            self.owner = self.here()
        if kind == "container":
            self._is_managed = True
        elif name not in CONTAINER_ROOTS:
            self._is_managed = is_slice or (is_unit and name.startswith("user@"))

    def _enter_container(self, component: Component) -> None:
        id_, *name = component.groups
        self.level = "container"
        self.container = _PathContainer(id_ or "", component.form.runtime, name[0] if name else None)
        if self.owner is None:
            self.owner = self.here()
        elif self.owner.container and self.container.id == self.owner.container.id:
            self.container = self.owner.container  # the same container, repeated
        else:
            self.is_nested = self.owner.container is not None

    def _enter_pod(self, component: Component) -> None:
        qos, uid = component.groups
        self.level = "pod" if uid else "qos" if qos else "slice"
        if uid and self._kubernetes is None:
            is_class_unknown = component.form.kind == "pod" and qos is None
            self._kubernetes = _pod(uid, None if is_class_unknown else _QOS_CLASSES[qos])
            self._is_pod_in_container = self.owner is not None and self.owner.container is not None

    def _is_users(self, component: Component, is_unit: bool) -> bool:
        """Whether a user's part of the tree begins: any user@UID.service, a unit in the slice that logind creates for
        the user (session-N.scope), or what pam_cgfs gives to users (/user/NAME/N)."""
        if component.is_first and component.name == "user":
            return True
        is_in_user_slice = _USER_SLICE.fullmatch(self._slice or "") is not None
        return is_unit and self._unit is None and (component.name.startswith("user@") or is_in_user_slice)

    def drop_forged_pod(self) -> None:
        """A pod inside a container counts only with a container of its own (``parse_cgroup_path``)."""
        if self._is_pod_in_container and not self.is_nested:
            self._kubernetes = None


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


def _strip_unit_prefix(name: str) -> str:
    """systemd puts "_" before a name that would collide with a kernel file (_memory.service).  The \\x2d of a unit's
    name stays: systemctl expects it."""
    return name.removeprefix("_")
