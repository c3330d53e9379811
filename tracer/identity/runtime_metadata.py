# SPDX-License-Identifier: Apache-2.0
"""What a runtime's files tell of a container, checked: whoever wrote them may have written anything."""

from typing import Any, TypedDict

import orjson

from tracer.linux.safe_files import UnreadableError

TEXT_MAX = 512
"""Characters of a name; longer ones are cut."""
LABELS_MAX_BYTES = 4096


class ContainerMetadata(TypedDict, total=False):
    """What was found; a key that is missing was not."""

    runtime: str
    name: str
    image: str
    labels: dict[str, str]
    labels_cut: bool
    """There are more labels."""
    pod_name: str
    namespace: str
    pod_uid: str
    container_name: str


class _ContainerState(TypedDict):
    running: bool
    oom_killed: bool | None
    exit_code: int | None


class ContainerState(_ContainerState, total=False):
    """The runtime's own word on how a container ended."""

    finished_at: str | int
    """As the runtime has it, RFC 3339 in any zone or Unix time in nanoseconds; of a container that has ended."""


def make_state(running: bool, oom_killed: Any, exit_code: Any, finished: Any = None) -> ContainerState:
    """A verdict of values of any type; a container that runs has no exit code yet."""
    told: ContainerState = {
        "running": running,
        "oom_killed": oom_killed if isinstance(oom_killed, bool) else None,
        "exit_code": None if running else to_int(exit_code),
    }
    finished_at = to_int(finished) or to_text(finished)
    if not running and finished_at is not None:
        told["finished_at"] = finished_at
    return told


KUBERNETES_LABELS = {
    "pod_name": "io.kubernetes.pod.name",
    "namespace": "io.kubernetes.pod.namespace",
    "pod_uid": "io.kubernetes.pod.uid",
    "container_name": "io.kubernetes.container.name",
}
"""What the kubelet tells every runtime."""


def parse_json_object(data: bytes, source: str) -> dict[str, Any]:
    """A JSON object.

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
    """A member that should be an object; empty where it is not."""
    member = value.get(key)
    return member if isinstance(member, dict) else {}


def to_text(value: Any) -> str | None:
    """A string that is no longer than TEXT_MAX; the names of files among them may be no UTF-8."""
    if not isinstance(value, str) or not value:
        return None
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")[:TEXT_MAX]


def to_int(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def set_strings(facts: ContainerMetadata, **found: Any) -> None:
    """Add what was found and is a string."""
    for key, value in found.items():
        checked = to_text(value)
        if checked is not None:
            facts[key] = checked  # type: ignore[literal-required]


def set_labels(facts: ContainerMetadata, labels: dict[str, Any]) -> None:
    """Add labels, as many as fit."""
    kept: dict[str, str] = {}
    room = LABELS_MAX_BYTES
    for key, value in labels.items():
        if not isinstance(value, str):
            continue
        room -= len(key) + len(value)
        if room < 0:
            facts["labels_cut"] = True
            break
        kept[key] = value
    facts["labels"] = kept


def set_kubernetes(facts: ContainerMetadata, labels: dict[str, Any]) -> None:
    set_strings(facts, **{field: labels.get(label) for field, label in KUBERNETES_LABELS.items()})
