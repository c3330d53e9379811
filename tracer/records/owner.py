# SPDX-License-Identifier: Apache-2.0
"""Whose a process is, as it stands in records: a container, a pod, a unit, a network namespace.

A record names what is innermost on the cgroup's path.  That may be inside of a container, or below a user's systemd,
where everybody calls things as he likes: then ``owner`` is what the host's own runtimes and systemd made around it.
``owner_of`` is the one answer to whose a record is.  All that chooses, counts, or speaks of records by a name asks it.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, TypedDict


class Container(TypedDict):
    """A container: its id from the cgroup's path, the rest from its runtime's files."""

    id: Annotated[str, "Full container id; the name if a runtime has no other id (LXC, nspawn, ctr)."]
    runtime: Annotated[str | None, "docker, containerd, cri-o, podman, lxc, ...; null if unknown."]
    name: Annotated[str | None, "Container name."]
    image: Annotated[str | None, "Image name, as passed to the runtime."]
    labels: Annotated[dict[str, str] | None, "Labels; with CRI-O those of the pod."]
    node_container_id: Annotated[str | None, "The outer container if a node runs in one (kind, minikube)."]
    ip_addresses: Annotated[
        list[str] | None, "Addresses of its network namespace, except link-local ones; needs `--network`."
    ]


class Kubernetes(TypedDict):
    """A pod: uid and class from the cgroup's path, the rest from the runtime's and the kubelet's files."""

    pod_name: Annotated[str | None, "Pod name."]
    namespace: Annotated[str | None, "Kubernetes namespace."]
    pod_uid: Annotated[str | None, "Pod uid; for static pods the hash of their configuration."]
    container_name: Annotated[str | None, "Container name in the pod."]
    qos_class: Annotated[
        Literal["Guaranteed", "Burstable", "BestEffort"] | None, "Quality of service, from the cgroup's path."
    ]


class Systemd(TypedDict):
    """A systemd unit."""

    unit: Annotated[str | None, "systemd unit, as systemctl accepts it; of the container's own systemd if it runs one."]
    slice: Annotated[str | None, "Innermost slice."]


class Interface(TypedDict):
    """A network interface of the victim's network namespace."""

    name: Annotated[str, "Name in the namespace (`eth0`)."]
    mac_address: Annotated[str | None, "Hardware address."]
    ip_addresses: Annotated[list[str], "With prefix length (`172.17.0.2/16`)."]


class Network(TypedDict):
    """The victim's network namespace."""

    namespace_inode: Annotated[int | None, "Inode number, as `readlink /proc/PID/ns/net` shows it."]
    host_network: Annotated[bool | None, "Whether it is the host's namespace."]
    interfaces: Annotated[
        list[Interface] | None, "Interfaces in it, except loopback; null for the host's, and without `--network`."
    ]


class OwnerContainer(TypedDict):
    """A container that a runtime of the host made."""

    id: Annotated[str, "Full container id; the name if a runtime has no other id."]
    runtime: Annotated[str | None, "docker, containerd, cri-o, podman, lxc, ...; null if unknown."]
    name: Annotated[str | None, "Container name."]
    image: Annotated[str | None, "Image name, as passed to the runtime."]


class Owner(TypedDict):
    """What the host's own runtimes and systemd made."""

    container: Annotated[OwnerContainer | None, "The outermost container; null if it was in none of the host's."]
    kubernetes: Annotated[Kubernetes | None, "The pod of that container; never a pod inside it."]
    systemd: Annotated[Systemd | None, "The unit of the host's systemd; for a user's processes the user's unit."]


OWNER_DESCRIPTION = (
    "The container, pod and unit that the host's own runtimes and systemd created, if `container`, `kubernetes` or "
    "`systemd` is inside of them and so named by processes in there; null: those three are the host's own."
)
"""What the field says of itself, in each record that has one."""


class Identity(NamedTuple):
    """Whose a cgroup is; each part is None where the path does not show one."""

    container: Container | None
    kubernetes: Kubernetes | None
    systemd: Systemd | None
    owner: Owner | None = None
    """None: it is the three before."""


def owner_of(fields: Mapping[str, Any]) -> Identity:
    """Whose a record (or its sender, a process of ``top``, a cgroup) is, by what the host made, and by nothing else."""
    owner: Owner | None = fields.get("owner")
    container: Container | None = fields["container"]
    if owner is None:
        return Identity(container, fields["kubernetes"], fields["systemd"])
    made = owner["container"]
    if made is None:
        return Identity(None, owner["kubernetes"], owner["systemd"])
    if container is None or container.get("node_container_id") is not None:
        container = {
            "id": made["id"],
            "runtime": made["runtime"],
            "name": made["name"],
            "image": made["image"],
            "labels": None,
            "node_container_id": None,
            "ip_addresses": None,
        }
    return Identity(container, owner["kubernetes"], owner["systemd"])


def with_owner_identity(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """A record for those who know one container, pod and unit only: the owner's; what is inside stands apart."""
    if record.get("owner") is None:
        return record
    owner = owner_of(record)
    inside = {name: value for name in ("container", "kubernetes", "systemd") if (value := record[name])}
    inner = {name: value for name, value in inside.items() if value != getattr(owner, name)}
    return {**record, **owner._asdict(), "owner": None, "inner": inner}


def user_manager_uid(owner: Identity) -> int | None:
    """The user below whose systemd it is; None: it is in a container, or the host's."""
    unit = owner.systemd["unit"] if owner.systemd is not None and owner.container is None else None
    digits = (unit or "").removeprefix("user@").removesuffix(".service")
    return int(digits) if unit == f"user@{digits}.service" and digits.isdecimal() and len(digits) <= 10 else None
