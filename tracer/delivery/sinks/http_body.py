# SPDX-License-Identifier: Apache-2.0
"""Encode lines as the body of a request, in the format of each HTTP preset."""

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from tracer.base.clock import format_rfc3339
from tracer.delivery.sinks.line_metadata import LineMetadata, line_metadata
from tracer.delivery.spool_dir import fnv1a

ID_MAX_CHARACTERS = 512
"""Elasticsearch's limit."""
_LABEL = re.compile("[a-zA-Z_][a-zA-Z0-9_]*")


def ndjson_body(lines: Sequence[bytes]) -> bytes:
    return b"".join(lines)


def loki_body(lines: Sequence[bytes], labels: Mapping[str, str]) -> bytes:
    """Streams for Loki's /loki/api/v1/push.

    Only fields with few values are labels: host, type, and the pod's namespace.
    """
    streams: dict[tuple[tuple[str, str], ...], list[tuple[str, str]]] = {}
    for line in lines:
        metadata = line_metadata(line)
        own = {"host": metadata.host, "type": metadata.type, "namespace": metadata.namespace}
        stream = {**{name: text for name, text in own.items() if text}, **labels}
        entry = (str(_time_ns(metadata)), line.decode("utf-8", "replace").rstrip("\n"))
        streams.setdefault(tuple(stream.items()), []).append(entry)
    return orjson.dumps({"streams": [{"stream": dict(stream), "values": values} for stream, values in streams.items()]})


def loki_labels(text: str) -> dict[str, str]:
    """Parse ``NAME=VALUE,...``.

    Raises ValueError with the invalid pair.
    """
    labels = {"job": "oomtrace"}
    for pair in filter(None, text.split(",")):
        name, equals, value = pair.partition("=")
        if not equals or not _LABEL.fullmatch(name):
            raise ValueError(pair)
        labels[name] = value
    return labels


def bulk_body(lines: Sequence[bytes], index: str) -> bytes:
    """Actions for Elasticsearch's _bulk: create a document per line, unless one with its id exists."""
    parts = []
    for line in lines:
        metadata = line_metadata(line)
        day = format_rfc3339(_time_ns(metadata))[:10].replace("-", ".")
        action = {"create": {"_index": index.replace("{date}", day), "_id": document_id(line, metadata)}}
        parts += [orjson.dumps(action), b"\n", line]
    return b"".join(parts)


def document_id(line: bytes, metadata: LineMetadata) -> str:
    """A document id that is the same whenever the line is sent again."""
    own = "-".join(metadata.id) if metadata.id else ""
    return own if 0 < len(own.encode()) <= ID_MAX_CHARACTERS else f"{metadata.type or 'line'}-{fnv1a(line):016x}"


def hec_body(lines: Sequence[bytes], common: Mapping[str, Any]) -> bytes:
    """Events for Splunk's HTTP Event Collector, concatenated; ``common`` fields are in each."""
    parts = []
    for line in lines:
        metadata = line_metadata(line)
        seconds, nanoseconds = divmod(_time_ns(metadata), 1_000_000_000)
        head = {**({"host": metadata.host} if metadata.host else {}), **common}
        text = line.rstrip(b"\n")
        event = text if metadata.is_json else orjson.dumps(text.decode("utf-8", "replace"))
        time_ = b'{"time":%d.%09d,' % (seconds, nanoseconds)  # a float would round it
        parts.append(time_ + orjson.dumps(head)[1:-1] + b',"event":' + event + b"}\n")
    return b"".join(parts)


def _time_ns(metadata: LineMetadata) -> int:
    return metadata.time_ns if metadata.time_ns is not None else time.time_ns()
