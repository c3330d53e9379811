# SPDX-License-Identifier: Apache-2.0
"""Whether what a user typed names a container, a pod or a unit."""

from fnmatch import fnmatchcase

from tracer.whose import Container, Kubernetes, Systemd

ID_MIN = 6
"""How many digits of a container's id name it where a name may be that of something else as well."""


def is_container(name: str, container: Container | None, kubernetes: Kubernetes | None, id_min: int = 1) -> bool:
    """Its name, its name in the pod, its id, or ``id_min`` digits or more of the id's beginning: ``--container``."""
    if container is None or not name:
        return False
    if name in (container["id"], container["name"]):
        return True
    if kubernetes is not None and name == kubernetes["container_name"]:
        return True
    return len(name) >= id_min and container["id"].startswith(name)


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
