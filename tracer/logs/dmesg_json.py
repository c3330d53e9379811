# SPDX-License-Identifier: Apache-2.0
"""The lines of ``dmesg -J`` (util-linux 2.38 and later), a field each -> the kernel's lines."""

import json
import re
from typing import Any

from tracer.logs.oom_lines import LogLine
from tracer.logs.times import Calendar, digits_ns

_FIELD = re.compile(rb'\s+"(fac|pri|time|caller|msg)": +(.+?),?')
_BEGIN = re.compile(rb'\s*"dmesg": ?\[')
_FRAME = re.compile(rb"\s*(?:[{\]}],?|\},\{)")


class DmesgObject:
    """Reads one object after another; `msg` is the last field of each."""

    def __init__(self, calendar: Calendar) -> None:
        self._calendar = calendar
        self._fields: dict[bytes, Any] = {}
        self._is_known = False
        """Whether it is such a file: by its begin, or by a whole line, where that was cut off."""

    def read(self, raw: bytes) -> LogLine | bool:
        """False: this is no line of such a file, True: it is one, but nothing is complete."""
        match = _FIELD.fullmatch(raw)
        if match is None:
            is_begin = _BEGIN.fullmatch(raw) is not None
            self._is_known = self._is_known or is_begin
            if is_begin or _FRAME.fullmatch(raw) is not None:
                self._fields = {}
            return is_begin  # the rest of the frame may be of any JSON
        try:
            # dmesg lets bytes through that are no UTF-8.
            self._fields[match[1]] = json.loads(match[2].decode("utf-8", "surrogateescape"), strict=False)
        except (ValueError, RecursionError):
            return self._is_known
        line = self._line() if match[1] == b"msg" else None
        self._is_known = self._is_known or line is not None
        return line or self._is_known  # a field alone may be of any JSON, too

    def _line(self) -> LogLine | None:
        fields, self._fields = self._fields, {}
        message, time, caller = fields[b"msg"], fields.get(b"time"), fields.get(b"caller")
        if not isinstance(message, str) or fields.get(b"fac", "kern") != "kern":
            return None
        try:
            text = message.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:  # an escape that is no character
            return None
        by = caller.encode("ascii", "replace") if isinstance(caller, str) else None
        if isinstance(time, float) and 0 <= time < 1e12:
            return LogLine(text, round(time * 1e6) * 1000, "printk", by)
        if isinstance(time, str):
            stamp = time.encode("utf-8", "replace")
            wall_ns = self._calendar.iso(stamp) or self._calendar.ctime(stamp)
            if wall_ns is None:
                return LogLine(text, digits_ns(stamp), "unknown", by)
            return LogLine(text, wall_ns, "realtime", by, wall_ns)
        return None
