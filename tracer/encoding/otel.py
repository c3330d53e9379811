# SPDX-License-Identifier: Apache-2.0
"""A record in OpenTelemetry's Log Data Model, with attributes of the semantic conventions.

Fields that OpenTelemetry has no name for are under ``oomtrace.``, by their path in the record; so is the type, because
some stores drop the event's name.  Null fields are omitted.
Container and pod are the resource: the record is about them, and their logs are searched by resource.  The process has
ended, so it is not.  A list of objects becomes one list per field, since attributes are plain values or lists of them;
values with the same index belong to the same object.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from tracer.encoding.flatten import leaves
from tracer.records import image_ref
from tracer.records.line_prefix import EVENT_PREFIX
from tracer.records.owner import with_owner_identity
from tracer.records.summary import summarize

SERVICE_NAME = "oomtrace"

RESOURCE = {
    "host.name": "host.name",
    "container.id": "container.id",
    "container.name": "container.name",
    "container.runtime": "container.runtime.name",
    "kubernetes.namespace": "k8s.namespace.name",
    "kubernetes.pod_name": "k8s.pod.name",
    "kubernetes.pod_uid": "k8s.pod.uid",
    "kubernetes.container_name": "k8s.container.name",
}
ATTRIBUTES = {
    "victim.pid": "process.pid",
    "pid": "process.pid",
    "victim.ppid": "process.parent_pid",
    "victim.comm": "process.title",
    "victim.cmdline": "process.command_args",
    "victim.exe": "process.executable.path",
    "victim.uid": "process.real_user.id",
    "victim.namespace_pid": "process.vpid",
    "victim.started_at": "process.creation.time",
    "victim.cgroup": "process.linux.cgroup",
}
SEVERITIES = {"oom_kill": (17, "ERROR"), "lost": (13, "WARN"), "gap": (13, "WARN"), "sigkill": (10, "INFO2")}
"""OpenTelemetry maps syslog's notice to INFO2."""
INFO = (9, "INFO")


def otel(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with the data model's names; attributes are flat objects."""
    number, text = SEVERITIES.get(str(record.get("type")), INFO)
    resource, attributes = parts(record)
    return {
        "EventName": event_name(record),
        "Timestamp": record.get("time"),
        "SeverityNumber": number,
        "SeverityText": text,
        "Body": summarize(record),
        "Resource": resource,
        "Attributes": attributes,
    }


def event_name(record: Mapping[str, Any]) -> str:
    return f"{EVENT_PREFIX}{record.get('type')}"


def parts(record: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Attributes of the resource, and of the log record: strings, numbers, booleans, and lists of these."""
    resource: dict[str, Any] = {"service.name": SERVICE_NAME, "os.type": "linux"}
    attributes: dict[str, Any] = {}
    if isinstance(record.get("id"), str):
        attributes["log.record.uid"] = f"{record.get('type')}:{record['id']}"
    for path, value in leaves(with_owner_identity(record)):
        if value is None or path == "time":
            continue
        if path == "container.image" and isinstance(value, str):
            split = image_ref.parse_image_ref(value)
            resource.update({"container.image.name": split.name} if split else {"container.image.id": value})
            attributes.update(_versions(split))
        elif path == "host.labels":
            resource.update((f"oomtrace.label.{name}", text) for name, text in value.items())
        elif isinstance(value, dict):
            prefix = "container.label" if path == "container.labels" else f"oomtrace.{path}"
            attributes.update((f"{prefix}.{name}", text) for name, text in value.items())
        elif path in RESOURCE:
            resource[RESOURCE[path]] = value
        else:
            attributes.update(_columns(ATTRIBUTES.get(path, f"oomtrace.{path}"), value))
    return resource, attributes


def _columns(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, list) or not value or not isinstance(value[0], dict):
        yield name, value
        return
    for key in value[0]:
        yield f"{name}.{key}", [item.get(key) for item in value]


def _versions(split: image_ref.ImageRef | None) -> Iterator[tuple[str, Any]]:
    if split is not None and split.tag is not None:
        yield "container.image.tags", [split.tag]
    if split is not None and split.digest is not None:
        yield "container.image.repo_digests", [split.digest]
