# SPDX-License-Identifier: Apache-2.0
"""Which runtime's files to ask about a container, and where they are."""

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
"""Name -> folders, as distributions and Kubernetes have them; those that are not there cost one system call."""

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
"""Root, folder below it, runtime: in these each container has a folder that is called by its id."""

_DESCRIPTIONS = {
    "docker": "names of Docker's containers",
    "containerd": "names of containerd's containers",
    "containerd-root": "names of containerd's containers",
    "containers-storage": "names of podman's and CRI-O's containers",
    "container-logs": "names of pods",
    "pod-logs": "names of pods",
}
"""What each of ROOTS tells."""


class CallReader(Protocol):
    """Calls one of QUESTIONS, wherever that may be done."""

    def __call__(self, question: Callable[[str, str], _Answer], folder: str, subject: str) -> _Answer:
        """Raises UnreadableError."""


def _directly(question: Callable[[str, str], _Answer], folder: str, subject: str) -> _Answer:
    return question(folder, subject)


def list_entries(folder: str, name: str) -> list[str]:
    """Raises UnreadableError."""
    return list(safe_files.list_directory(folder, name))


def read_owner(folder: str, _subject: str) -> int | None:
    """Who decides what is in it, beside root."""
    return safe_files.directory_owner(folder)


READ_FUNCTIONS: tuple[Callable[[str, str], object], ...] = (
    *(find for _, _, find in _METADATA_SOURCES),
    *(judge for _, _, judge in _STATE_SOURCES),
    kubelet.fetch_container_metadata,
    kubelet.fetch_pod_metadata,
    list_entries,
    read_owner,
)
"""All that reads a folder."""


def parse_runtime_root(text: str) -> tuple[str, str]:
    """``NAME=FOLDER``.

    Raises TracerError (exit code 2) where it is something else.
    """
    name, _, folder = text.partition("=")
    if name not in ROOTS or not folder.startswith("/"):
        raise TracerError(
            f"{text!r} does not tell where a runtime keeps its files",
            f"use NAME=/FOLDER with one of the names {', '.join(ROOTS)}",
            EXIT_USAGE,
        )
    return name, folder


class Runtimes:
    """Reads what the runtimes of this host know of a container."""

    def __init__(self, roots: Iterable[tuple[str, str]] = (), read: CallReader = _directly) -> None:
        """``roots``: pairs of a name in ROOTS and a folder, which take the place of the usual ones."""
        self._read = read
        own: dict[str, list[str]] = {}
        for name, folder in roots:
            own.setdefault(name, []).append(folder)
        self._roots: dict[str, Sequence[str]] = {name: own.get(name, usual) for name, usual in ROOTS.items()}
        self.errors = 0
        """How many files were there and could not be read, or were not what they should be."""
        self.last_error = ""
        self.unread: dict[str, str] = {}
        """By folder, what could not be read in it first, and what may be missing for that."""

    def fetch_metadata(
        self, container_id: str, runtime: str | None, pod_uid: str | None, user: int | None = None
    ) -> ContainerMetadata:
        """What is known of a container; empty where nothing is.

        ``runtime`` is what the cgroup's path tells; with None all runtimes are asked.  ``user``: whose it is, if it is
        in that user's part of the cgroup tree.  Then only folders that are his tell of it, and of no other's.
        """
        found: ContainerMetadata = {}
        if not _is_name(container_id):
            return found
        for name, root, find in _METADATA_SOURCES:
            if name == found.get("runtime", runtime or name):  # what the first one told stays
                found = {**(self._first(root, find, container_id, user) or {}), **found}
        if pod_uid is not None and "pod_name" not in found:
            logged = self._first("container-logs", kubelet.fetch_container_metadata, container_id, user)
            logged = logged or self._first("pod-logs", kubelet.fetch_pod_metadata, pod_uid, user) or {}
            found = {**logged, **found}
        return found

    def fetch_state(self, container_id: str, runtime: str, user: int | None = None) -> ContainerState | None:
        """What the runtime says of a container's end; None where its files do not tell."""
        if _is_name(container_id):
            for name, root, judge in _STATE_SOURCES:
                if name == runtime:
                    return self._first(root, judge, container_id, user)
        return None

    def list_containers(self) -> Iterator[tuple[str, str | None]]:
        """Ids of the host's containers of which there are files, and which runtime's; some more than once, some no
        containers."""
        for root, name, runtime in _CONTAINER_FOLDERS:
            for folder in self._of(root, None):
                try:
                    for found in self._read(list_entries, folder, name):
                        if _is_name(found):
                            yield found, runtime
                except UnreadableError as error:
                    self._record_unread(root, folder, error)

    def count_error(self, error: str) -> None:
        """Count a part of a record that stays unknown."""
        self.errors += 1
        self.last_error = error

    def _record_unread(self, root: str, folder: str, error: UnreadableError) -> None:
        self.count_error(str(error))
        self.unread.setdefault(folder, f"{error}; {_DESCRIPTIONS[root]} may be missing")

    def _of(self, root: str, user: int | None) -> Iterator[str]:
        """The folders that tell of the host's containers, or of this user's.

        Who runs this may as well have made the host's.
        """
        for folder in self._roots[root]:
            try:
                owner = self._read(read_owner, folder, "")
            except UnreadableError as error:
                self._record_unread(root, folder, error)
                continue
            if owner == user if user is not None else owner in (0, os.geteuid()):
                yield folder

    def _first(
        self, root: str, question: Callable[[str, str], _Answer | None], subject: str, user: int | None
    ) -> _Answer | None:
        for folder in self._of(root, user):
            try:
                answer = self._read(question, folder, subject)
            except UnreadableError as error:
                self._record_unread(root, folder, error)
                continue
            if answer is not None:
                return answer
        return None


def _is_name(container_id: str) -> bool:
    """Whether it can be the name of a folder: ids come from cgroup paths, which anybody may have made."""
    return container_id not in ("", ".", "..") and "/" not in container_id and len(container_id) < 256
