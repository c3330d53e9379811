# SPDX-License-Identifier: Apache-2.0
"""Lines -> what stands in a request, as each of those who take lines by HTTP wants it."""

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from tracer.base.clock import format_rfc3339
from tracer.delivery.sinks.known import Known, known
from tracer.delivery.spool_dir import fnv1a

ID_MAX_CHARACTERS = 512
"""Elasticsearch's limit."""
_LABEL = re.compile("[a-zA-Z_][a-zA-Z0-9_]*")


def ndjson(lines: Sequence[bytes]) -> bytes:
    return b"".join(lines)


def loki(lines: Sequence[bytes], labels: Mapping[str, str]) -> bytes:
    """Streams for Loki's /loki/api/v1/push.

    What has few values is a label: host, type, and the pod's namespace.
    """
    streams: dict[tuple[tuple[str, str], ...], list[tuple[str, str]]] = {}
    for line in lines:
        about = known(line)
        own = {"host": about.host, "type": about.type, "namespace": about.namespace}
        stream = {**{name: text for name, text in own.items() if text}, **labels}
        entry = (str(_time_ns(about)), line.decode("utf-8", "replace").rstrip("\n"))
        streams.setdefault(tuple(stream.items()), []).append(entry)
    return orjson.dumps({"streams": [{"stream": dict(stream), "values": values} for stream, values in streams.items()]})


def loki_labels(text: str) -> dict[str, str]:
    """``NAME=VALUE,...``.

    Raises ValueError.
    """
    labels = {"job": "oomtrace"}
    for pair in filter(None, text.split(",")):
        name, equals, value = pair.partition("=")
        if not equals or not _LABEL.fullmatch(name):
            raise ValueError(pair)
        labels[name] = value
    return labels


def bulk(lines: Sequence[bytes], index: str) -> bytes:
    """For Elasticsearch's _bulk: each a document that is created unless there is one of its id."""
    parts = []
    for line in lines:
        about = known(line)
        day = format_rfc3339(_time_ns(about))[:10].replace("-", ".")
        action = {"create": {"_index": index.replace("{date}", day), "_id": document_id(line, about)}}
        parts += [orjson.dumps(action), b"\n", line]
    return b"".join(parts)


def document_id(line: bytes, about: Known) -> str:
    """The same whenever this line comes again."""
    own = "-".join(about.id) if about.id else ""
    return own if 0 < len(own.encode()) <= ID_MAX_CHARACTERS else f"{about.type or 'line'}-{fnv1a(line):016x}"


def hec(lines: Sequence[bytes], about_all: Mapping[str, Any]) -> bytes:
    """Events for Splunk's HTTP Event Collector, one behind the other."""
    parts = []
    for line in lines:
        about = known(line)
        seconds, nanoseconds = divmod(_time_ns(about), 1_000_000_000)
        head = {**({"host": about.host} if about.host else {}), **about_all}
        text = line.rstrip(b"\n")
        event = text if about.is_json else orjson.dumps(text.decode("utf-8", "replace"))
        time_ = b'{"time":%d.%09d,' % (seconds, nanoseconds)  # as a float it would be another
        parts.append(time_ + orjson.dumps(head)[1:-1] + b',"event":' + event + b"}\n")
    return b"".join(parts)


def _time_ns(about: Known) -> int:
    return about.time_ns if about.time_ns is not None else time.time_ns()
