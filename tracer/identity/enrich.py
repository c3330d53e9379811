# SPDX-License-Identifier: Apache-2.0
"""What the kernel did not tell: whose cgroup it is, and what /proc still shows of the victim.

Never raises: a part that cannot be had stays null.
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
    container: Container | None
    kubernetes: Kubernetes | None
    systemd: Systemd | None
    owner: Owner | None
    labels_cut: bool


def enrich_oom_kill(
    record: OomKill,
    started_ns: int | None,
    names: MetadataCache | None = None,
    redact: Redact = lambda cmdline: cmdline,
    interfaces: LookUpInterfaces | None = None,
    look: ReadProcess = procfs.read_process,
) -> None:
    """Fill in container, pod, unit and level; command line and executable where the kernel's side had none.

    ``started_ns`` is the victim's start in CLOCK_BOOTTIME: a process of the same number that started at another time
    is somebody else.  None: it is gone.  Without ``names`` nothing is looked up in the runtimes' files.  ``redact``
    gives the command line that may be shown, or None.  ``interfaces`` tells what is in a network namespace, by its
    inode number and processes that may be in it.  ``look`` tells what a process shows, by its pid and start.
    """
    victim = record["victim"]
    _read_process(record, started_ns, look)  # first: it is on its way out
    if victim["cmdline"] is not None:
        victim["cmdline"] = redact(victim["cmdline"])
    enrich_cgroups(record, names)
    if interfaces is not None:
        _read_network(record, interfaces)


def enrich_cgroups(record: OomKill, names: MetadataCache | None = None) -> None:
    """Fill in container, pod, unit and level alone: of a record whose processes may be another host's."""
    path, limit = record["victim"]["cgroup"], record["limit"]
    find = names.fetch_metadata if names is not None else None
    if path is not None or record["container"] is not None:  # of a group kill's others a log tells it alone
        whose = resolve_cgroup(path, find) if path is not None else resolve_container(record, find)
        set_identity(record, whose)
        if whose.labels_cut:
            record["truncated"].append("container.labels")
    if limit is not None and limit["cgroup"] is not None:
        limit["level"] = cgroup_path.classify_cgroup(limit["cgroup"], is_cut="limit.cgroup" in record["truncated"])


def set_identity(record: OomKill | Sigkill | SigkillSender, whose: ResolvedIdentity) -> None:
    """Fill in container, pod, unit and owner."""
    record["container"], record["kubernetes"], record["systemd"] = whose.container, whose.kubernetes, whose.systemd
    record["owner"] = whose.owner


def enrich_sigkill(record: Sigkill, names: MetadataCache | None = None) -> None:
    """Fill in container, pod and unit of victim and sender."""
    find, sender = names.fetch_metadata if names is not None else None, record["sender"]
    if record["victim"]["cgroup"] is not None:
        whose = resolve_cgroup(record["victim"]["cgroup"], find)
        set_identity(record, whose)
        if whose.labels_cut:
            record["truncated"].append("container.labels")
    if sender is not None and sender["cgroup"] is not None:
        whose = resolve_cgroup(sender["cgroup"], find)
        set_identity(sender, whose)
        if whose.labels_cut:
            record["truncated"].append("sender.container.labels")


def _read_network(record: OomKill, interfaces: LookUpInterfaces) -> None:
    victim, network, container = record["victim"], record["network"], record["container"]
    if network is None or network["namespace_inode"] is None or network["host_network"] is not False:
        return
    # The victim itself is on its way out; those above it live longer.
    pids = [ancestor["pid"] for ancestor in victim["ancestors"] or ()]
    network["interfaces"] = interfaces(network["namespace_inode"], [*pids, *filter(None, [victim["pid"]])])
    if container is not None and network["interfaces"] is not None:
        addresses = (address for each in network["interfaces"] for address in each["ip_addresses"])
        container["ip_addresses"] = [
            address.partition("/")[0] for address in addresses if not address.startswith("fe80:")
        ]


def resolve_cgroup(path: str, find: FetchMetadata | None) -> ResolvedIdentity:
    """Whose a cgroup is; ``find`` tells what is known of a container, by id, runtime, pod uid and user."""
    return _look_up(cgroup_path.parse_cgroup_path(path), find)


def resolve_container(record: OomKill, find: FetchMetadata | None) -> ResolvedIdentity:
    """What is known of a record's container, of which there is no cgroup."""
    shown = Identity(record["container"], record["kubernetes"], record["systemd"], record["owner"])
    return _look_up(shown, find)


def _look_up(shown: Identity, find: FetchMetadata | None) -> ResolvedIdentity:
    """Ask for what the host made, by its own id: what is inside of a container is called as that container likes.

    A user's runtimes keep files of their own, and root's tell nothing of what he calls by their containers' ids.
    """
    container, kubernetes, systemd, owner = shown
    own = owner_of(shown._asdict())
    asked, user = own.container or (container if owner is not None else None), user_manager_uid(own)
    if asked is None or find is None or (own.container is None and user is None):
        return ResolvedIdentity(container, kubernetes, systemd, owner, False)
    found = find(asked["id"], asked["runtime"], own.kubernetes["pod_uid"] if own.kubernetes else None, user)
    pod = _name(asked, own.kubernetes, found)
    labels_cut = found.get("labels_cut", False)
    if owner is None:
        return ResolvedIdentity(container, pod, systemd, None, labels_cut)
    if own.container is None:
        return ResolvedIdentity(container, kubernetes, systemd, owner, labels_cut)
    made: OwnerContainer = {
        "id": asked["id"],
        "runtime": asked["runtime"],
        "name": asked["name"],
        "image": asked["image"],
    }
    named: Owner = {"container": made, "kubernetes": pod, "systemd": owner["systemd"]}
    is_own = asked is container
    kubernetes = pod if is_own or owner["kubernetes"] is not None else kubernetes
    return ResolvedIdentity(container, kubernetes, systemd, named, is_own and labels_cut)


def _name(container: Container, kubernetes: Kubernetes | None, found: ContainerMetadata) -> Kubernetes | None:
    """Put what the files tell into ``container``; the pod, which may be known from the files alone.

    What the path tells stays: only the kernel made it.
    """
    container["runtime"] = container["runtime"] or found.get("runtime")
    container["name"] = found.get("name") or container["name"]
    container["image"] = found.get("image")
    container["labels"] = found.get("labels")
    # Docker's labels come from whoever made the image; below a kubelet the path has the pod.
    if kubernetes is None and "pod_uid" in found and container["runtime"] != "docker":
        kubernetes = {"pod_name": None, "namespace": None, "pod_uid": None, "container_name": None, "qos_class": None}
    if kubernetes is not None:
        kubernetes["pod_uid"] = kubernetes["pod_uid"] or found.get("pod_uid")
        kubernetes["pod_name"] = found.get("pod_name")
        kubernetes["namespace"] = found.get("namespace")
        kubernetes["container_name"] = found.get("container_name")
    return kubernetes


def _read_process(record: OomKill, started_ns: int | None, look: ReadProcess) -> None:
    victim = record["victim"]
    pid = victim["pid"]
    if pid is None or started_ns is None or (victim["cmdline"] is not None and victim["exe"] is not None):
        return
    # Reading of a process takes memory, and holds on to its own: on a host that has none left that kills the next one.
    if record["incident"]["scope"] != "memcg":
        return
    shown = look(pid, started_ns)
    if shown is None:
        return
    arguments, exe = shown
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
