# SPDX-License-Identifier: Apache-2.0
"""A record in the Elastic Common Schema, version 8.  Fields that ECS does not have are under ``oomtrace``.

Null fields are omitted.  Dots in names of labels become underscores, as in Beats: to Elasticsearch a dot is a level,
and ``app`` and ``app.name`` could not both exist.
"""

from collections.abc import Mapping
from typing import Any

from tracer.encoding.flatten import leaves
from tracer.records import image_ref
from tracer.records.owner import with_owner_identity
from tracer.records.summary import summarize

VERSION = "8.17.0"

FIELDS = {
    "time": "@timestamp",
    "type": "event.action",
    "id": "event.id",
    "seq": "event.sequence",
    "host.name": "host.name",
    "host.boot_id": "host.boot.id",
    "host.kernel": "host.os.kernel",
    "host.labels": "labels",
    "incident.message": "event.reason",
    "victim.pid": "process.pid",
    "pid": "process.pid",
    "victim.tid": "process.thread.id",
    "victim.ppid": "process.parent.pid",
    "victim.comm": "process.name",
    "victim.cmdline": "process.args",
    "victim.exe": "process.executable",
    "victim.namespace_pid": "process.vpid",
    "victim.started_at": "process.start",
    "container.id": "container.id",
    "container.runtime": "container.runtime",
    "container.name": "container.name",
    "container.labels": "container.labels",
    "kubernetes.namespace": "orchestrator.namespace",
    "kubernetes.pod_name": "orchestrator.resource.name",
    "kubernetes.pod_uid": "orchestrator.resource.id",
}
_KINDS = {
    "oom_kill": ("process", "end"),
    "oom_exit": ("process", "end"),
    "sigkill": ("process", "end"),
    "start": ("host", "start"),
    "stop": ("host", "end"),
}


def ecs(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record as nested objects."""
    message, record = summarize(record), with_owner_identity(record)
    category, kind = _KINDS.get(str(record.get("type")), ("host", "info"))
    event = {"module": "oomtrace", "dataset": "oomtrace", "kind": "event", "category": [category], "type": [kind]}
    fields: dict[str, Any] = {
        "event": event,
        "ecs": {"version": VERSION},
        "message": message,
        "host": {"os": {"type": "linux"}},
    }
    if record.get("kubernetes") is not None:
        fields["orchestrator"] = {"type": "kubernetes", "resource": {"type": "pod"}}
    for path, value in leaves(record):
        if value is None:
            continue
        if path == "container.image" and isinstance(value, str):
            _set_field(fields, "container.image", _image_fields(value))
        elif path == "victim.uid":
            _set_field(fields, "process.real_user.id", str(value))
        elif path.endswith("labels"):
            _set_field(fields, FIELDS.get(path, f"oomtrace.{path}"), _dedot(value))
        else:
            _set_field(fields, FIELDS.get(path, f"oomtrace.{path}"), value)
    return fields


def _set_field(fields: dict[str, Any], path: str, value: Any) -> None:
    *parents, name = path.split(".")
    for parent in parents:
        fields = fields.setdefault(parent, {})
    fields[name] = value


def _dedot(labels: Mapping[str, Any]) -> dict[str, Any]:
    """Labels without dots in their names; a name that exists already gets one more underscore."""
    renamed: dict[str, Any] = {}
    for name, value in labels.items():
        plain = name.replace(".", "_")
        while plain in renamed:
            plain += "_"
        renamed[plain] = value
    return renamed


def _image_fields(text: str) -> dict[str, Any]:
    split = image_ref.parse_image_ref(text)
    if split is None:
        return {"hash": {"all": [text]}}
    tags = {"tag": [split.tag]} if split.tag is not None else {}
    digests = {"hash": {"all": [split.digest]}} if split.digest is not None else {}
    return {"name": split.name, **tags, **digests}
