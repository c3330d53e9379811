# SPDX-License-Identifier: Apache-2.0
"""Lines by HTTP: batches of them as NDJSON, or as Loki, Elasticsearch, OpenSearch, Splunk and Vector take them."""

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
    """For plain HTTP and for HTTPS."""
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
"""No data, invalid data, no event, a blank event, ...: the other codes of a 400 tell of a wrong configuration."""
_LOKI_REJECTED = re.compile(
    rb"has timestamp too (old|new): |entry too far behind|entry out of order|Max entry size '\d+' bytes exceeded"
    rb"|has \d+ label names; limit|has label (name|value) too long: |has duplicate label name: "
)
"""What Loki says of an entry that it never takes (pkg/validation/validate.go); the request's others it takes."""
_MAPPING = frozenset({"mapper_parsing_exception", "document_parsing_exception", "strict_dynamic_mapping_exception"})
"""Elasticsearch's and OpenSearch's errors that are a document's own; other 400s tell of the cluster or an index."""
_MAPPING_REASONS = (
    "mapper [",
    "can't merge a non object mapping",
    "Limit of ",
    "Document contains at least one immense",
)
"""And how such an ``illegal_argument_exception`` begins, which is the type of a full cluster's answer, too."""
_TAKEN_BEFORE = 409


class _Kind(NamedTuple):
    """What is different from one to the other."""

    port: int | None
    path: str
    content_type: str
    body: Callable[[Sequence[bytes]], bytes]
    taken: Callable[[HttpResponse, int], int]
    auth_scheme: str = "Bearer"
    headers: Mapping[str, str] = {}
    query: str = ""


def open_sink(destination: Destination) -> Sink:
    """Raises TracerError where an option is wrong, or a file of certificates or secrets cannot be read."""
    kind = _kind(destination, destination.scheme.rpartition("+")[0])
    return HttpSink(HttpClient(destination, kind.auth_scheme, kind.port), kind, destination)


class HttpSink(RemoteSink):
    def __init__(self, client: HttpClient, kind: _Kind, destination: Destination) -> None:
        self.uri = client.uri
        self.batch_lines = max(1, int(destination.options["batch"] or 1))
        self._client, self._kind = client, kind
        query = "&".join(filter(None, (str(destination.options["query"] or ""), kind.query)))
        self._path = (destination.path if destination.path not in ("", "/") else kind.path) + (
            f"?{query}" if query else ""
        )
        if not (self._path.isascii() and self._path.isprintable() and " " not in self._path):
            raise TracerError(f"output {self.uri}: its path is none", "write bytes of it as %25XX", EXIT_USAGE)

    def write(self, lines: Sequence[bytes]) -> int:
        lines = lines[: self.batch_lines]
        kind = self._kind
        answer = self._client.post(self._path, kind.body(lines), kind.content_type, kind.headers)
        return kind.taken(answer, len(lines))

    def close(self) -> None:
        self._client.close()


def _kind(destination: Destination, preset: str) -> _Kind:
    options = destination.options
    if preset == "loki":
        try:
            labels = http_body.loki_labels(str(options["labels"] or ""))
        except ValueError as error:
            raise TracerError(
                f"output {destination.scheme}: {str(error)!r} is no label", "NAME=VALUE", EXIT_USAGE
            ) from error
        tenant = {"X-Scope-OrgID": str(options["tenant"])} if options["tenant"] else {}
        if not all(value.isascii() and value.isprintable() for value in tenant.values()):
            raise TracerError(
                f"output {destination.scheme}: tenant is no printable ASCII", "see X-Scope-OrgID", EXIT_USAGE
            )
        return _Kind(3100, "/loki/api/v1/push", "application/json", lambda lines: http_body.loki_body(lines, labels),
                     _pushed, headers=tenant)  # fmt: skip
    if preset in ("elasticsearch", "opensearch"):
        index = str(options["index"])
        auth_scheme = "ApiKey" if preset == "elasticsearch" else "Bearer"
        return _Kind(9200, "/_bulk", "application/x-ndjson", lambda lines: http_body.bulk_body(lines, index), _created,
                     auth_scheme, query=_FILTER)  # fmt: skip
    if preset == "splunk":
        about = {"source": "oomtrace", "sourcetype": options["sourcetype"]}
        about |= {"index": options["index"]} if options["index"] else {}
        return _Kind(8088, "/services/collector/event", "application/json",
                     lambda lines: http_body.hec_body(lines, about), _collected, "Splunk")  # fmt: skip
    return _Kind(None, "/", "application/x-ndjson", http_body.ndjson_body, _all)


def _all(answer: HttpResponse, count: int) -> int:
    answer.check()
    return count


def _created(answer: HttpResponse, count: int) -> int:
    """How many of the first have a document now.  Raises OSError, RejectedError."""
    answer.check()
    fields = _object(answer)
    if fields.get("errors") is False:
        return count
    try:
        items = [next(iter(item.values())) for item in fields["items"]]
        statuses = [int(item["status"]) for item in items]
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
        raise RetryableError(f"its answer is none of _bulk: {answer.words}") from error
    if len(items) != count:
        raise RetryableError(f"it answers for {len(items)} of {count} records")
    taken = 0
    while taken < count and (statuses[taken] in range(200, 300) or statuses[taken] == _TAKEN_BEFORE):
        taken += 1
    if taken:
        return taken
    said = f"it answers {statuses[0]} {answer.told(str(items[0].get('error')))}"
    if statuses[0] == 413 or (statuses[0] == 400 and _is_documents_own(items[0].get("error"))):
        raise RejectedError(said)
    raise RetryableError(said)


def _is_documents_own(error: object) -> bool:
    kind, reason = (error.get("type"), error.get("reason")) if isinstance(error, dict) else (None, None)
    return kind in _MAPPING or (
        kind == "illegal_argument_exception" and isinstance(reason, str) and reason.startswith(_MAPPING_REASONS)
    )


def _pushed(answer: HttpResponse, count: int) -> int:
    """Loki's words tell an entry that it never takes.  Raises OSError, RejectedError."""
    if answer.status == 400 and _LOKI_REJECTED.search(answer.body):
        raise RejectedError(f"it answers 400 {answer.words}")
    return _all(answer, count)


def _collected(answer: HttpResponse, count: int) -> int:
    """Splunk's codes tell a wrong configuration from a wrong event.  Raises OSError, RejectedError."""
    if answer.status == 400:
        error = RejectedError if _object(answer).get("code") in _HEC_REJECTED else RetryableError
        raise error(f"it answers 400 {answer.words}")
    return _all(answer, count)


def _object(answer: HttpResponse) -> dict[str, Any]:
    try:
        fields = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        fields = None
    return fields if isinstance(fields, dict) else {}
