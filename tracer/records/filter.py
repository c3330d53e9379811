# SPDX-License-Identifier: Apache-2.0
"""Selects kills by fields of their record, with shell patterns (``--only``, ``--except``)."""

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from fnmatch import translate
from typing import Any

from tracer.base.errors import EXIT_USAGE, TracerError
from tracer.records.owner import owner_of

OWNER_PARTS = frozenset(("container", "kubernetes", "systemd"))
"""Parts of the record that are read from the owner, so that a process cannot conceal its identity behind a name that it
has chosen."""

EXCLUDED_IDS_MAX = 4096
FIELDS: Mapping[str, tuple[str, ...]] = {
    "cgroup": ("victim.cgroup",),
    "comm": ("victim.comm",),
    "container": ("container.name", "kubernetes.container_name", "container.id"),
    "image": ("container.image",),
    "namespace": ("kubernetes.namespace",),
    "pod": ("kubernetes.pod_name", "kubernetes.pod_uid"),
    "runtime": ("container.runtime",),
    "scope": ("incident.scope",),
    "slice": ("systemd.slice",),
    "unit": ("systemd.unit",),
}
"""Fields of the record by filter name; one of them must match."""

Pairs = Iterable[tuple[str, str]]
"""Filter names and patterns; if a name has several patterns, one must match."""


class Filter:
    """Matches kills that match every name in ``include``, and none in ``exclude``.

    A null field matches no pattern, so ``include`` rejects it.

    Raises TracerError (exit code 2) for a name that is not in FIELDS.
    """

    def __init__(self, include: Pairs, exclude: Pairs) -> None:
        self._include = _compile(include)
        self._exclude = _compile(exclude)

    def matches(self, record: Mapping[str, Any]) -> bool:
        is_included = all(_matches(record, name, pattern) for name, pattern in self._include)
        return is_included and not any(_matches(record, name, pattern) for name, pattern in self._exclude)


def _compile(pairs: Pairs) -> list[tuple[str, re.Pattern[str]]]:
    patterns: dict[str, list[str]] = {}
    for name, pattern in pairs:
        patterns.setdefault(name, []).append(translate(pattern))
        if name not in FIELDS:
            raise TracerError(f"invalid filter {name!r}", f"use one of {', '.join(FIELDS)}", EXIT_USAGE)
    return [(name, re.compile("|".join(each))) for name, each in patterns.items()]


def _matches(record: Mapping[str, Any], name: str, pattern: re.Pattern[str]) -> bool:
    for path in FIELDS[name]:
        part, _, field = path.partition(".")
        value = ((getattr(owner_of(record), part) if part in OWNER_PARTS else record.get(part)) or {}).get(field)
        if isinstance(value, str) and pattern.match(value):
            return True
    return False


class ExcludedIds:
    """Ids of the last EXCLUDED_IDS_MAX kills that a filter excluded: their exits are excluded, too."""

    def __init__(self) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()

    def add(self, kill_id: str) -> None:
        self._ids[kill_id] = None
        if len(self._ids) > EXCLUDED_IDS_MAX:
            self._ids.popitem(last=False)

    def __contains__(self, kill_id: str) -> bool:
        return kill_id in self._ids
