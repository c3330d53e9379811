# SPDX-License-Identifier: Apache-2.0
"""Adds to records what the kernel does not know: the owner of a cgroup, and what /proc still shows of the victim.

Never raises: a part that cannot be read stays null.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from tracer.identity import cgroup_path
from tracer.identity.metadata_cache import MetadataCache
from tracer.identity.runtime_metadata import ContainerMetadata
from tracer.linux import procfs
from tracer.records.model import OomKill, Sigkill, SigkillSender
from tracer.records.owner import (
    Container,
    Identity,
    Interface,
    Kubernetes,
    Owner,
    OwnerContainer,
    Systemd,
    owner_of,
    user_manager_uid,
)

Redact = Callable[[list[str]], list[str] | None]
FetchMetadata = Callable[[str, str | None, str | None, int | None], ContainerMetadata]
LookUpInterfaces = Callable[[int, Sequence[int]], list[Interface] | None]
ReadProcess = Callable[[int, int], procfs.CmdlineAndExe | None]


class ResolvedIdentity(NamedTuple):
    """``Identity`` with the runtimes' metadata; ``labels_cut``: the container has more labels."""

    container: Container | None
    kubernetes: Kubernetes | None
    systemd: Systemd | None
    owner: Owner | None
    labels_cut: bool


def enrich_oom_kill(
    record: OomKill,
    started_ns: int | None,
    cache: MetadataCache | None = None,
    redact: Redact = lambda cmdline: cmdline,
    look_up_interfaces: LookUpInterfaces | None = None,
    read_process: ReadProcess = procfs.read_process,
) -> None:
    """Set container, pod, unit and level, and command line and executable if the BPF programs could not read them.

    ``started_ns``: the victim's start (CLOCK_BOOTTIME), because its pid may be reused; None: it has exited.
    ``cache``: the runtimes' metadata; None: they are not read.
    ``redact``: returns the redacted command line, or None.
    ``look_up_interfaces``: returns the interfaces of a network namespace, by its inode and pids that may be in it.
    ``read_process``: returns command line and executable, by pid and start.
    """
    victim = record["victim"]
    _set_cmdline(record, started_ns, read_process)  # first, because it is exiting
    if victim["cmdline"] is not None:
        victim["cmdline"] = redact(victim["cmdline"])
    enrich_cgroups(record, cache)
    if look_up_interfaces is not None:
        _set_network(record, look_up_interfaces)


def enrich_cgroups(record: OomKill, cache: MetadataCache | None = None) -> None:
    """Set container, pod, unit and level only, for a record whose processes may be another host's."""
    path, limit = record["victim"]["cgroup"], record["limit"]
    fetch = cache.fetch_metadata if cache is not None else None
    if path is not None or record["container"] is not None:  # for other members of a group kill a log names only it
        identity = resolve_cgroup(path, fetch) if path is not None else resolve_container(record, fetch)
        set_identity(record, identity)
        if identity.labels_cut:
            record["truncated"].append("container.labels")
    if limit is not None and limit["cgroup"] is not None:
        limit["level"] = cgroup_path.classify_cgroup(limit["cgroup"], is_cut="limit.cgroup" in record["truncated"])


def set_identity(record: OomKill | Sigkill | SigkillSender, identity: ResolvedIdentity) -> None:
    """Set container, pod, unit and owner."""
    record["container"] = identity.container
    record["kubernetes"] = identity.kubernetes
    record["systemd"] = identity.systemd
    record["owner"] = identity.owner


def enrich_sigkill(record: Sigkill, cache: MetadataCache | None = None) -> None:
    """Set container, pod, unit and owner of victim and sender."""
    fetch, sender = cache.fetch_metadata if cache is not None else None, record["sender"]
    if record["victim"]["cgroup"] is not None:
        identity = resolve_cgroup(record["victim"]["cgroup"], fetch)
        set_identity(record, identity)
        if identity.labels_cut:
            record["truncated"].append("container.labels")
    if sender is not None and sender["cgroup"] is not None:
        identity = resolve_cgroup(sender["cgroup"], fetch)
        set_identity(sender, identity)
        if identity.labels_cut:
            record["truncated"].append("sender.container.labels")


def _set_network(record: OomKill, look_up_interfaces: LookUpInterfaces) -> None:
    victim, network, container = record["victim"], record["network"], record["container"]
    if network is None or network["namespace_inode"] is None or network["host_network"] is not False:
        return
    # The victim is exiting; its ancestors live longer.
    pids = [ancestor["pid"] for ancestor in victim["ancestors"] or ()]
    network["interfaces"] = look_up_interfaces(network["namespace_inode"], [*pids, *filter(None, [victim["pid"]])])
    if container is not None and network["interfaces"] is not None:
        addresses = (address for each in network["interfaces"] for address in each["ip_addresses"])
        container["ip_addresses"] = [
            address.partition("/")[0] for address in addresses if not address.startswith("fe80:")
        ]


def resolve_cgroup(path: str, fetch: FetchMetadata | None) -> ResolvedIdentity:
    """The identity of a cgroup; ``fetch`` returns a container's metadata, by id, runtime, pod uid and user."""
    return _resolve(cgroup_path.parse_cgroup_path(path), fetch)


def resolve_container(record: OomKill, fetch: FetchMetadata | None) -> ResolvedIdentity:
    """The identity in a record that has a container but no cgroup, with metadata."""
    identity = Identity(record["container"], record["kubernetes"], record["systemd"], record["owner"])
    return _resolve(identity, fetch)


def _resolve(identity: Identity, fetch: FetchMetadata | None) -> ResolvedIdentity:
    """Add the metadata of the owner, by the owner's id: processes inside a container choose the names there.

    A user's containers have metadata only in files of that user, because a user may choose the id of a root container.
    """
    container, kubernetes, systemd, owner = identity
    outermost = owner_of(identity._asdict())
    named, user = outermost.container or (container if owner is not None else None), user_manager_uid(outermost)
    if named is None or fetch is None or (outermost.container is None and user is None):
        return ResolvedIdentity(container, kubernetes, systemd, owner, False)
    pod_uid = outermost.kubernetes["pod_uid"] if outermost.kubernetes else None
    metadata = fetch(named["id"], named["runtime"], pod_uid, user)
    pod = _add_metadata(named, outermost.kubernetes, metadata)
    labels_cut = metadata.get("labels_cut", False)
    if owner is None:
        return ResolvedIdentity(container, pod, systemd, None, labels_cut)
    if outermost.container is None:
        return ResolvedIdentity(container, kubernetes, systemd, owner, labels_cut)
    owner_container: OwnerContainer = {
        "id": named["id"],
        "runtime": named["runtime"],
        "name": named["name"],
        "image": named["image"],
    }
    named_owner: Owner = {"container": owner_container, "kubernetes": pod, "systemd": owner["systemd"]}
    is_outermost = named is container
    kubernetes = pod if is_outermost or owner["kubernetes"] is not None else kubernetes
    return ResolvedIdentity(container, kubernetes, systemd, named_owner, is_outermost and labels_cut)


def _add_metadata(
    container: Container, kubernetes: Kubernetes | None, metadata: ContainerMetadata
) -> Kubernetes | None:
    """Add metadata to ``container``, and return the pod with it; the pod may be known from the files only.

    Values from the path are kept, because the path is the kernel's.
    """
    container["runtime"] = container["runtime"] or metadata.get("runtime")
    container["name"] = metadata.get("name") or container["name"]
    container["image"] = metadata.get("image")
    container["labels"] = metadata.get("labels")
    # An image may set any labels in Docker; below a kubelet the path has the pod.
    if kubernetes is None and "pod_uid" in metadata and container["runtime"] != "docker":
        kubernetes = {"pod_name": None, "namespace": None, "pod_uid": None, "container_name": None, "qos_class": None}
    if kubernetes is not None:
        kubernetes["pod_uid"] = kubernetes["pod_uid"] or metadata.get("pod_uid")
        kubernetes["pod_name"] = metadata.get("pod_name")
        kubernetes["namespace"] = metadata.get("namespace")
        kubernetes["container_name"] = metadata.get("container_name")
    return kubernetes


def _set_cmdline(record: OomKill, started_ns: int | None, read_process: ReadProcess) -> None:
    victim = record["victim"]
    pid = victim["pid"]
    if pid is None or started_ns is None or (victim["cmdline"] is not None and victim["exe"] is not None):
        return
    # A read of a process allocates memory and pins the process's own: on a host without memory it causes the next kill.
    if record["incident"]["scope"] != "memcg":
        return
    process = read_process(pid, started_ns)
    if process is None:
        return
    arguments, exe = process
    if victim["cmdline"] is None and arguments:
        cmdline = arguments.encode("latin-1")
        victim["cmdline"] = [
            argument.decode("utf-8", "backslashreplace")
            for argument in cmdline[: procfs.CMDLINE_LEN].removesuffix(b"\0").split(b"\0")
        ]
        if len(cmdline) > procfs.CMDLINE_LEN:
            record["truncated"].append("victim.cmdline")
    if victim["exe"] is None:
        victim["exe"] = exe
