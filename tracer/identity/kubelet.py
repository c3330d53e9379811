# SPDX-License-Identifier: Apache-2.0
"""Names that the kubelet's logs bear, whatever the runtime; they outlive the container.

/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log are links, /var/log/pods/NAMESPACE_POD_UID folders (kubelet,
pkg/kubelet/kuberuntime/legacy.go and helpers.go).  No part but a static pod's name may hold an underscore.
"""

from tracer.identity import runtime_metadata
from tracer.identity.runtime_metadata import ContainerMetadata
from tracer.linux import safe_files


def fetch_container_metadata(logs: str, container_id: str) -> ContainerMetadata | None:
    """Pod, namespace and container by the container's id, in ``logs`` (/var/log/containers).

    Raises UnreadableError.
    """
    ending = f"-{container_id}.log"
    for name in safe_files.list_directory(logs):
        if name.endswith(ending):
            parts = name.removesuffix(ending).split("_")
            found: ContainerMetadata = {}
            if len(parts) == 3:
                runtime_metadata.set_strings(
                    found, pod_name=parts[0], namespace=parts[1], container_name=parts[2], name=parts[2]
                )
            return found
    return None


def fetch_pod_metadata(logs: str, pod_uid: str) -> ContainerMetadata | None:
    """Pod and namespace by the pod's uid, in ``logs`` (/var/log/pods).

    Raises UnreadableError.
    """
    for name in safe_files.list_directory(logs):
        if name.endswith(f"_{pod_uid}"):
            parts = name.split("_")
            found: ContainerMetadata = {}
            if len(parts) == 3:
                runtime_metadata.set_strings(found, namespace=parts[0], pod_name=parts[1])
            return found
    return None
