# SPDX-License-Identifier: Apache-2.0
"""Pod and container names from the kubelet's log files, for any runtime; they outlive the container.

/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log are links, /var/log/pods/NAMESPACE_POD_UID directories (kubelet,
pkg/kubelet/kuberuntime/legacy.go and helpers.go).  Only a static pod's name may contain an underscore.
"""

from tracer.identity import runtime_metadata
from tracer.identity.runtime_metadata import ContainerMetadata
from tracer.linux import safe_files


def fetch_container_metadata(logs: str, container_id: str) -> ContainerMetadata | None:
    """Pod, namespace and container of a container id, from ``logs`` (/var/log/containers); None: there is no such log.

    Raises UnreadableError.
    """
    suffix = f"-{container_id}.log"
    for name in safe_files.list_directory(logs):
        if name.endswith(suffix):
            parts = name.removesuffix(suffix).split("_")
            metadata: ContainerMetadata = {}
            if len(parts) == 3:
                runtime_metadata.set_strings(
                    metadata, pod_name=parts[0], namespace=parts[1], container_name=parts[2], name=parts[2]
                )
            return metadata
    return None


def fetch_pod_metadata(logs: str, pod_uid: str) -> ContainerMetadata | None:
    """Pod and namespace of a pod uid, from ``logs`` (/var/log/pods); None: there is no such directory.

    Raises UnreadableError.
    """
    for name in safe_files.list_directory(logs):
        if name.endswith(f"_{pod_uid}"):
            parts = name.split("_")
            metadata: ContainerMetadata = {}
            if len(parts) == 3:
                runtime_metadata.set_strings(metadata, namespace=parts[0], pod_name=parts[1])
            return metadata
    return None
