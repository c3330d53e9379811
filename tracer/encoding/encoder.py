# SPDX-License-Identifier: Apache-2.0
"""Encodes a record as one line of JSON that no collector truncates.

rsyslog truncates messages at 8 KiB by default, which leaves invalid JSON.  So long values are trimmed, the least
important first, and named in ``truncated``.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import orjson

from tracer.encoding.styles import Style, nested
from tracer.records.model import Gap, OomKill, Record, Sigkill

MAX_BYTES = 8192
MIN_MAX_BYTES = 4096
Trimmed = TypeVar("Trimmed", OomKill, Sigkill)
Trimmer = tuple[str, Callable[[int], bool]]
"""Name of a field, and a function that removes at most so many bytes from it; False: nothing is left to remove."""
_CUT = "…"
_KEEP = (128, 32, 0)
"""Characters of a string that are kept in the first, second and last round; of a list a sixteenth as many items."""
_ESCAPED_BYTES = 6
"""The longest form of a character in JSON (``\\u001b``)."""
_CONTROLS = re.compile(
    rb"\x7f|\xc2[\x80-\x9f\xad]"  # DEL, C1, soft hyphen
    rb"|\xd8\x9c|\xe1\xa0\x8e|\xef\xbb\xbf"  # U+061C, U+180E, U+FEFF
    rb"|\xe2\x80[\x8b-\x8f\xa8-\xae]|\xe2\x81[\xa0-\xaf]"  # U+200B-200F, U+2028-202E, U+2060-206F
)


def encode(record: Record, max_bytes: int = MAX_BYTES, style: Style = nested) -> bytes:
    """The line, with its newline, at most ``max_bytes`` long (MIN_MAX_BYTES or more).

    The record is not changed: another output or style may have room for more of it.
    """
    line = _dump(style(record))
    if len(line) <= max_bytes:
        return line
    copy: Record = orjson.loads(orjson.dumps(record))  # quicker than deepcopy()
    match copy["type"]:
        case "gap":
            return _trim_gap(copy, max_bytes, style)
        case "oom_kill":
            return _trim(copy, _trimmers, max_bytes, style)
        case "sigkill":
            return _trim(copy, _sigkill_trimmers, max_bytes, style)
    return line


def _trim_gap(copy: Gap, max_bytes: int, style: Style) -> bytes:
    """The line of ``copy``, which is changed: the cgroups with the fewest missing kills are removed first."""
    while len(line := _dump(style(copy))) > max_bytes and copy["cgroups"]:
        copy["cgroups"].pop()
    return line


def _trim(copy: Trimmed, trimmers: Callable[[Trimmed, int], Iterator[Trimmer]], max_bytes: int, style: Style) -> bytes:
    """The line of ``copy``, which is changed: its ``truncated`` names the trimmed fields."""
    line = _dump(style(copy))
    for keep in _KEEP:
        for name, trim in trimmers(copy, keep):
            while len(line) > max_bytes and trim(len(line) - max_bytes):
                if name not in copy["truncated"]:
                    copy["truncated"].append(name)
                line = _dump(style(copy))
    return line


def _dump(fields: Mapping[str, Any]) -> bytes:
    return escape_controls(orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE))


def computed_json(value: object, *, indent: bool = False) -> bytes:
    """JSON of values computed from records; integers from damaged records may exceed the 64 bits of orjson."""
    try:
        written = orjson.dumps(value, option=orjson.OPT_INDENT_2 if indent else 0)
    except TypeError:
        import json  # rarely needed

        written = json.dumps(value, ensure_ascii=False, indent=2 if indent else None).encode(
            "utf-8", "backslashreplace"
        )
    return escape_controls(written)


def escape_controls(json: bytes) -> bytes:
    """Escape characters that JSON allows but a terminal must not get.

    DEL and the C1 control characters, line separators (U+2028), invisible and bidirectional characters (U+202E).
    """
    if json.isascii() and b"\x7f" not in json:  # the usual case
        return json
    return _CONTROLS.sub(lambda match: b"\\u%04x" % ord(match[0].decode()), json)


def _trimmers(record: OomKill, keep: int) -> Iterator[Trimmer]:
    victim: dict[str, Any] = record["victim"]  # type: ignore[assignment]
    container: dict[str, Any] = record["container"] or {}  # type: ignore[assignment]
    trigger: dict[str, Any] = record["trigger"] or {}  # type: ignore[assignment]
    limit: dict[str, Any] = record["limit"] or {}  # type: ignore[assignment]
    whole: dict[str, Any] = record  # type: ignore[assignment]
    yield "container.labels", lambda _excess: _drop_label(container, keep)
    yield "victim.cmdline", lambda excess: _shorten_cmdline(victim["cmdline"], excess, 2 * keep)
    yield "trigger.cgroup", lambda excess: _shorten_cgroup(trigger, excess, keep)
    yield "victim.shared_mm", lambda excess: _drop_items(victim, "shared_mm", excess, keep)
    yield "candidates", lambda excess: _drop_items(whole, "candidates", excess, keep)
    yield "victim.exe", lambda excess: _shorten_path(victim, "exe", excess, keep)
    yield "limit.cgroup", lambda excess: _shorten_cgroup(limit, excess, keep)
    yield "victim.cgroup", lambda excess: _shorten_cgroup(victim, excess, keep)
    yield from _identity_trimmers(whole, "", keep)


def _sigkill_trimmers(record: Sigkill, keep: int) -> Iterator[Trimmer]:
    whole: dict[str, Any] = record  # type: ignore[assignment]
    victim: dict[str, Any] = record["victim"]  # type: ignore[assignment]
    sender: dict[str, Any] = record["sender"] or {}  # type: ignore[assignment]
    yield "sender.container.labels", lambda _excess: _drop_label(sender.get("container") or {}, keep)
    yield "container.labels", lambda _excess: _drop_label(whole["container"] or {}, keep)
    yield "sender.cgroup", lambda excess: _shorten_cgroup(sender, excess, keep)
    yield "victim.cgroup", lambda excess: _shorten_cgroup(victim, excess, keep)
    yield from _identity_trimmers(sender, "sender.", keep)
    yield from _identity_trimmers(whole, "", keep)


def _identity_trimmers(named: dict[str, Any], prefix: str, keep: int) -> Iterator[Trimmer]:
    """The innermost identity is trimmed before its owner, which the host has named."""
    parts = [(part, named.get(part)) for part in ("container", "kubernetes", "systemd")]
    parts += [(f"owner.{part}", fields) for part, fields in (named.get("owner") or {}).items()]
    for part, fields in parts:
        for field in [field for field, value in (fields or {}).items() if isinstance(value, str)]:
            # A truncated id identifies nothing: ids are kept as long as other fields can be trimmed.
            floor = max(keep, 128) if field in ("id", "node_container_id", "pod_uid") and keep else keep
            yield (
                f"{prefix}{part}.{field}",
                lambda excess, of=fields, name=field, least=floor: (  # type: ignore[misc]
                    _shorten_path(of, name, excess, least)
                ),
            )


def _drop_label(container: dict[str, Any], keep: int) -> bool:
    labels = container.get("labels")
    if not labels or len(labels) <= keep // 16:
        return False
    labels.popitem()
    return True


def _drop_items(owner: dict[str, Any], key: str, excess: int, keep: int) -> bool:
    """Remove items from the end of a list."""
    items = owner[key]
    least = max(3, keep // 16) if key == "candidates" else keep // 16
    if not items or len(items) <= least:
        return False
    longest = len(orjson.dumps(items)) // len(items) + 1
    del items[max(least, len(items) - max(1, excess // (2 * longest))) :]
    return True


def _shorten_cmdline(strings: list[str] | None, excess: int, keep: int) -> bool:
    """Remove characters from the end of a list of strings; each string counts as one character more, for its quotes."""
    if not strings:
        return False
    total = sum(len(string) + 1 for string in strings)
    if total <= keep:
        return False
    target = max(keep, total - max(excess // _ESCAPED_BYTES, 16))
    while strings and total > target:
        last = strings.pop()
        total -= len(last) + 1
        if total + 1 < target and len(last) > target - total - 1:
            strings.append(last[: target - total - 1])
            break
    return True


def _shorten_cgroup(owner: dict[str, Any], excess: int, keep: int) -> bool:
    """Remove the end of a cgroup's path: its beginning identifies the owner."""
    text = owner.get("cgroup")
    if not text:
        return False
    rest = text.removesuffix(_CUT)
    if len(rest) <= keep:
        return False
    owner["cgroup"] = rest[: max(keep, len(rest) - max(excess // _ESCAPED_BYTES, 16))] + _CUT
    return True


def _shorten_path(owner: dict[str, Any], key: str, excess: int, keep: int) -> bool:
    """Remove the beginning of a path: its end is the most specific."""
    text = owner.get(key)
    if not text:
        return False
    rest = text.removeprefix(_CUT)
    if len(rest) <= keep:
        return False
    owner[key] = _CUT + rest[min(max(excess // _ESCAPED_BYTES, 16), len(rest) - keep) :]
    return True
