# SPDX-License-Identifier: Apache-2.0
"""The sink that a URI names."""

import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import get_args

from tracer.base.errors import EXIT_USAGE, TracerError
from tracer.delivery.sinks import Sink, target
from tracer.delivery.sinks.target import Form, Target
from tracer.records.model import Record

_HTTP_PRESETS = ("", "loki+", "elasticsearch+", "opensearch+", "splunk+", "vector+")
TYPES: frozenset[str] = frozenset(get_args(kind.__annotations__["type"])[0] for kind in get_args(Record))
"""Of all records."""
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
"""The module of this package for each scheme.  It has FORMS, by scheme, and ``open_target``.  It is imported only when
a URI names it: what it imports takes memory for as long as the daemon runs."""


def forms() -> dict[str, Form]:
    """All kinds of outputs, by scheme."""
    return {scheme: _form(scheme) for scheme in MODULES}


def parse(text: str) -> Target:
    """The URI, checked as far as that is possible without opening it.

    Raises TracerError (exit code 2) where it names no output.
    """
    scheme, address, options = target.split(text)
    if scheme not in MODULES:
        raise TracerError(
            f"unknown output {target.shown(text)!r}", f"it begins with one of: {', '.join(MODULES)}", EXIT_USAGE
        )
    if address.startswith("//") and "@" in re.split("[/?#]", address[2:], maxsplit=1)[0]:
        hint = "give user=NAME and password-file=PATH"  # what stands there is not repeated
        raise TracerError(f"output {scheme}: name and password may not stand before the host", hint, EXIT_USAGE)
    form = _form(scheme)
    needs_address, takes_address = bool(re.match("[a-z+]+:", form.uri)), ":" in form.uri
    if not needs_address <= bool(address) <= takes_address or text.partition("?")[0].endswith(":"):
        raise TracerError(f"output {target.shown(text)!r} names no place", f"write {form.uri}", EXIT_USAGE)
    made = target.make(scheme, address, options, form)
    types = str(made.options["types"] or "oom_kill")
    unknown = set(types.split(",")) - TYPES
    if unknown:
        what = f"types={types}: no records have type {min(unknown)!r}"
        raise TracerError(f"output {target.shown(text)}: {what}", f"there are {', '.join(sorted(TYPES))}", EXIT_USAGE)
    return made


def parse_all(texts: Sequence[str]) -> list[Target]:
    """The same of several, each of which must have a place of its own.

    Raises TracerError (exit code 2), also where there is none.
    """
    if not texts:
        raise TracerError("there is no output", "name one: stdout, file:PATH, ...", EXIT_USAGE)
    targets = [parse(text) for text in texts]
    for number, each in enumerate(targets):
        if each.uri in [other.uri for other in targets[:number]]:
            raise TracerError(
                f"output {target.shown(each.uri)} is named twice", "tell them apart: ?name=a, ?name=b", EXIT_USAGE
            )
    return targets


def open_target(wanted: Target) -> Sink:
    """The sink itself.

    Raises TracerError where it cannot be opened; one that is reached over a network is not asked for yet.
    """
    sink: Sink = import_module(f"tracer.delivery.sinks.{MODULES[wanted.scheme]}").open_target(wanted)
    return sink


def open_sink(text: str) -> Sink:
    """The sink that a URI names.

    Raises TracerError where there is none such or it cannot be opened.
    """
    return open_target(parse(text))


def _form(scheme: str) -> Form:
    form: Form = import_module(f"tracer.delivery.sinks.{MODULES[scheme]}").FORMS[scheme]
    return form
