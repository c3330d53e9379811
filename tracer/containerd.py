# SPDX-License-Identifier: Apache-2.0
"""containerd's bundles: STATE/io.containerd.runtime.v2.task/NAMESPACE/ID/config.json, and what the CRI plugin keeps.

The bundle is an OCI runtime specification, written before the container starts and gone 50 ms after its end.  The CRI
plugin tells all in annotations (containerd, pkg/cri/annotations); ctr puts the labels there; Docker nothing.
"""

from typing import Any

from tracer import facts, files
from tracer.facts import Facts, Verdict

_TASKS = "io.containerd.runtime.v2.task"
_CRI = "io.kubernetes.cri."
_ANNOTATIONS = {
    "pod_name": "sandbox-name",
    "namespace": "sandbox-namespace",
    "pod_uid": "sandbox-uid",
    "container_name": "container-name",
    "image": "image-name",
}


def find(state: str, container_id: str) -> Facts | None:
    """Name, image and pod; None where there is no such bundle.

    Raises UnreadableError.
    """
    # Of Docker's own containers the bundle tells nothing that Docker does not tell better.
    spaces = sorted(files.names(state, _TASKS), key=lambda space: (space != "k8s.io", space))
    for space in spaces:
        name = f"{_TASKS}/{space}/{container_id}/config.json"
        data = None if space == "moby" else files.read(state, name)
        if data is not None:
            return _facts(facts.child(facts.parse(data, f"{state}/{name}"), "annotations"), container_id)
    return None


def _facts(annotations: dict[str, Any], container_id: str) -> Facts:
    found: Facts = {"runtime": "containerd"}
    if f"{_CRI}sandbox-id" not in annotations:
        facts.put(found, name=container_id)
        facts.put_labels(found, annotations)
        return found
    facts.put(found, **{field: annotations.get(_CRI + name) for field, name in _ANNOTATIONS.items()})
    facts.put(found, name=annotations.get(f"{_CRI}container-name"))
    return found


def verdict(root: str, container_id: str) -> Verdict | None:
    """How a CRI container ended: ROOT/io.containerd.grpc.v1.cri/containers/ID/status.

    Raises UnreadableError.
    """
    for plugin in ("io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime"):  # before containerd 2, and since
        name = f"{plugin}/containers/{container_id}/status"
        data = files.read(root, name)
        if data is None:
            continue
        status = facts.parse(data, f"{root}/{name}")
        running = not status.get("FinishedAt")
        reason = status.get("Reason")
        killed = reason == "OOMKilled" if reason or not running else None
        return facts.verdict(running, killed, status.get("ExitCode"))
    return None
