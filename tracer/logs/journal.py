# SPDX-License-Identifier: Apache-2.0
"""Entries of journald's journal, as ``journalctl -o json`` and ``-o export`` write them -> the kernel's lines.

Formats: https://systemd.io/JOURNAL_EXPORT_FORMATS/.  Fields whose names begin with an underscore come from journald and
cannot be forged; for what it read from /dev/kmsg the others are its own, too.  Collectors pass entries on as JSON with
a date of their own (Fluent Bit), or in a field of another object (Google Cloud's `jsonPayload`).
"""

import re
from collections.abc import Callable, Iterator
from datetime import timezone
from typing import Any

import orjson

from tracer.logs.oom_lines import DROPPED_LINE, MISSED, LogLine
from tracer.logs.oom_report import SKIPPED, is_relevant
from tracer.logs.times import Calendar

Seek = Callable[[bytes, int, int], int]
"""The next place in data, from one on and up to another, in an entry that may count."""
Found = tuple[LogLine, str | None, str | None]
"""Line, host, boot id."""

LONGEST_BYTES = 1 << 20
"""Longer entries are none of the kernel's."""
EXPORT = re.compile(rb"__(?:CURSOR|REALTIME_TIMESTAMP|MONOTONIC_TIMESTAMP)=[^\n]*\n|_?[A-Z][A-Z0-9_]{0,63}=[^\n]*\n_")
"""How an export begins."""
_FIELDS = re.compile(rb"(?:[A-Z0-9_]{1,64}=[^\n]*\n)*")
_BINARY = re.compile(rb"([A-Z0-9_]{1,64})\n")
_LATER_BINARY = re.compile(rb"\n[A-Z0-9_]{1,64}\n")
_UTC = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)")
_UNREAD = re.compile(SKIPPED)
_UNREAD_JSON = re.compile(rb'"MESSAGE":"' + SKIPPED.replace(rb"\r?\Z", rb'"'))
_TRANSPORTS = (b"kernel", b"driver")
_FROM_KERNEL = re.compile(rb"_TRANSPORT=(?:kernel|driver)\n")
_READ = b"_TRANSPORT SYSLOG_FACILITY _BOOT_ID _HOSTNAME __REALTIME_TIMESTAMP _SOURCE_MONOTONIC_TIMESTAMP".split()
"""Fields beside the message."""
_READ_JSON = tuple((name.decode(), name) for name in _READ)
_WANTED = frozenset((b"MESSAGE", b"__MONOTONIC_TIMESTAMP", *_READ))


def read_json(raw: bytes) -> Found | bool:
    """An entry in one line; False: it is none, True: it is not the kernel's."""
    if raw.find(b'"MESSAGE"') < 0 and raw.find(b'"__CURSOR"') < 0:
        return False
    unread = _UNREAD_JSON.search(raw)
    if unread is not None and unread[1] is not None and not is_relevant(raw):
        return True
    try:
        entry = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return False
    if not isinstance(entry, dict):
        return False
    outer = entry
    if "MESSAGE" not in entry:
        entry = next((each for each in entry.values() if isinstance(each, dict) and "MESSAGE" in each), entry)
    if "_TRANSPORT" not in entry and not any(name[:1] == "_" for name in entry):
        return False  # of another logger
    message = entry.get("MESSAGE")
    if isinstance(message, list):  # of what is no text journalctl shows the bytes
        try:
            message = bytes(message)
        except (TypeError, ValueError):
            return True
    elif isinstance(message, str):
        message = message.encode("utf-8", "surrogatepass")
    fields = {name: value.encode() for key, name in _READ_JSON if isinstance(value := entry.get(key), str)}
    collected_ns = None if b"__REALTIME_TIMESTAMP" in fields else _collected_ns(outer)
    return _read(message, fields, collected_ns) or True


def _collected_ns(entry: dict[str, Any]) -> int | None:
    """The time that a collector gives to an entry, which is the journal's."""
    for name in ("date", "timestamp", "@timestamp", "time"):
        stamp = entry.get(name)
        if isinstance(stamp, float) and 0 <= stamp < 1e11:
            return round(stamp * 1e6) * 1000
        if isinstance(stamp, str) and (found := _UTC.fullmatch(stamp.encode("utf-8", "replace"))) is not None:
            return Calendar(timezone.utc).iso(found[0])
    return None


def _read(message: Any, fields: dict[bytes, bytes], collected_ns: int | None = None) -> Found | None:
    transport = fields.get(b"_TRANSPORT")
    if not isinstance(message, bytes) or transport not in _TRANSPORTS:
        return None
    if transport == b"driver":  # journald itself
        if (missed := MISSED.fullmatch(message)) is None:
            return None
        message = DROPPED_LINE % int(missed[1])
    if fields.get(b"SYSLOG_FACILITY", b"0") != b"0":  # written to /dev/kmsg by somebody else
        return None
    uptime_us = _number(fields.get(b"_SOURCE_MONOTONIC_TIMESTAMP"))
    wall_us = _number(fields.get(b"__REALTIME_TIMESTAMP"))
    wall_ns = collected_ns if wall_us is None else wall_us * 1000
    if uptime_us is not None:
        line = LogLine(message, uptime_us * 1000, "printk", None, wall_ns)
    elif wall_ns is not None:
        line = LogLine(message, wall_ns, "realtime", None, wall_ns)
    else:
        line = LogLine(message, None, "unknown")
    return line, _text(fields.get(b"_HOSTNAME")), _uuid(fields.get(b"_BOOT_ID"))


class Export:
    """The entries of an export, which may hold anything, line breaks too: each field says where it ends."""

    def __init__(self) -> None:
        self._entry: dict[bytes, bytes] = {}
        self._skip = 0
        self._within = False
        """Whether the next field is not the first of its entry."""
        self.at = 0
        """Up to where the data was read; the rest is to come again, with what follows."""
        self.recognized = 0

    def read(self, data: bytes, seek: Seek) -> Iterator[Found]:
        """The kernel's lines in ``data`` that may count: ``seek`` is asked after each where the next one is."""
        self.at, binary = 0, -1
        while self.at < len(data):
            if not self._within and not self._skip:
                if binary < self.at:
                    binary = _next_binary(data, self.at)
                end = data.rfind(b"\n\n", self.at, binary) + 2
                if end > self.at + 1:
                    yield from self._texts(data, end, seek)
                    continue
            at = self.at
            if self._field(data):
                line = _read(self._entry.get(b"MESSAGE"), self._entry)
                self._entry = {}
                if line is not None:
                    yield line
            elif at == self.at:
                return

    def _texts(self, data: bytes, end: int, seek: Seek) -> Iterator[Found]:
        """Whole entries, in all of which each line is a field."""
        while self.at < end:
            place = seek(data, self.at, end)
            if place >= end:
                self.at = end
                break
            begin = max(self.at, data.rfind(b"\n\n", self.at, place) + 2)
            self.at = data.find(b"\n\n", place, end) + 2
            text = data[begin : self.at - 1]
            if _FROM_KERNEL.search(text) is not None:
                entry = dict(_pairs(text))
                message = entry.get(b"MESSAGE")
                if message is None or not is_unread(message):
                    line = _read(message, entry)
                    if line is not None:
                        yield line
        self.recognized += 1

    def _field(self, data: bytes) -> bool:
        """Take some fields of an entry; whether it ends there."""
        if self._skip:
            step = min(self._skip, len(data) - self.at)
            self.at, self._skip = self.at + step, self._skip - step
            return False
        fields = _FIELDS.match(data, self.at)
        if fields is not None and fields.end() > self.at:
            if self._may_be_wanted(data, self.at, fields.end()):
                self._entry.update((name, value) for name, value in _pairs(fields[0]) if name in _WANTED)
            self.at, self._within = fields.end(), True
            return False
        if data.startswith(b"\n", self.at):
            self.at, self._within = self.at + 1, False
            self.recognized += 1
            return bool(self._entry)
        self._binary(data)
        return False

    def _binary(self, data: bytes) -> None:
        binary = _BINARY.match(data, self.at)
        if binary is not None and len(data) - binary.end() >= 8:
            start = binary.end() + 8
            length = int.from_bytes(data[binary.end() : start], "little")
            if length > LONGEST_BYTES:
                self._skip = length + 1 if length < 1 << 48 else 0
                self.at, self._within = start, True
            elif len(data) - start > length:
                if binary[1] in _WANTED:
                    self._entry[binary[1]] = data[start : start + length]
                self.at, self._within = start + length + 1, True
            return
        newline = data.find(b"\n", self.at)
        if binary is None and newline >= 0:  # garbage
            self.at, self._entry = newline + 1, {}
        elif len(data) - self.at > 2 * LONGEST_BYTES:
            self.at = len(data)

    def _may_be_wanted(self, data: bytes, at: int, end: int) -> bool:
        """Whether fields are of an entry of the kernel's: they come in any order, and binary ones between them."""
        return bool(self._entry) or _FROM_KERNEL.search(data, at, end) is not None or data[end : end + 1] != b"\n"


def _next_binary(data: bytes, at: int) -> int:
    """Where the next field begins whose length is told, after its name alone on a line."""
    if _BINARY.match(data, at) is not None:
        return at
    match = _LATER_BINARY.search(data, at)
    return len(data) if match is None else match.start() + 1


def is_unread(message: bytes) -> bool:
    """Whether nothing is to be read in a kernel's line."""
    unread = _UNREAD.match(message)
    return unread is not None and unread[1] is not None and not is_relevant(message)


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
