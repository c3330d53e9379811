# SPDX-License-Identifier: Apache-2.0
"""The runtimes of this host: where their files are, and which of them have a container's metadata."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar

from tracer.base.errors import EXIT_USAGE, TracerError
from tracer.identity import containerd, containers_storage, docker, kubelet
from tracer.identity.runtime_metadata import ContainerMetadata, ContainerState
from tracer.linux import safe_files
from tracer.linux.safe_files import UnreadableError

_Answer = TypeVar("_Answer")

ROOTS: Mapping[str, tuple[str, ...]] = {
    "docker": ("/var/lib/docker", "/var/snap/docker/common/var-lib-docker"),
    "containerd": ("/run/containerd", "/run/k3s/containerd", "/var/snap/microk8s/common/run/containerd"),
    "containerd-root": (
        "/var/lib/containerd",
        "/var/lib/rancher/k3s/agent/containerd",
        "/var/lib/rancher/rke2/agent/containerd",
        "/var/snap/microk8s/common/var/lib/containerd",
    ),
    "containers-storage": ("/run/containers/storage", "/var/lib/containers/storage"),
    "container-logs": ("/var/log/containers",),
    "pod-logs": ("/var/log/pods",),
}
"""Default directories by name, of distributions and Kubernetes; a missing one costs one system call."""

_METADATA_SOURCES: tuple[tuple[str, str, Callable[[str, str], ContainerMetadata | None]], ...] = (
    ("docker", "docker", docker.fetch_metadata),
    ("containerd", "containerd", containerd.fetch_from_bundle),
    ("containerd", "containerd-root", containerd.fetch_from_database),
    ("podman", "containers-storage", containers_storage.fetch_podman_metadata),
    ("cri-o", "containers-storage", containers_storage.fetch_crio_metadata),
)
_STATE_SOURCES: tuple[tuple[str, str, Callable[[str, str], ContainerState | None]], ...] = (
    ("docker", "docker", docker.fetch_state),
    ("containerd", "containerd-root", containerd.fetch_state),
    ("podman", "containers-storage", containers_storage.fetch_podman_state),
    ("cri-o", "containers-storage", containers_storage.fetch_crio_state),
)

_CONTAINER_FOLDERS = (
    ("docker", "containers", "docker"),
    ("containerd-root", "io.containerd.grpc.v1.cri/containers", "containerd"),
    ("containerd-root", "io.containerd.cri.v1.runtime/containers", "containerd"),
    ("containerd", "io.containerd.runtime.v2.task/k8s.io", "containerd"),
    ("containerd", "io.containerd.runtime.v2.task/default", "containerd"),
    ("containers-storage", "overlay-containers", None),
    ("containers-storage", "vfs-containers", None),
)
"""Root, directory below it, runtime: each container has a directory there with its id as the name."""

_DESCRIPTIONS = {
    "docker": "names of Docker's containers",
    "containerd": "names of containerd's containers",
    "containerd-root": "names of containerd's containers",
    "containers-storage": "names of podman's and CRI-O's containers",
    "container-logs": "names of pods",
    "pod-logs": "names of pods",
}
"""What is missing if a root cannot be read."""


class CallReader(Protocol):
    """Calls one of READ_FUNCTIONS, in this process or a reader process."""

    def __call__(self, function: Callable[[str, str], _Answer], folder: str, subject: str, /) -> _Answer:
        """Raises UnreadableError."""


def _call(function: Callable[[str, str], _Answer], folder: str, subject: str) -> _Answer:
    return function(folder, subject)


def list_entries(folder: str, name: str) -> list[str]:
    """Names in the directory ``name`` below ``folder``.

    Raises UnreadableError.
    """
    return list(safe_files.list_directory(folder, name))


def read_owner(folder: str, _subject: str) -> int | None:
    """Uid of the user, other than root, that controls a directory; 0: only root, None: there is no such directory."""
    return safe_files.directory_owner(folder)


READ_FUNCTIONS: tuple[Callable[[str, str], object], ...] = (
    *(fetch for _, _, fetch in _METADATA_SOURCES),
    *(fetch for _, _, fetch in _STATE_SOURCES),
    kubelet.fetch_container_metadata,
    kubelet.fetch_pod_metadata,
    list_entries,
    read_owner,
)
"""All functions that read runtimes' files; a reader process calls them by index."""


def parse_runtime_root(text: str) -> tuple[str, str]:
    """Parse the option ``--runtime-root NAME=FOLDER``.

    Raises TracerError (exit code 2).
    """
    name, _, folder = text.partition("=")
    if name not in ROOTS or not folder.startswith("/"):
        raise TracerError(
            f"invalid runtime root {text!r}",
            f"use NAME=/FOLDER with NAME one of {', '.join(ROOTS)}",
            EXIT_USAGE,
        )
    return name, folder


class Runtimes:
    """Reads the runtimes' files about containers."""

    def __init__(self, roots: Iterable[tuple[str, str]] = (), read: CallReader = _call) -> None:
        """``roots``: names in ROOTS with directories, which replace the default ones."""
        self._read = read
        configured: dict[str, list[str]] = {}
        for name, folder in roots:
            configured.setdefault(name, []).append(folder)
        self._roots: dict[str, Sequence[str]] = {name: configured.get(name, default) for name, default in ROOTS.items()}
        self.errors = 0
        """Number of files that exist but could not be read, or had unexpected contents."""
        self.last_error = ""
        self.unread: dict[str, str] = {}
        """By directory: the first error, and what may be missing."""

    def fetch_metadata(
        self, container_id: str, runtime: str | None, pod_uid: str | None, user: int | None = None
    ) -> ContainerMetadata:
        """Metadata of a container; empty: there is none.

        ``runtime``: from the cgroup's path; None: all runtimes are tried.  ``user``: uid of the user whose part of the
        cgroup tree the container is in.  Then only directories that this user owns are read; they are never
        read for other containers.
        """
        metadata: ContainerMetadata = {}
        if not _is_file_name(container_id):
            return metadata
        for name, root, fetch in _METADATA_SOURCES:
            if name == metadata.get("runtime", runtime or name):  # earlier sources have precedence
                metadata = {**(self._read_first(root, fetch, container_id, user) or {}), **metadata}
        if pod_uid is not None and "pod_name" not in metadata:
            pod = self._read_first("container-logs", kubelet.fetch_container_metadata, container_id, user)
            pod = pod or self._read_first("pod-logs", kubelet.fetch_pod_metadata, pod_uid, user) or {}
            metadata = {**pod, **metadata}
        return metadata

    def fetch_state(self, container_id: str, runtime: str, user: int | None = None) -> ContainerState | None:
        """State of a container according to its runtime; None: its files do not show it."""
        if _is_file_name(container_id):
            for name, root, fetch in _STATE_SOURCES:
                if name == runtime:
                    return self._read_first(root, fetch, container_id, user)
        return None

    def list_containers(self) -> Iterator[tuple[str, str | None]]:
        """Names of the directories that containers have, which are their ids, with their runtime (None: podman or
        CRI-O).  Some appear more than once, and some are not containers."""
        for root, name, runtime in _CONTAINER_FOLDERS:
            for folder in self._directories(root, None):
                try:
                    for container_id in self._read(list_entries, folder, name):
                        if _is_file_name(container_id):
                            yield container_id, runtime
                except UnreadableError as error:
                    self._record_unread(root, folder, error)

    def count_error(self, error: str) -> None:
        """Count an error that leaves a part of a record unknown."""
        self.errors += 1
        self.last_error = error

    def _record_unread(self, root: str, folder: str, error: UnreadableError) -> None:
        self.count_error(str(error))
        self.unread.setdefault(folder, f"{error}; {_DESCRIPTIONS[root]} may be missing")

    def _directories(self, root: str, user: int | None) -> Iterator[str]:
        """The directories with files about the host's containers, or about those of ``user``.

        The user that runs oomtrace may also own the host's.
        """
        for folder in self._roots[root]:
            try:
                owner = self._read(read_owner, folder, "")
            except UnreadableError as error:
                self._record_unread(root, folder, error)
                continue
            if owner == user if user is not None else owner in (0, os.geteuid()):
                yield folder

    def _read_first(
        self, root: str, function: Callable[[str, str], _Answer | None], subject: str, user: int | None
    ) -> _Answer | None:
        for folder in self._directories(root, user):
            try:
                answer = self._read(function, folder, subject)
            except UnreadableError as error:
                self._record_unread(root, folder, error)
                continue
            if answer is not None:
                return answer
        return None


def _is_file_name(container_id: str) -> bool:
    """Whether a container id is a valid file name: it is from a cgroup path, which is untrusted."""
    return container_id not in ("", ".", "..") and "/" not in container_id and len(container_id) < 256
