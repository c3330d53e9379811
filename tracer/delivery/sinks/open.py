# SPDX-License-Identifier: Apache-2.0
"""Open the sink that an output's URI names."""

import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import get_args

from tracer.base.errors import EXIT_USAGE, TracerError
from tracer.delivery.sinks import Sink
from tracer.delivery.sinks.destination import Destination, UriForm, build_destination, display_uri, split_uri
from tracer.records.model import Record

_HTTP_PRESETS = ("", "loki+", "elasticsearch+", "opensearch+", "splunk+", "vector+")
RECORD_TYPES: frozenset[str] = frozenset(get_args(kind.__annotations__["type"])[0] for kind in get_args(Record))
MODULES: Mapping[str, str] = {
    "stdout": "pipe",
    "file": "file",
    "journald": "journald",
    "syslog+unix": "syslog",
    "syslog+udp": "syslog",
    "syslog+tcp": "syslog",
    "syslog+tls": "syslog",
    **{f"{preset}{http}": "http" for preset in _HTTP_PRESETS for http in ("http", "https")},
    "otlp+http": "otlp",
    "otlp+https": "otlp",
    "forward": "forward",
    "forward+tls": "forward",
    "forward+unix": "forward",
    "kafka": "kafka",
    "kafka+tls": "kafka",
    "mqtt": "mqtt",
    "mqtts": "mqtt",
}
"""The module of this package for each scheme.  A module has FORMS, by scheme, and ``open_sink``.  It is imported only
when a URI names it, because its imports occupy memory as long as the daemon runs."""


def uri_forms() -> dict[str, UriForm]:
    """The URI form of every scheme."""
    return {scheme: _form(scheme) for scheme in MODULES}


def parse_destination(text: str) -> Destination:
    """Parse an output's URI, and check everything that can be checked without opening it.

    Raises TracerError (exit code 2) for an invalid URI.
    """
    scheme, address, options = split_uri(text)
    if scheme not in MODULES:
        raise TracerError(f"unknown output {display_uri(text)!r}", f"use one of: {', '.join(MODULES)}", EXIT_USAGE)
    if address.startswith("//") and "@" in re.split("[/?#]", address[2:], maxsplit=1)[0]:
        hint = "use user=NAME and password-file=PATH"  # the message must not repeat the password
        raise TracerError(f"output {scheme}: the URI must not contain a user name or password", hint, EXIT_USAGE)
    form = _form(scheme)
    needs_address, takes_address = bool(re.match("[a-z+]+:", form.uri)), ":" in form.uri
    if not needs_address <= bool(address) <= takes_address or text.partition("?")[0].endswith(":"):
        raise TracerError(f"invalid output {display_uri(text)!r}", f"write {form.uri}", EXIT_USAGE)
    destination = build_destination(scheme, address, options, form)
    types = str(destination.options["types"] or "oom_kill")
    unknown = set(types.split(",")) - RECORD_TYPES
    if unknown:
        what = f"output {display_uri(text)}: types={types}: unknown record type {min(unknown)!r}"
        raise TracerError(what, f"the types are {', '.join(sorted(RECORD_TYPES))}", EXIT_USAGE)
    return destination


def parse_destinations(texts: Sequence[str]) -> list[Destination]:
    """Parse several URIs.

    Raises TracerError (exit code 2) if one is invalid, if two name the same destination, or if there is none.
    """
    if not texts:
        raise TracerError("no output is configured", "name one: stdout, file:PATH, ...", EXIT_USAGE)
    destinations = [parse_destination(text) for text in texts]
    for number, each in enumerate(destinations):
        if each.uri in [other.uri for other in destinations[:number]]:
            what = f"output {display_uri(each.uri)} is configured twice"
            raise TracerError(what, "add a name to each: ?name=a, ?name=b", EXIT_USAGE)
    return destinations


def open_sink(destination: Destination) -> Sink:
    """Open a sink.  A sink that uses a network connects later, with its first line.

    Raises TracerError if it cannot be opened.
    """
    sink: Sink = import_module(f"tracer.delivery.sinks.{MODULES[destination.scheme]}").open_sink(destination)
    return sink


def open_uri(text: str) -> Sink:
    """Parse a URI and open its sink.

    Raises TracerError if the URI is invalid or the sink cannot be opened.
    """
    return open_sink(parse_destination(text))


def _form(scheme: str) -> UriForm:
    form: UriForm = import_module(f"tracer.delivery.sinks.{MODULES[scheme]}").FORMS[scheme]
    return form
