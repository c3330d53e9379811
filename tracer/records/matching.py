# SPDX-License-Identifier: Apache-2.0
"""Whether what a user typed names a container, a pod or a unit, and how these are shown.

A name means what the host's own runtimes and systemd made.  What is inside of that is OWNER/NAME: a container or a unit
in a container (``kind-control-plane/0f76e495864f``, ``102/mariadb.service``), or a user's (``user@1000.service/web``);
of any owner it is ``*/NAME``.
"""

import re
from collections.abc import Callable, Collection, Mapping
from fnmatch import fnmatchcase
from typing import Any, AnyStr, Literal, NamedTuple

from tracer.records.owner import Container, Identity, Kubernetes, Systemd, owner_of

_PID_DIGITS_MAX = 10
"""What has more digits may be an id."""
ID_MIN = 6
"""How many digits of a container's id name it where a name may be that of something else as well."""

_GENERATED = re.compile(r"(?:-[bcdfghjklmnpqrstvwxz2456789]{8,10})?-[bcdfghjklmnpqrstvwxz2456789]{5}\Z")
"""What a Deployment, a DaemonSet or a Job puts behind its name for a pod's: hash of the template, random characters
(Kubernetes, util/rand)."""

Fields = Mapping[str, Any]
"""A record, a sender or a process: what has ``container``, ``kubernetes``, ``systemd`` and ``owner``."""


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
    return name.isdecimal() and len(name) <= _PID_DIGITS_MAX


def names_container(name: str, fields: Fields, id_min: int = 1) -> bool:
    """Whether the name is that of the container that it is in."""
    owner = owner_of(fields)
    return is_container(name, owner.container, owner.kubernetes, id_min) or _is_inside(
        name, fields, owner, lambda inner: is_container(inner, fields["container"], None, id_min)
    )


def names_pod(name: str, fields: Fields) -> bool:
    owner = owner_of(fields)
    return is_pod(name, owner.kubernetes) or _is_inside(
        name, fields, owner, lambda inner: is_pod(inner, fields["kubernetes"])
    )


def names_unit(name: str, fields: Fields) -> bool:
    owner = owner_of(fields)
    return is_unit(name, owner.systemd) or _is_inside(
        name, fields, owner, lambda inner: is_unit(inner, fields["systemd"])
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
    outer, _, inner = name.partition("/")
    if not inner or fields.get("owner") is None:
        return False
    if outer == "*":
        return is_inner(inner)
    if owner.container is None:
        return is_unit(outer, owner.systemd) and is_inner(inner)
    return is_container(outer, owner.container, owner.kubernetes, ID_MIN) and is_inner(inner)


def shown_container(fields: Fields) -> str | None:
    """The name of the container that it is in; None: it is in none."""
    container: Container | None = fields["container"]
    if container is None or fields.get("owner") is None:
        return None if container is None else _name(container)
    owner = owner_of(fields)
    if owner.container is not None and container.get("node_container_id") is None:
        return _name(owner.container)
    return _below(owner, _name(container))


def shown_pod(fields: Fields) -> str | None:
    """Its pod: NAMESPACE/POD, or the uid where the name is unknown; None: there is none."""
    owner, pod = owner_of(fields), fields["kubernetes"]
    if owner.kubernetes is None and pod is not None:
        return _below(owner, pod["pod_uid"] or "")
    pod = owner.kubernetes
    if pod is None or pod["pod_name"] is None:
        return None if pod is None else pod["pod_uid"]
    return f"{pod['namespace']}/{pod['pod_name']}" if pod["namespace"] else pod["pod_name"]


def shown_unit(fields: Fields) -> str | None:
    """The name of its unit; None: it is in none."""
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


def is_container(name: str, container: Container | None, kubernetes: Kubernetes | None, id_min: int = 1) -> bool:
    """Its name, its name in the pod, its name in full, its id, or ``id_min`` digits or more of the id's beginning:
    ``--container``."""
    if container is None or not name:
        return False
    if name in (container["id"], container["name"]) or is_in_pod(name, kubernetes):
        return True
    if kubernetes is not None and name == kubernetes["container_name"]:
        return True
    return len(name) >= id_min and container["id"].startswith(name)


def is_in_pod(name: str, kubernetes: Kubernetes | None) -> bool:
    """Whether it is the name of a pod's container in full: NAMESPACE/POD/CONTAINER, or NAMESPACE/WORKLOAD/CONTAINER."""
    if kubernetes is None or kubernetes["pod_name"] is None or kubernetes["container_name"] is None:
        return False
    pods = (kubernetes["pod_name"], workload(kubernetes["pod_name"]))
    return any(name == f"{kubernetes['namespace']}/{pod}/{kubernetes['container_name']}" for pod in pods)


def workload(pod_name: str) -> str:
    """What a pod's name has in common with those of pods that take its place."""
    return _GENERATED.sub("", pod_name) or pod_name


def is_pod(name: str, kubernetes: Kubernetes | None) -> bool:
    """POD, NAMESPACE/POD, or the pod's uid."""
    if kubernetes is None or not name:
        return False
    pod, namespace = kubernetes["pod_name"], kubernetes["namespace"]
    return name in (pod, kubernetes["pod_uid"]) or (pod is not None and name == f"{namespace}/{pod}")


def is_unit(name: str, systemd: Systemd | None) -> bool:
    """The unit, ``.service`` understood; ``*`` and ``?`` may be in it, as for systemctl."""
    unit = systemd["unit"] if systemd is not None else None
    if unit is None or not name:
        return False
    return unit == name or fnmatchcase(unit, name) or fnmatchcase(unit, f"{name}.service")
