# SPDX-License-Identifier: Apache-2.0
"""How to raise a limit: where it is configured permanently, and by which command."""

import re
import shlex

from tracer.base.printable import printable
from tracer.identity.cgroup_path import classify_cgroup, parse_cgroup_path
from tracer.records.matching import shown_container, shown_unit
from tracer.records.model import NO_LIMIT_BYTES, OomKill
from tracer.records.owner import Container, Kubernetes, owner_of, user_manager_uid
from tracer.why.memory import LimitMemory

_MIB = 1 << 20
_DNS_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", re.ASCII)
"""RFC 1123 names, which Kubernetes requires for pods and, without dots, for namespaces."""
_DNS_NAME_MAX = 253


def limit_owner(kill: OomKill, memory: LimitMemory) -> str:
    """The owner of the limit's cgroup, if the victim is in it, else the cgroup: ``container cart``."""
    container, systemd = kill["container"], kill["systemd"]
    of = parse_cgroup_path(memory["cgroup"] or "")  # it is above the victim: names in the same container are the same
    unit = None if systemd is None else systemd["unit"]
    if unit is not None and of.systemd is not None and of.systemd["unit"] == unit and memory["level"] == "unit":
        return f"unit {shown_unit(kill)}"
    is_own = of.container is not None and container is not None and of.container["id"] == container["id"]
    if is_own and container is not None and memory["level"] == "container":
        return f"container {shown_container(kill)}"
    return f"cgroup {memory['cgroup']}"


def limit_commands(kill: OomKill, memory: LimitMemory, mib: int) -> tuple[str, list[str]]:
    """A sentence about where the limit is configured (may be empty), and commands that set it to ``mib`` MiB."""
    path, kind = memory["cgroup"] or "", memory["level"]
    shown, own = parse_cgroup_path(path), owner_of(kill)
    of = owner_of(shown._asdict())
    if of.container is not None and (kind != "container" or _is_nested(shown.container)):
        return "It is set inside of the container.", []
    if _is_kubelets(path):
        return "The kubelet sets it, for all pods: lower their limits, or move pods to other nodes.", []
    if own.kubernetes is not None and of.kubernetes is not None and kind in ("pod", "container"):
        return _set_kubernetes(own.kubernetes, kind == "pod")
    if own.container is not None and of.container is not None:
        return _set_container(own.container, memory, mib) if of.container["id"] == own.container["id"] else ("", [])
    user = user_manager_uid(of)
    if user is not None and kind == "container" and _is_same(shown.container, kill["container"]):
        where, commands = _set_container(kill["container"], memory, mib)  # type: ignore[arg-type]
        return f"The container is one of user {user}: run this as that user.{where and ' '}{where}", commands
    name = path.rstrip("/").rpartition("/")[2]
    if kind == "unit" and shown.systemd is not None and shown.systemd["unit"] is not None:
        name = shown.systemd["unit"]
    if kind not in ("unit", "slice") or "kubepods" in name or not name.endswith((".slice", ".service", ".scope")):
        return "", []
    command = f"set-property {shell_word(name)} MemoryMax={mib}M"
    if user is None or shown.owner is None:
        return "", [f"systemctl {command}"]
    return f"The unit is one of user {user}: run this as that user.", [f"systemctl --user {command}"]


def _is_nested(container: Container | None) -> bool:
    return container is not None and container["node_container_id"] is not None


def _is_same(one: Container | None, other: Container | None) -> bool:
    return one is not None and other is not None and one["id"] == other["id"]


def _is_kubelets(path: str) -> bool:
    """Whether it is the cgroup of all pods, or of all pods of a QoS class."""
    return classify_cgroup(path) == "qos" or re.search(r"(?:/|-)kubepods(?:\.slice)?/?\Z", path) is not None


def _set_kubernetes(kubernetes: Kubernetes, is_pod: bool) -> tuple[str, list[str]]:
    """A pod gets its limits from its controller's template; changes on the node do not last."""
    where = "Set resources.limits.memory in the pod's owner (Deployment, StatefulSet, ...)"
    where += "; the pod's limit is the sum of its containers'." if is_pod else "."
    command = kubectl("describe pod", kubernetes["pod_name"], kubernetes["namespace"])
    return where, [f"{each}  # Controlled By, Limits" for each in command]


def kubectl(action: str, pod: str | None, namespace: str | None) -> list[str]:
    """A kubectl command for the pod; none if a name is invalid in Kubernetes: it might be taken for an option."""
    names = [name for name in (pod or "", namespace) if name is not None]
    if not all(len(name) <= _DNS_NAME_MAX and _DNS_NAME.fullmatch(name) for name in names):
        return []
    return [f"kubectl {'' if namespace is None else f'-n {namespace} '}{action} {pod}"]


def _set_container(container: Container, memory: LimitMemory, mib: int) -> tuple[str, list[str]]:
    """Raise memory and memory+swap together: Docker refuses a memory limit above memory+swap.

    Containers that are re-created from a file (Compose, Quadlet, Swarm) have their limit there.
    """
    program, labels = container["runtime"], container["labels"] or {}
    name = container_word(container)
    swap = memory["swap_allowance_bytes"]
    both = "-1" if swap is not None and swap >= NO_LIMIT_BYTES else f"{mib + -(-(swap or 0) // _MIB)}m"
    if program not in ("docker", "podman"):
        return "", []
    service = labels.get("com.docker.swarm.service.name")
    if service:
        return "", [f"docker service update --limit-memory {mib}M {shell_word(service)}"]
    commands = [f"{program} update --memory {mib}m --memory-swap {both} {name}"]
    if swap is None:
        # Docker refuses a memory limit above that of memory+swap, which is unknown.
        form = "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}}"
        commands = [
            f"{program} inspect --format '{form}' {name}",
            f"{program} update --memory {mib}m --memory-swap {mib}m {name}  # plus the swap that it had",
        ]
    service = labels.get("com.docker.compose.service") or labels.get("io.podman.compose.service")
    unit = labels.get("PODMAN_SYSTEMD_UNIT")
    if service:
        file = labels.get("com.docker.compose.project.config_files")
        where = (
            f"Set mem_limit (or deploy.resources.limits.memory) of service {printable(service)} in "
            f"{printable(file) if file else 'the Compose file'}, too: {program} update is lost when Compose re-creates "
            "the container."
        )
        return where, commands
    if unit:
        where = f"Set it in {printable(unit)}, too: {program} update is lost when the unit re-creates the container."
        return where, commands
    return "", commands


def container_word(container: Container) -> str:
    """The container's name, quoted; its id if the name looks like an option."""
    name = container["name"]
    return shell_word(container["id"] if not name or name.startswith("-") else name)


def shell_word(name: str) -> str:
    """The name, quoted for a shell: a copied command must run nothing else."""
    return shlex.quote(printable(name))
