# SPDX-License-Identifier: Apache-2.0
"""A container's metadata and state from a runtime's files, validated: the files are untrusted."""

from typing import Any, TypedDict

import orjson

from tracer.linux.safe_files import UnreadableError

TEXT_MAX = 512
"""Maximum characters of a name; longer ones are cut."""
LABELS_MAX_BYTES = 4096
"""Keys and values together, in characters."""


class ContainerMetadata(TypedDict, total=False):
    """Names, image and labels; unknown keys are absent."""

    runtime: str
    name: str
    image: str
    labels: dict[str, str]
    labels_cut: bool
    """Whether labels were left out for LABELS_MAX_BYTES."""
    pod_name: str
    namespace: str
    pod_uid: str
    container_name: str


class _ContainerState(TypedDict):
    running: bool
    oom_killed: bool | None
    exit_code: int | None


class ContainerState(_ContainerState, total=False):
    """The state of a container according to its runtime."""

    finished_at: str | int
    """End of the container, as the runtime writes it: RFC 3339 in any zone, or Unix time in nanoseconds."""


def make_state(running: bool, oom_killed: Any, exit_code: Any, finished: Any = None) -> ContainerState:
    """Make a state of unvalidated values; a running container has no exit code."""
    state: ContainerState = {
        "running": running,
        "oom_killed": oom_killed if isinstance(oom_killed, bool) else None,
        "exit_code": None if running else to_int(exit_code),
    }
    finished_at = to_int(finished) or to_text(finished)
    if not running and finished_at is not None:
        state["finished_at"] = finished_at
    return state


KUBERNETES_LABELS = {
    "pod_name": "io.kubernetes.pod.name",
    "namespace": "io.kubernetes.pod.namespace",
    "pod_uid": "io.kubernetes.pod.uid",
    "container_name": "io.kubernetes.container.name",
}
"""Labels that the kubelet gives to every runtime."""


def parse_json_object(data: bytes, source: str) -> dict[str, Any]:
    """Parse a JSON object; ``source`` names the file in errors.

    Raises UnreadableError.
    """
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise UnreadableError(f"{source}: {error}") from error
    if not isinstance(value, dict):
        raise UnreadableError(f"{source}: not a JSON object")
    return value


def get_object(value: dict[str, Any], key: str) -> dict[str, Any]:
    """A member that is an object; empty if it is not."""
    member = value.get(key)
    return member if isinstance(member, dict) else {}


def to_text(value: Any) -> str | None:
    """A non-empty string, cut to TEXT_MAX; file names in it may be invalid UTF-8.  None: anything else."""
    if not isinstance(value, str) or not value:
        return None
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")[:TEXT_MAX]


def to_int(value: Any) -> int | None:
    """An integer; None: anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def set_strings(metadata: ContainerMetadata, **values: Any) -> None:
    """Set the keys whose values are non-empty strings."""
    for key, value in values.items():
        text = to_text(value)
        if text is not None:
            metadata[key] = text  # type: ignore[literal-required]


def set_labels(metadata: ContainerMetadata, labels: dict[str, Any]) -> None:
    """Set the labels, as many as fit into LABELS_MAX_BYTES."""
    kept: dict[str, str] = {}
    room = LABELS_MAX_BYTES
    for key, value in labels.items():
        if not isinstance(value, str):
            continue
        room -= len(key) + len(value)
        if room < 0:
            metadata["labels_cut"] = True
            break
        kept[key] = value
    metadata["labels"] = kept


def set_kubernetes(metadata: ContainerMetadata, labels: dict[str, Any]) -> None:
    """Set pod and container names from the kubelet's labels."""
    set_strings(metadata, **{field: labels.get(label) for field, label in KUBERNETES_LABELS.items()})
