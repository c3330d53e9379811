# SPDX-License-Identifier: Apache-2.0
"""Entries of journald's journal, as ``journalctl -o json`` and ``-o export`` write them -> the kernel's lines.

Formats: https://systemd.io/JOURNAL_EXPORT_FORMATS/.  Fields whose names begin with an underscore come from journald and
cannot be forged; in entries that journald read from /dev/kmsg it set the other fields as well.  Collectors pass entries
on as JSON with a date of their own (Fluent Bit), or in a field of another object (Google Cloud's `jsonPayload`).
"""

import re
from collections.abc import Callable, Iterator
from datetime import timezone
from typing import Any

import orjson

from tracer.logs.log_line import IGNORED, LogLine, Origin
from tracer.logs.oom_lines import DROPPED_LINE, MISSED
from tracer.logs.oom_report import SKIPPED, is_relevant
from tracer.logs.times import Calendar

Seek = Callable[[bytes, int, int], int]
"""Called with data, begin and end; gives the next position in an entry that may be relevant, or the end."""

LONGEST_BYTES = 1 << 20
"""Longer entries are not from the kernel."""
EXPORT = re.compile(rb"__(?:CURSOR|REALTIME_TIMESTAMP|MONOTONIC_TIMESTAMP)=[^\n]*\n|_?[A-Z][A-Z0-9_]{0,63}=[^\n]*\n_")
"""The begin of an export."""
_TEXT_FIELDS = re.compile(rb"(?:[A-Z0-9_]{1,64}=[^\n]*\n)*")
_BINARY_FIELD = re.compile(rb"([A-Z0-9_]{1,64})\n")
_LATER_BINARY_FIELD = re.compile(rb"\n[A-Z0-9_]{1,64}\n")
_RFC3339 = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)")
_SKIPPED_MESSAGE = re.compile(SKIPPED)
_SKIPPED_JSON = re.compile(rb'"MESSAGE":"' + SKIPPED.replace(rb"\r?\Z", rb'"'))
_KERNEL_TRANSPORTS = (b"kernel", b"driver")
_FROM_KERNEL = re.compile(rb"_TRANSPORT=(?:kernel|driver)\n")
_METADATA = b"_TRANSPORT SYSLOG_FACILITY _BOOT_ID _HOSTNAME __REALTIME_TIMESTAMP _SOURCE_MONOTONIC_TIMESTAMP".split()
"""The fields that are read beside the message."""
_METADATA_JSON = tuple((name.decode(), name) for name in _METADATA)
_KEPT_FIELDS = frozenset((b"MESSAGE", b"__MONOTONIC_TIMESTAMP", *_METADATA))


def read_json(raw: bytes) -> LogLine | None:
    """An entry on one line; IGNORED if it is not from the kernel, None if it is not an entry."""
    if raw.find(b'"MESSAGE"') < 0 and raw.find(b'"__CURSOR"') < 0:
        return None
    skipped = _SKIPPED_JSON.search(raw)
    if skipped is not None and skipped["skipped"] is not None and not is_relevant(raw):
        return IGNORED
    try:
        entry = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(entry, dict):
        return None
    outer = entry
    if "MESSAGE" not in entry:
        entry = next((each for each in entry.values() if isinstance(each, dict) and "MESSAGE" in each), entry)
    if "_TRANSPORT" not in entry and not any(name[:1] == "_" for name in entry):
        return None  # from another logger
    message = entry.get("MESSAGE")
    if isinstance(message, list):  # journalctl writes text that is not UTF-8 as a list of bytes
        try:
            message = bytes(message)
        except (TypeError, ValueError):
            return IGNORED
    elif isinstance(message, str):
        message = message.encode("utf-8", "surrogatepass")
    fields = {name: value.encode() for key, name in _METADATA_JSON if isinstance(value := entry.get(key), str)}
    collected_ns = None if b"__REALTIME_TIMESTAMP" in fields else _collected_ns(outer)
    return _to_line(message, fields, collected_ns) or IGNORED


def _collected_ns(entry: dict[str, Any]) -> int | None:
    """The time that a collector adds to an entry, which it takes from the journal."""
    for name in ("date", "timestamp", "@timestamp", "time"):
        stamp = entry.get(name)
        if isinstance(stamp, float) and 0 <= stamp < 1e11:
            return round(stamp * 1e6) * 1000
        if isinstance(stamp, str) and (match := _RFC3339.fullmatch(stamp.encode("utf-8", "replace"))) is not None:
            return Calendar(timezone.utc).parse_iso(match[0])
    return None


def _to_line(message: Any, fields: dict[bytes, bytes], collected_ns: int | None = None) -> LogLine | None:
    """The line of an entry; None if the kernel did not write it."""
    transport = fields.get(b"_TRANSPORT")
    if not isinstance(message, bytes) or transport not in _KERNEL_TRANSPORTS:
        return None
    if transport == b"driver":  # journald itself
        if (missed := MISSED.fullmatch(message)) is None:
            return None
        message = DROPPED_LINE % int(missed[1])
    if fields.get(b"SYSLOG_FACILITY", b"0") != b"0":  # written to /dev/kmsg by a process
        return None
    origin = Origin(_host(fields.get(b"_HOSTNAME")), _boot_id(fields.get(b"_BOOT_ID")))
    uptime_us = _number(fields.get(b"_SOURCE_MONOTONIC_TIMESTAMP"))
    wall_us = _number(fields.get(b"__REALTIME_TIMESTAMP"))
    wall_ns = collected_ns if wall_us is None else wall_us * 1000
    if uptime_us is not None:
        return LogLine(message, uptime_us * 1000, "printk", None, wall_ns, origin)
    if wall_ns is not None:
        return LogLine(message, wall_ns, "realtime", None, wall_ns, origin)
    return LogLine(message, None, "unknown", origin=origin)


class Export:
    """Reads entries of the export format; each field gives its length, so entries may contain anything."""

    def __init__(self) -> None:
        self._entry: dict[bytes, bytes] = {}
        self._skip_bytes = 0
        self._is_within_entry = False
        """Whether the next field is not the first of its entry."""
        self.at = 0
        """The position up to which the last data was read; the caller passes the rest again, with what follows it."""
        self.recognized = 0

    def read(self, data: bytes, seek: Seek) -> Iterator[LogLine]:
        """The kernel's lines in ``data`` that may be relevant; ``seek`` is called after each for the next position."""
        self.at, binary = 0, -1
        while self.at < len(data):
            if not self._is_within_entry and not self._skip_bytes:
                if binary < self.at:
                    binary = _find_binary_field(data, self.at)
                end = data.rfind(b"\n\n", self.at, binary) + 2
                if end > self.at + 1:
                    yield from self._read_text_entries(data, end, seek)
                    continue
            at = self.at
            if self._read_field(data):
                line = _to_line(self._entry.get(b"MESSAGE"), self._entry)
                self._entry = {}
                if line is not None:
                    yield line
            elif at == self.at:
                return

    def _read_text_entries(self, data: bytes, end: int, seek: Seek) -> Iterator[LogLine]:
        """Complete entries without binary fields."""
        while self.at < end:
            place = seek(data, self.at, end)
            if place >= end:
                self.at = end
                break
            begin = max(self.at, data.rfind(b"\n\n", self.at, place) + 2)
            self.at = data.find(b"\n\n", place, end) + 2
            text = data[begin : self.at - 1]
            if _FROM_KERNEL.search(text) is not None:
                entry = dict(_split_fields(text))
                message = entry.get(b"MESSAGE")
                if message is None or not _is_skipped(message):
                    line = _to_line(message, entry)
                    if line is not None:
                        yield line
        self.recognized += 1

    def _read_field(self, data: bytes) -> bool:
        """Read some fields of an entry; whether the entry ends there."""
        if self._skip_bytes:
            step = min(self._skip_bytes, len(data) - self.at)
            self.at, self._skip_bytes = self.at + step, self._skip_bytes - step
            return False
        fields = _TEXT_FIELDS.match(data, self.at)
        if fields is not None and fields.end() > self.at:
            if self._may_be_from_kernel(data, self.at, fields.end()):
                self._entry.update((name, value) for name, value in _split_fields(fields[0]) if name in _KEPT_FIELDS)
            self.at, self._is_within_entry = fields.end(), True
            return False
        if data.startswith(b"\n", self.at):
            self.at, self._is_within_entry = self.at + 1, False
            self.recognized += 1
            return bool(self._entry)
        self._read_binary_field(data)
        return False

    def _read_binary_field(self, data: bytes) -> None:
        binary = _BINARY_FIELD.match(data, self.at)
        if binary is not None and len(data) - binary.end() >= 8:
            start = binary.end() + 8
            length = int.from_bytes(data[binary.end() : start], "little")
            if length > LONGEST_BYTES:
                self._skip_bytes = length + 1 if length < 1 << 48 else 0
                self.at, self._is_within_entry = start, True
            elif len(data) - start > length:
                if binary[1] in _KEPT_FIELDS:
                    self._entry[binary[1]] = data[start : start + length]
                self.at, self._is_within_entry = start + length + 1, True
            return
        newline = data.find(b"\n", self.at)
        if binary is None and newline >= 0:  # garbage
            self.at, self._entry = newline + 1, {}
        elif len(data) - self.at > 2 * LONGEST_BYTES:
            self.at = len(data)

    def _may_be_from_kernel(self, data: bytes, at: int, end: int) -> bool:
        """Whether fields may be of an entry of the kernel: fields come in any order, binary ones among them."""
        return bool(self._entry) or _FROM_KERNEL.search(data, at, end) is not None or data[end : end + 1] != b"\n"


def _find_binary_field(data: bytes, at: int) -> int:
    """The position of the next binary field, whose name is alone on a line; the end of the data if there is none."""
    if _BINARY_FIELD.match(data, at) is not None:
        return at
    match = _LATER_BINARY_FIELD.search(data, at)
    return len(data) if match is None else match.start() + 1


def _is_skipped(message: bytes) -> bool:
    """Whether a line of the kernel has nothing to read."""
    skipped = _SKIPPED_MESSAGE.match(message)
    return skipped is not None and skipped["skipped"] is not None and not is_relevant(message)


def _split_fields(fields: bytes) -> Iterator[tuple[bytes, bytes]]:
    for field in fields.split(b"\n"):
        name, _, value = field.partition(b"=")
        yield name, value


def _number(digits: bytes | None) -> int | None:
    return int(digits) if digits is not None and digits.isdigit() and len(digits) <= 16 else None


def _host(raw: bytes | None) -> str | None:
    return None if raw is None else raw[:255].decode("utf-8", "backslashreplace")


def _boot_id(raw: bytes | None) -> str | None:
    if raw is None or re.fullmatch(rb"[0-9a-f]{32}", raw) is None:
        return None
    digits = raw.decode()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
