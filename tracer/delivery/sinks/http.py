# SPDX-License-Identifier: Apache-2.0
"""Send lines by HTTP: batches as NDJSON, or in the formats of Loki, Elasticsearch, OpenSearch, Splunk and Vector."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from tracer.base.errors import EXIT_USAGE, TracerError
from tracer.delivery.sinks import RejectedError, RemoteSink, Sink, http_body
from tracer.delivery.sinks.destination import Destination, Option, UriForm
from tracer.delivery.sinks.http_client import OPTIONS, HttpClient, HttpResponse, RetryableError

_QUERY = {"query": Option("Query string of the request, after `?`.")}
_ECS = {"style": Option("Names and order of the fields.", "ecs", ("nested", "flat", "ecs", "otel"))}
_PLAIN = {"compress": OPTIONS["compress"]._replace(default="none")}
_LOKI = {
    "labels": Option("Additional labels, or other values: `NAME=VALUE,NAME=VALUE`.", None, "list"),
    "tenant": Option("Tenant (`X-Scope-OrgID`)."),
}
_INDEX = "Data stream, alias or index; `{date}` is replaced by the record's day, `2026.11.24`."
_ELASTICSEARCH = {"index": Option(_INDEX, "logs-oomtrace-default"), **_ECS}
_OPENSEARCH = {"index": Option(_INDEX, "oomtrace-{date}"), **_ECS}
_SPLUNK = {
    "index": Option("Index; by default the token's."),
    "sourcetype": Option("Source type.", "oomtrace"),
}


def _forms(preset: str, rest: str, meaning: str, options: Mapping[str, Option]) -> dict[str, UriForm]:
    """Forms for HTTP and HTTPS."""
    own = {**OPTIONS, **_QUERY, **options}
    return {
        f"{preset}http": UriForm(f"{preset}http://{rest}", f"{meaning}.", own),
        f"{preset}https": UriForm(f"{preset}https://{rest}", "The same with TLS.", own),
    }


FORMS = {
    **_forms("", "HOST[:PORT][/PATH]", "POSTs of JSON lines", _PLAIN),
    **_forms("loki+", "HOST[:3100][/PATH]", "Grafana Loki's push", _LOKI),
    **_forms("elasticsearch+", "HOST[:9200][/PATH]", "Elasticsearch's `_bulk`", _ELASTICSEARCH),
    **_forms("opensearch+", "HOST[:9200][/PATH]", "OpenSearch's `_bulk`", _OPENSEARCH),
    **_forms("splunk+", "HOST[:8088][/PATH]", "Splunk's HTTP Event Collector", _SPLUNK),
    **_forms("vector+", "HOST[:PORT][/PATH]", "Vector's source `http_server`", {}),
}

_FILTER = "filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason"
_HEC_REJECTED = frozenset({5, 6, 8, 12, 13, 15})
"""Codes of a 400 that are about an event (no data, invalid data, blank event, ...); others are about configuration."""
_LOKI_REJECTED = re.compile(
    rb"has timestamp too (old|new): |entry too far behind|entry out of order|Max entry size '\d+' bytes exceeded"
    rb"|has \d+ label names; limit|has label (name|value) too long: |has duplicate label name: "
)
"""Loki's messages about an entry that it never accepts (pkg/validation/validate.go); it accepts the other entries."""
_MAPPING = frozenset({"mapper_parsing_exception", "document_parsing_exception", "strict_dynamic_mapping_exception"})
"""Errors of Elasticsearch and OpenSearch about a document; other 400s are about the cluster or an index."""
_MAPPING_REASONS = (
    "mapper [",
    "can't merge a non object mapping",
    "Limit of ",
    "Document contains at least one immense",
)
"""Beginnings of an ``illegal_argument_exception`` about a document; a full cluster answers with the same type."""
_ALREADY_CREATED = 409


class _Preset(NamedTuple):
    """The differences between the presets."""

    port: int | None
    path: str
    content_type: str
    encode: Callable[[Sequence[bytes]], bytes]
    count_accepted: Callable[[HttpResponse, int], int]
    auth_scheme: str = "Bearer"
    headers: Mapping[str, str] = {}
    query: str = ""


def open_sink(destination: Destination) -> Sink:
    """Raises TracerError if an option is invalid, or a file of certificates or secrets cannot be read."""
    preset = _make_preset(destination, destination.scheme.rpartition("+")[0])
    return HttpSink(HttpClient(destination, preset.auth_scheme, preset.port), preset, destination)


class HttpSink(RemoteSink):
    def __init__(self, client: HttpClient, preset: _Preset, destination: Destination) -> None:
        self.uri = client.uri
        self.batch_lines = max(1, int(destination.options["batch"] or 1))
        self._client, self._preset = client, preset
        query = "&".join(filter(None, (str(destination.options["query"] or ""), preset.query)))
        self._path = (destination.path if destination.path not in ("", "/") else preset.path) + (
            f"?{query}" if query else ""
        )
        if not (self._path.isascii() and self._path.isprintable() and " " not in self._path):
            raise TracerError(f"output {self.uri}: invalid path", "percent-encode its bytes as %25XX", EXIT_USAGE)

    def write(self, lines: Sequence[bytes]) -> int:
        lines = lines[: self.batch_lines]
        preset = self._preset
        response = self._client.post(self._path, preset.encode(lines), preset.content_type, preset.headers)
        return preset.count_accepted(response, len(lines))

    def close(self) -> None:
        self._client.close()


def _make_preset(destination: Destination, preset: str) -> _Preset:
    options = destination.options
    if preset == "loki":
        try:
            labels = http_body.loki_labels(str(options["labels"] or ""))
        except ValueError as error:
            raise TracerError(
                f"output {destination.scheme}: invalid label {str(error)!r}", "write NAME=VALUE", EXIT_USAGE
            ) from error
        tenant = {"X-Scope-OrgID": str(options["tenant"])} if options["tenant"] else {}
        if not all(value.isascii() and value.isprintable() for value in tenant.values()):
            raise TracerError(
                f"output {destination.scheme}: tenant is not printable ASCII", "see X-Scope-OrgID", EXIT_USAGE
            )
        return _Preset(3100, "/loki/api/v1/push", "application/json", lambda lines: http_body.loki_body(lines, labels),
                       _count_pushed, headers=tenant)  # fmt: skip
    if preset in ("elasticsearch", "opensearch"):
        index = str(options["index"])
        auth_scheme = "ApiKey" if preset == "elasticsearch" else "Bearer"
        return _Preset(9200, "/_bulk", "application/x-ndjson", lambda lines: http_body.bulk_body(lines, index),
                       _count_created, auth_scheme, query=_FILTER)  # fmt: skip
    if preset == "splunk":
        common = {"source": "oomtrace", "sourcetype": options["sourcetype"]}
        common |= {"index": options["index"]} if options["index"] else {}
        return _Preset(8088, "/services/collector/event", "application/json",
                       lambda lines: http_body.hec_body(lines, common), _count_collected, "Splunk")  # fmt: skip
    return _Preset(None, "/", "application/x-ndjson", http_body.ndjson_body, _count_all)


def _count_all(response: HttpResponse, count: int) -> int:
    response.raise_for_status()
    return count


def _count_created(response: HttpResponse, count: int) -> int:
    """Number of lines, from the first one, that have a document now.  Raises OSError, RejectedError."""
    response.raise_for_status()
    fields = _json_object(response)
    if fields.get("errors") is False:
        return count
    try:
        items = [next(iter(item.values())) for item in fields["items"]]
        statuses = [int(item["status"]) for item in items]
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
        raise RetryableError(f"not an answer of _bulk: {response.body_excerpt}") from error
    if len(items) != count:
        raise RetryableError(f"the server answered for {len(items)} of {count} records")
    created = 0
    while created < count and (statuses[created] in range(200, 300) or statuses[created] == _ALREADY_CREATED):
        created += 1
    if created:
        return created
    reason = f"the server answered {statuses[0]} {response.excerpt(str(items[0].get('error')))}"
    if statuses[0] == 413 or (statuses[0] == 400 and _is_about_document(items[0].get("error"))):
        raise RejectedError(reason)
    raise RetryableError(reason)


def _is_about_document(error: object) -> bool:
    kind, reason = (error.get("type"), error.get("reason")) if isinstance(error, dict) else (None, None)
    return kind in _MAPPING or (
        kind == "illegal_argument_exception" and isinstance(reason, str) and reason.startswith(_MAPPING_REASONS)
    )


def _count_pushed(response: HttpResponse, count: int) -> int:
    """Loki's message identifies an entry that it never accepts.  Raises OSError, RejectedError."""
    if response.status == 400 and _LOKI_REJECTED.search(response.body):
        raise RejectedError(f"the server answered 400 {response.body_excerpt}")
    return _count_all(response, count)


def _count_collected(response: HttpResponse, count: int) -> int:
    """Splunk's code distinguishes an invalid event from a wrong configuration.  Raises OSError, RejectedError."""
    if response.status == 400:
        error = RejectedError if _json_object(response).get("code") in _HEC_REJECTED else RetryableError
        raise error(f"the server answered 400 {response.body_excerpt}")
    return _count_all(response, count)


def _json_object(response: HttpResponse) -> dict[str, Any]:
    try:
        fields = orjson.loads(response.body)
    except orjson.JSONDecodeError:
        fields = None
    return fields if isinstance(fields, dict) else {}
