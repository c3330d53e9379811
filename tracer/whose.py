# SPDX-License-Identifier: Apache-2.0
"""Whose a process is, as it stands in records: a container, a pod, a unit, a network namespace."""

from typing import Annotated, Literal, NamedTuple, TypedDict


class Container(TypedDict):
    """A container: its id from the cgroup's path, the rest from its runtime's files."""

    id: Annotated[str, "Container id, in full; the name where a runtime has no other (LXC, nspawn, ctr)."]
    runtime: Annotated[str | None, "docker, containerd, cri-o, podman, lxc, ...; null where nothing tells."]
    name: Annotated[str | None, "Container name."]
    image: Annotated[str | None, "Image name, as it was given to the runtime."]
    labels: Annotated[dict[str, str] | None, "Labels; for CRI-O those of the pod."]
    node_container_id: Annotated[str | None, "The outer container when a node runs in one (kind, minikube)."]
    ip_addresses: Annotated[
        list[str] | None, "Addresses of its network namespace, link-local ones left out; needs `--network`."
    ]


class Kubernetes(TypedDict):
    """A pod: uid and class from the cgroup's path, the rest from the runtime's and the kubelet's files."""

    pod_name: Annotated[str | None, "Pod name."]
    namespace: Annotated[str | None, "Kubernetes namespace."]
    pod_uid: Annotated[str | None, "Pod uid; for static pods the hash of their configuration."]
    container_name: Annotated[str | None, "Container name in the pod."]
    qos_class: Annotated[
        Literal["Guaranteed", "Burstable", "BestEffort"] | None, "Quality of service, by the cgroup's place."
    ]


class Systemd(TypedDict):
    """A systemd unit."""

    unit: Annotated[str | None, "systemd unit as systemctl takes it; of the container's own systemd where it runs one."]
    slice: Annotated[str | None, "Innermost slice."]


class Interface(TypedDict):
    """A network interface of the victim's network namespace."""

    name: Annotated[str, "Its name in there (`eth0`)."]
    mac_address: Annotated[str | None, "Hardware address."]
    ip_addresses: Annotated[list[str], "With prefix length (`172.17.0.2/16`)."]


class Network(TypedDict):
    """The victim's network namespace."""

    namespace_inode: Annotated[int | None, "Its inode number, as `readlink /proc/PID/ns/net` shows it."]
    host_network: Annotated[bool | None, "Whether it is the host's."]
    interfaces: Annotated[
        list[Interface] | None, "What is in it, loopback left out; null for the host's, and without `--network`."
    ]


class Identity(NamedTuple):
    """Whose a cgroup is; each part is None where the path does not show one."""

    container: Container | None
    kubernetes: Kubernetes | None
    systemd: Systemd | None
