# SPDX-License-Identifier: Apache-2.0
"""The identity of a process in records: container, pod, unit, network namespace, and their owner.

A record has the innermost container, pod and unit on the cgroup's path.  These may be inside a container, or below a
user's systemd, where processes choose any names.  Then ``owner`` is what the host's own runtimes and systemd created
around them.  Everything that selects, counts or describes records by a name uses ``owner_of``.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, TypedDict


class Container(TypedDict):
    """A container: the id is from the cgroup's path, the rest from its runtime's files."""

    id: Annotated[str, "Full container id; the name if the runtime has no other id (LXC, nspawn, ctr)."]
    runtime: Annotated[str | None, "`docker`, `containerd`, `cri-o`, `podman`, `lxc`, ...; null if unknown."]
    name: Annotated[str | None, "Container name."]
    image: Annotated[str | None, "Image, as passed to the runtime."]
    labels: Annotated[dict[str, str] | None, "Labels; CRI-O reports those of the pod."]
    node_container_id: Annotated[
        str | None, "Id of the outermost container, if this one runs inside it (kind, minikube)."
    ]
    ip_addresses: Annotated[
        list[str] | None, "IP addresses of its network namespace, except link-local ones; needs `--network`."
    ]


class Kubernetes(TypedDict):
    """A pod: uid and QoS class are from the cgroup's path, the rest from files of the runtime and the kubelet."""

    pod_name: Annotated[str | None, "Pod name."]
    namespace: Annotated[str | None, "Namespace of the pod."]
    pod_uid: Annotated[str | None, "Pod uid; for a static pod the hash of its configuration."]
    container_name: Annotated[str | None, "Name of the container in the pod spec."]
    qos_class: Annotated[Literal["Guaranteed", "Burstable", "BestEffort"] | None, "QoS class of the pod."]


class Systemd(TypedDict):
    """A systemd unit."""

    unit: Annotated[str | None, "Unit name, as systemctl accepts it; of the container's own systemd if it runs one."]
    slice: Annotated[str | None, "The innermost slice."]


class Interface(TypedDict):
    """A network interface in the victim's network namespace."""

    name: Annotated[str, "Name in the namespace (`eth0`)."]
    mac_address: Annotated[str | None, "Hardware address."]
    ip_addresses: Annotated[list[str], "IP addresses with prefix length (`172.17.0.2/16`)."]


class Network(TypedDict):
    """The victim's network namespace."""

    namespace_inode: Annotated[int | None, "Inode number, as in `readlink /proc/PID/ns/net`."]
    host_network: Annotated[bool | None, "Whether it is the host's namespace."]
    interfaces: Annotated[
        list[Interface] | None,
        "Its interfaces, except loopback; null for the host's namespace, and without `--network`.",
    ]


class OwnerContainer(TypedDict):
    """A container that a runtime of the host created."""

    id: Annotated[str, "Full container id; the name if the runtime has no other id."]
    runtime: Annotated[str | None, "`docker`, `containerd`, `cri-o`, `podman`, `lxc`, ...; null if unknown."]
    name: Annotated[str | None, "Container name."]
    image: Annotated[str | None, "Image, as passed to the runtime."]


class Owner(TypedDict):
    """The container, pod and unit that the host's own runtimes and systemd created."""

    container: Annotated[OwnerContainer | None, "The outermost container; null if it was in no container of the host."]
    kubernetes: Annotated[Kubernetes | None, "The pod of that container; never a pod inside it."]
    systemd: Annotated[
        Systemd | None, "The unit of the host's systemd; for a user's processes the session or `user@UID.service`."
    ]


OWNER_DESCRIPTION = (
    "The container, pod and unit that the host's own runtimes and systemd created; null if `container`, `kubernetes` "
    "and `systemd` are these. Otherwise processes inside the owner have chosen the names there."
)
"""Description of the field ``owner``, in each record that has it."""


class Identity(NamedTuple):
    """The innermost container, pod and unit of a cgroup, and its owner; a part that does not exist is None."""

    container: Container | None
    kubernetes: Kubernetes | None
    systemd: Systemd | None
    owner: Owner | None = None
    """None: the three parts above are the owner."""


def owner_of(fields: Mapping[str, Any]) -> Identity:
    """The owner of a record, a sender, a process of ``top`` or a cgroup: only what the host created."""
    owner: Owner | None = fields.get("owner")
    container: Container | None = fields["container"]
    if owner is None:
        return Identity(container, fields["kubernetes"], fields["systemd"])
    outermost = owner["container"]
    if outermost is None:
        return Identity(None, owner["kubernetes"], owner["systemd"])
    if container is None or container.get("node_container_id") is not None:
        container = {
            "id": outermost["id"],
            "runtime": outermost["runtime"],
            "name": outermost["name"],
            "image": outermost["image"],
            "labels": None,
            "node_container_id": None,
            "ip_addresses": None,
        }
    return Identity(container, owner["kubernetes"], owner["systemd"])


def with_owner_identity(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """A copy for formats with one container, pod and unit: these are the owner's; ``inner`` has the parts inside."""
    if record.get("owner") is None:
        return record
    owner = owner_of(record)
    inside = {name: value for name in ("container", "kubernetes", "systemd") if (value := record[name])}
    inner = {name: value for name, value in inside.items() if value != getattr(owner, name)}
    return {**record, **owner._asdict(), "owner": None, "inner": inner}


def user_manager_uid(owner: Identity) -> int | None:
    """Uid of the user whose user@UID.service is the owner; None: the owner is a container, or another unit."""
    unit = owner.systemd["unit"] if owner.systemd is not None and owner.container is None else None
    digits = (unit or "").removeprefix("user@").removesuffix(".service")
    return int(digits) if unit == f"user@{digits}.service" and digits.isdecimal() and len(digits) <= 10 else None
