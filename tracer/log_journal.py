# SPDX-License-Identifier: Apache-2.0
"""Entries of journald's journal, as ``journalctl -o json`` and ``-o export`` write them -> the kernel's lines.

Formats: https://systemd.io/JOURNAL_EXPORT_FORMATS/.  Fields whose names begin with an underscore come from journald and
cannot be forged; for what it read from /dev/kmsg the others are its own, too.
"""

import re
from collections.abc import Iterator
from typing import Any

import orjson

from tracer.oom_lines import LogLine

Found = tuple[LogLine, str | None, str | None]
"""Line, host, boot id."""

LONGEST_BYTES = 1 << 20
"""Longer entries are none of the kernel's."""
EXPORT = re.compile(rb"__(?:CURSOR|REALTIME_TIMESTAMP|MONOTONIC_TIMESTAMP)=[^\n]*\n|_?[A-Z][A-Z0-9_]{0,63}=[^\n]*\n_")
"""How an export begins."""
_FIELDS = re.compile(rb"(?:[A-Z0-9_]{1,64}=[^\n]*\n)*")
_BINARY = re.compile(rb"([A-Z0-9_]{1,64})\n")
_WANTED = frozenset(
    b"MESSAGE _TRANSPORT SYSLOG_FACILITY _BOOT_ID _HOSTNAME __REALTIME_TIMESTAMP _SOURCE_MONOTONIC_TIMESTAMP "
    b"__MONOTONIC_TIMESTAMP".split()
)


def read_json(raw: bytes) -> Found | bool:
    """An entry in one line; False: it is none, True: it is not the kernel's."""
    if b'"MESSAGE"' not in raw and b'"__CURSOR"' not in raw:
        return False
    try:
        entry = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return False
    if not isinstance(entry, dict):
        return False
    message = entry.get("MESSAGE")
    if isinstance(message, list):  # of what is no text journalctl shows the bytes
        try:
            message = bytes(message)
        except (TypeError, ValueError):
            return True
    elif isinstance(message, str):
        message = message.encode("utf-8", "surrogatepass")
    fields = {name: value.encode() for name, value in entry.items() if isinstance(value, str) and name != "MESSAGE"}
    return _read(message, {name.encode(): value for name, value in fields.items() if name.isascii()}) or True


def _read(message: Any, fields: dict[bytes, bytes]) -> Found | None:
    if not isinstance(message, bytes) or fields.get(b"_TRANSPORT") != b"kernel":
        return None
    if fields.get(b"SYSLOG_FACILITY", b"0") != b"0":  # written to /dev/kmsg by somebody else
        return None
    uptime_us = _number(fields.get(b"_SOURCE_MONOTONIC_TIMESTAMP"))
    wall_us = _number(fields.get(b"__REALTIME_TIMESTAMP"))
    wall_ns = None if wall_us is None else wall_us * 1000
    if uptime_us is not None:
        line = LogLine(message, uptime_us * 1000, "printk", None, wall_ns)
    elif wall_ns is not None:
        line = LogLine(message, wall_ns, "realtime", None, wall_ns)
    else:
        return None
    return line, _text(fields.get(b"_HOSTNAME")), _uuid(fields.get(b"_BOOT_ID"))


class Export:
    """The entries of an export, which may hold anything, line breaks too: each field says where it ends."""

    def __init__(self) -> None:
        self._entry: dict[bytes, bytes] = {}
        self._skip = 0
        self.recognized = 0

    def feed(self, data: bytes) -> tuple[list[Found], int]:
        """The kernel's lines in ``data``, and up to where it was read; the rest is to come again, with what follows."""
        found: list[Found] = []
        at = 0
        while True:
            if self._skip:
                step = min(self._skip, len(data) - at)
                at, self._skip = at + step, self._skip - step
            if at >= len(data):
                return found, at
            fields = _FIELDS.match(data, at)
            end = at if fields is None else fields.end()
            if end > at:
                if self._may_be_wanted(data, at, end):
                    self._take(data[at:end])
                at = end
            if data.startswith(b"\n", at):
                at += 1
                self.recognized += 1
                if self._entry:
                    line = _read(self._entry.get(b"MESSAGE"), self._entry)
                    if line is not None:
                        found.append(line)
                    self._entry = {}
                continue
            binary = _BINARY.match(data, at)
            if binary is not None and len(data) - binary.end() >= 8:
                length = int.from_bytes(data[binary.end() : binary.end() + 8], "little")
                start = binary.end() + 8
                if length > LONGEST_BYTES:
                    self._skip = length + 1 if length < 1 << 48 else 0
                    at = start
                    continue
                if len(data) - start < length + 1:
                    return found, at
                if binary[1] in _WANTED:
                    self._entry[binary[1]] = data[start : start + length]
                at = start + length + 1
                continue
            newline = data.find(b"\n", at)
            if binary is not None or newline < 0:  # incomplete, or garbage
                return found, len(data) if len(data) - at > 2 * LONGEST_BYTES else at
            at, self._entry = newline + 1, {}

    def _may_be_wanted(self, data: bytes, at: int, end: int) -> bool:
        """Whether fields are of an entry of the kernel's: they come in any order, and binary ones between them."""
        return bool(self._entry) or data.find(b"_TRANSPORT=kernel\n", at, end) >= 0 or data[end : end + 1] != b"\n"

    def _take(self, fields: bytes) -> None:
        for name, value in _pairs(fields):
            if name in _WANTED:
                self._entry[name] = value


def _pairs(fields: bytes) -> Iterator[tuple[bytes, bytes]]:
    for field in fields.split(b"\n"):
        name, _, value = field.partition(b"=")
        yield name, value


def _number(digits: bytes | None) -> int | None:
    return int(digits) if digits is not None and digits.isdigit() and len(digits) <= 16 else None


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw[:255].decode("utf-8", "backslashreplace")


def _uuid(raw: bytes | None) -> str | None:
    if raw is None or re.fullmatch(rb"[0-9a-f]{32}", raw) is None:
        return None
    digits = raw.decode()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
