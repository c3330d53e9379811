# SPDX-License-Identifier: Apache-2.0
"""In: what a scenario expects, and the records that oomtrace wrote.  Out: in what they differ.

A scenario's file holds one expected record after another, each a condition a line, with an empty line after each
record; they are oom_kill records, but for those with ``type=sigkill``.  A condition is FIELD OPERATOR VALUE, without
blanks between: ``limit.level=container``, ``victim.rss_bytes<=41943040``, ``victim.cmdline.1=1000`` (an item of a
list), ``limit=null``, ``limit.cgroup~^/shop``.
Fields of the oom_exit record that belongs to it begin with ``exit.``.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

Record = Mapping[str, Any]

_CONDITION = re.compile(r"([\w.]+)(>=|<=|!=|=|~)(.*)")


def _written(value: Any) -> str:
    """Text as it is, all else as in JSON."""
    return value if isinstance(value, str) else json.dumps(value)


_OPERATORS: dict[str, Callable[[Any, str], bool]] = {
    "=": lambda found, wanted: _written(found) == wanted,
    "!=": lambda found, wanted: _written(found) != wanted,
    ">=": lambda found, wanted: isinstance(found, int) and found >= int(wanted),
    "<=": lambda found, wanted: isinstance(found, int) and found <= int(wanted),
    "~": lambda found, wanted: isinstance(found, str) and re.search(wanted, found) is not None,
}


class Condition(NamedTuple):
    """What one field has to be."""

    field: str
    operator: str
    value: str

    def difference(self, record: Record) -> str | None:
        """How the record fails it; None if it does not."""
        found: Any = record
        for name in self.field.split("."):
            try:
                found = found[int(name)] if isinstance(found, list) else found[name]
            except (KeyError, IndexError, TypeError, ValueError):
                return f"{self}: the record has no such field"
        return None if _OPERATORS[self.operator](found, self.value) else f"{self}: it is {json.dumps(found)}"

    def __str__(self) -> str:
        return "".join(self)


Expected = tuple[Condition, ...]
SIGKILL = Condition("type", "=", "sigkill")


def parse(text: str) -> list[Expected]:
    """The expected records; ValueError names what is no condition."""
    return [tuple(map(_condition, block.split("\n"))) for block in re.split(r"\n\n+", text.strip("\n")) if block]


def _condition(line: str) -> Condition:
    match = _CONDITION.fullmatch(line)
    if not match or (match[2] in (">=", "<=") and not match[3].isdecimal()):
        raise ValueError(f"no condition: {line!r}")
    return Condition(*match.groups())


def missing_sigkills(expected: Sequence[Expected], records: Sequence[Record]) -> list[str]:
    """Which expected sigkill records there are not; others come of everybody who dies with a container."""
    wanted = [each for each in expected if SIGKILL in each]
    return [
        f"no record with {' '.join(map(str, each))}"
        for each in wanted
        if not any(all(condition.difference(record) is None for condition in each) for record in records)
    ]


def needs_exit(expected: Sequence[Expected]) -> bool:
    """Whether oom_exit records are asked for."""
    return any(condition.field.startswith("exit.") for each in expected for condition in each)


def differences(expected: Sequence[Expected], records: Iterable[Record]) -> list[str]:
    """Of oom_kill records: what is missing, what is too much, and where one is almost what was expected."""
    missing = [each for each in expected if SIGKILL not in each]
    found = []
    for record in records:
        failures = [[text for each in wanted if (text := each.difference(record))] for wanted in missing]
        if [] in failures:
            del missing[failures.index([])]
        elif failures:
            closest = min(failures, key=len)
            found += [f"{record['id']}: {text}" for text in closest]
            del missing[failures.index(closest)]
        else:
            victim = record["victim"]
            found.append(f"{record['id']}: not expected: {victim['comm']} (pid {victim['pid']})")
    return found + [f"no record with {' '.join(map(str, each))}" for each in missing]
