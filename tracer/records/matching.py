# SPDX-License-Identifier: Apache-2.0
"""The meaning of a NAME (container, pod, unit) that a user enters, and the names that are displayed.

A name refers to what the host's own runtimes and systemd created.  Inside that, names are OWNER/NAME: a container or
unit in a container (``kind-control-plane/0f76e495864f``, ``102/mariadb.service``), or a user's
(``user@1000.service/web``).  ``*/NAME`` refers to any owner.
"""

import re
from collections.abc import Callable, Collection, Mapping
from fnmatch import fnmatchcase
from typing import Any, AnyStr, Literal, NamedTuple

from tracer.records.owner import Container, Identity, Kubernetes, Systemd, owner_of

_PID_DIGITS_MAX = 10
"""A number with more digits may be a container id."""
ID_MIN = 6
"""Minimum length of an abbreviated container id if the name may also refer to something else."""

_GENERATED = re.compile(r"(?:-[bcdfghjklmnpqrstvwxz2456789]{8,10})?-[bcdfghjklmnpqrstvwxz2456789]{5}\Z")
"""What a Deployment, a DaemonSet or a Job appends to its name for a pod: hash of the template, random characters
(Kubernetes, util/rand)."""

Fields = Mapping[str, Any]
"""A record, a sender or a process, with ``container``, ``kubernetes``, ``systemd`` and ``owner``."""


Kind = Literal["container", "pod", "unit", "pid", "process"]
KINDS: tuple[Kind, ...] = ("container", "pod", "unit", "pid", "process")
"""Kinds of things that a NAME may refer to.  If it matches several, the first kind applies; KIND:NAME selects one."""


class OwnerFilter(NamedTuple):
    """Values of the options --container, --pod, --unit and --cgroup; None: not filtered."""

    container: str | None = None
    pod: str | None = None
    unit: str | None = None
    cgroup: str | None = None
    """A path as records spell it."""

    def matches(self, fields: Fields, cgroup: str | None) -> bool:
        """Whether a record or process with these fields, in this cgroup, passes every given option."""
        if self.container is not None and not names_container(self.container, fields):
            return False
        if self.pod is not None and not names_pod(self.pod, fields):
            return False
        if self.unit is not None and not names_unit(self.unit, fields):
            return False
        if self.cgroup is None:
            return True
        return cgroup is not None and is_below(cgroup, self.cgroup)

    def __str__(self) -> str:
        return " and ".join(f"{kind} {name!r}" for kind, name in self._asdict().items() if name is not None)


def is_pid(name: str) -> bool:
    """Whether a NAME may be a pid."""
    return name.isdecimal() and len(name) <= _PID_DIGITS_MAX


def names_container(name: str, fields: Fields, id_min: int = 1) -> bool:
    """Whether the name refers to the container of a record or process; ``id_min`` as in ``is_container_name``."""
    owner = owner_of(fields)
    return is_container_name(name, owner.container, owner.kubernetes, id_min) or _is_inside(
        name, fields, owner, lambda inner: is_container_name(inner, fields["container"], None, id_min)
    )


def names_pod(name: str, fields: Fields) -> bool:
    """Whether the name refers to the pod of a record or process."""
    owner = owner_of(fields)
    return is_pod_name(name, owner.kubernetes) or _is_inside(
        name, fields, owner, lambda inner: is_pod_name(inner, fields["kubernetes"])
    )


def names_unit(name: str, fields: Fields) -> bool:
    """Whether the name refers to the unit of a record or process."""
    owner = owner_of(fields)
    return is_unit_name(name, owner.systemd) or _is_inside(
        name, fields, owner, lambda inner: is_unit_name(inner, fields["systemd"])
    )


MATCHERS: Mapping[Kind, Callable[[str, Fields], bool]] = {
    "container": lambda name, fields: names_container(name, fields, ID_MIN),
    "pod": names_pod,
    "unit": names_unit,
}
"""For each kind of owner, whether a NAME refers to the owner in the given fields."""


def owner_kinds(name: str, fields: Fields) -> list[Kind]:
    """The kinds of owner in ``fields`` that the name refers to, in the order of KINDS."""
    return [kind for kind, matches in MATCHERS.items() if matches(name, fields)]


def split_kind(text: str, kinds: Collection[Kind] = KINDS) -> tuple[str, Kind | None]:
    """``KIND:NAME`` as name and kind; the kind is None if the text has none of ``kinds`` as a prefix."""
    prefix, _, name = text.partition(":")
    return next(((name, kind) for kind in kinds if name and kind == prefix), (text, None))


def is_below(path: AnyStr, above: AnyStr) -> bool:
    """Whether a cgroup is ``above`` or one of its descendants."""
    slash = b"/" if isinstance(above, bytes) else "/"
    return (path + slash).startswith(above.rstrip(slash) + slash)


def _is_inside(name: str, fields: Fields, owner: Identity, is_inner: Callable[[str], bool]) -> bool:
    """Whether the name is OWNER/NAME, and ``is_inner`` accepts NAME."""
    outer, _, inner = name.partition("/")
    if not inner or fields.get("owner") is None:
        return False
    if outer == "*":
        return is_inner(inner)
    if owner.container is None:
        return is_unit_name(outer, owner.systemd) and is_inner(inner)
    return is_container_name(outer, owner.container, owner.kubernetes, ID_MIN) and is_inner(inner)


def shown_container(fields: Fields) -> str | None:
    """The container's name as displayed; None: there is none."""
    container: Container | None = fields["container"]
    if container is None or fields.get("owner") is None:
        return None if container is None else _name(container)
    owner = owner_of(fields)
    if owner.container is not None and container.get("node_container_id") is None:
        return _name(owner.container)
    return _below(owner, _name(container))


def shown_pod(fields: Fields) -> str | None:
    """The pod's name as displayed: NAMESPACE/POD, or the uid if the name is unknown; None: there is none."""
    owner, pod = owner_of(fields), fields["kubernetes"]
    if owner.kubernetes is None and pod is not None:
        return _below(owner, pod["pod_uid"] or "")
    pod = owner.kubernetes
    if pod is None or pod["pod_name"] is None:
        return None if pod is None else pod["pod_uid"]
    return f"{pod['namespace']}/{pod['pod_name']}" if pod["namespace"] else pod["pod_name"]


def shown_unit(fields: Fields) -> str | None:
    """The unit's name as displayed; None: there is none."""
    systemd: Systemd | None = fields["systemd"]
    owner = owner_of(fields)
    unit = None if systemd is None else systemd["unit"]
    if unit is None or (owner.systemd is not None and unit == owner.systemd["unit"]):
        return None if owner.systemd is None else owner.systemd["unit"]
    return _below(owner, unit)


def _below(owner: Identity, inner: str) -> str:
    unit = owner.systemd["unit"] if owner.systemd is not None else None
    return f"{_name(owner.container) if owner.container is not None else unit or '?'}/{inner}"


def _name(container: Container) -> str:
    return container["name"] or container["id"][:12]


def is_container_name(name: str, container: Container | None, kubernetes: Kubernetes | None, id_min: int = 1) -> bool:
    """Whether the name is the container's: its name, its name in the pod, NAMESPACE/POD/CONTAINER, its id, or at least
    ``id_min`` leading digits of its id."""
    if container is None or not name:
        return False
    if name in (container["id"], container["name"]) or is_qualified_container_name(name, kubernetes):
        return True
    if kubernetes is not None and name == kubernetes["container_name"]:
        return True
    return len(name) >= id_min and container["id"].startswith(name)


def is_qualified_container_name(name: str, kubernetes: Kubernetes | None) -> bool:
    """Whether the name is NAMESPACE/POD/CONTAINER or NAMESPACE/WORKLOAD/CONTAINER."""
    if kubernetes is None or kubernetes["pod_name"] is None or kubernetes["container_name"] is None:
        return False
    pods = (kubernetes["pod_name"], workload_name(kubernetes["pod_name"]))
    return any(name == f"{kubernetes['namespace']}/{pod}/{kubernetes['container_name']}" for pod in pods)


def workload_name(pod_name: str) -> str:
    """The name that a pod shares with its replacements: that of its Deployment, DaemonSet or Job."""
    return _GENERATED.sub("", pod_name) or pod_name


def is_pod_name(name: str, kubernetes: Kubernetes | None) -> bool:
    """Whether the name is the pod's: POD, NAMESPACE/POD or its uid."""
    if kubernetes is None or not name:
        return False
    pod, namespace = kubernetes["pod_name"], kubernetes["namespace"]
    return name in (pod, kubernetes["pod_uid"]) or (pod is not None and name == f"{namespace}/{pod}")


def is_unit_name(name: str, systemd: Systemd | None) -> bool:
    """Whether the name is the unit's; ``.service`` is optional, and ``*`` and ``?`` are wildcards, as for systemctl."""
    unit = systemd["unit"] if systemd is not None else None
    if unit is None or not name:
        return False
    return unit == name or fnmatchcase(unit, name) or fnmatchcase(unit, f"{name}.service")
