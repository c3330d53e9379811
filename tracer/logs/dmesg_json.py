# SPDX-License-Identifier: Apache-2.0
"""The lines of ``dmesg -J`` (util-linux 2.38 and later), one field each -> the kernel's lines."""

import json
import re
from typing import Any

from tracer.logs.log_line import IGNORED, LogLine
from tracer.logs.times import Calendar, digits_ns

_FIELD = re.compile(rb'\s+"(?P<name>fac|pri|time|caller|msg)": +(?P<value>.+?),?')
_BEGIN = re.compile(rb'\s*"dmesg": ?\[')
_FRAME = re.compile(rb"\s*(?:[{\]}],?|\},\{)")


class DmesgObject:
    """Reads one object after another; `msg` is the last field of each."""

    def __init__(self, calendar: Calendar) -> None:
        self._calendar = calendar
        self._fields: dict[bytes, Any] = {}
        self._is_recognized = False
        """Whether the file is of this format: by its first line, or, if that is missing, by a complete object."""

    def read(self, raw: bytes) -> LogLine | None:
        """The kernel's line, once its object is complete; IGNORED before; None if the line is not in this format."""
        match = _FIELD.fullmatch(raw)
        if match is None:
            is_begin = _BEGIN.fullmatch(raw) is not None
            self._is_recognized = self._is_recognized or is_begin
            if is_begin or _FRAME.fullmatch(raw) is not None:
                self._fields = {}
            return IGNORED if is_begin else None  # the rest of the frame may be of any JSON
        name = match["name"]
        try:
            # dmesg does not escape bytes that are not UTF-8.
            self._fields[name] = json.loads(match["value"].decode("utf-8", "surrogateescape"), strict=False)
        except (ValueError, RecursionError):
            return IGNORED if self._is_recognized else None
        line = self._end_object() if name == b"msg" else None
        self._is_recognized = self._is_recognized or line is not None
        if line is None and self._is_recognized:
            return IGNORED  # else the field may be of any JSON
        return line

    def _end_object(self) -> LogLine | None:
        fields, self._fields = self._fields, {}
        message, time, caller = fields[b"msg"], fields.get(b"time"), fields.get(b"caller")
        if not isinstance(message, str) or fields.get(b"fac", "kern") != "kern":
            return None
        try:
            text = message.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:  # an escape of a surrogate
            return None
        caller_bytes = caller.encode("ascii", "replace") if isinstance(caller, str) else None
        if isinstance(time, float) and 0 <= time < 1e12:
            return LogLine(text, round(time * 1e6) * 1000, "printk", caller_bytes)
        if isinstance(time, str):
            stamp = time.encode("utf-8", "replace")
            wall_ns = self._calendar.parse_iso(stamp) or self._calendar.parse_ctime(stamp)
            if wall_ns is None:
                return LogLine(text, digits_ns(stamp), "unknown", caller_bytes)
            return LogLine(text, wall_ns, "realtime", caller_bytes, wall_ns)
        return None
