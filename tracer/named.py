# SPDX-License-Identifier: Apache-2.0
"""Whether what a user typed names a container, a pod or a unit."""

from fnmatch import fnmatchcase

from tracer.whose import Container, Kubernetes, Systemd

ID_MIN = 6
"""So many digits of a container's id name it, as docker's own tools show twelve."""


def is_container(name: str, container: Container | None, kubernetes: Kubernetes | None) -> bool:
    """Its name, its name in the pod, its id, or how that begins."""
    if container is None or not name:
        return False
    if name in (container["id"], container["name"]):
        return True
    if kubernetes is not None and name == kubernetes["container_name"]:
        return True
    return len(name) >= ID_MIN and container["id"].startswith(name)


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
    return fnmatchcase(unit, name) or fnmatchcase(unit, f"{name}.service")
