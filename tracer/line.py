# SPDX-License-Identifier: Apache-2.0
"""A record -> one line of JSON that no collector cuts.

rsyslog's default cuts messages at 8 KiB and leaves invalid JSON behind, so what is long and least telling is trimmed
first, and named in ``truncated``.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

import orjson

from tracer.event import OomKill, Record

MAX_BYTES = 8192
MIN_MAX_BYTES = 4096
_CUT = "…"
_CONTROLS = re.compile(rb"\x7f|\xc2[\x80-\x9f]")


def encode(record: Record, max_bytes: int = MAX_BYTES) -> bytes:
    """The line, with its newline, at most ``max_bytes`` long."""
    line = _dump(record)
    if len(line) <= max_bytes or record["type"] != "oom_kill":
        return line
    for name, trim in _trimmers(record):
        if name not in record["truncated"]:
            record["truncated"].append(name)
        while trim(len(line) - max_bytes):
            line = _dump(record)
            if len(line) <= max_bytes:
                return line
    return line


def _dump(record: Record) -> bytes:
    """JSON allows DEL and the C1 control characters as they are; a terminal that shows the line must not see them."""
    line = orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
    return _CONTROLS.sub(lambda match: b"\\u%04x" % ord(match[0].decode()), line)


def _trimmers(record: OomKill) -> Iterator[tuple[str, Callable[[int], bool]]]:
    """Name of a field and a function that takes about so many bytes off it; False: nothing is left to take."""
    victim, container = record["victim"], record["container"]
    if container is not None and container["labels"]:
        labels = container["labels"]
        yield "container.labels", lambda excess: bool(labels) and bool(labels.popitem())
    cmdline = victim["cmdline"]
    if cmdline:
        yield "victim.cmdline", lambda excess: _shorten_list(cmdline, excess, 256)
    if record["trigger"] is not None and record["trigger"]["cgroup"]:
        yield "trigger.cgroup", _path_trimmer(record["trigger"], "cgroup")
    candidates = record["candidates"]
    if candidates:
        yield "candidates", lambda excess: len(candidates) > 3 and bool(candidates.pop())
    if victim["exe"]:
        yield "victim.exe", _path_trimmer(victim, "exe")
    if record["limit"] is not None:
        yield "limit.cgroup", _path_trimmer(record["limit"], "cgroup")
    if victim["cgroup"]:
        yield "victim.cgroup", _path_trimmer(victim, "cgroup")
    if cmdline:
        yield "victim.cmdline", lambda excess: _shorten_list(cmdline, excess, 0)
    parts: dict[str, Any] = {name: record[name] for name in ("container", "systemd", "kubernetes")}
    for name, fields in parts.items():
        if fields is not None:
            yield name, _strings_trimmer(fields)


def _shorten_list(strings: list[str], excess: int, keep: int) -> bool:
    """Take characters off the end of a list of strings, down to ``keep`` in all."""
    total = sum(map(len, strings))
    if total <= keep or not strings:
        return False
    wanted = max(keep, total - max(excess, 16))
    while strings and total - len(strings[-1]) >= wanted:
        total -= len(strings.pop())
    if strings and total > wanted:
        strings[-1] = strings[-1][: len(strings[-1]) - (total - wanted)]
    return True


def _path_trimmer(owner: object, key: str) -> Callable[[int], bool]:
    """The end of a path tells most: the beginning goes."""

    def trim(excess: int) -> bool:
        fields: dict[str, str] = owner  # type: ignore[assignment]
        path = fields[key].removeprefix(_CUT)
        if len(path) <= 128:
            return False
        fields[key] = _CUT + path[min(max(excess + len(_CUT.encode()), 16), len(path) - 128) :]
        return True

    return trim


def _strings_trimmer(fields: dict[str, object]) -> Callable[[int], bool]:
    def trim(excess: int) -> bool:
        key, value = max(
            ((key, value) for key, value in fields.items() if isinstance(value, str)),
            key=lambda item: len(item[1]),
            default=("", ""),
        )
        if len(value) <= 128:
            return False
        fields[key] = value[:127] + _CUT
        return True

    return trim
