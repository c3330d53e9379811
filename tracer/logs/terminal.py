# SPDX-License-Identifier: Apache-2.0
"""Undoes what a terminal does to a log: colours, and lines that are broken or cut at the screen's width.

Names cannot put a colour into a log: dmesg, journalctl and syslog daemons escape control characters in them.
"""

import re
from typing import NamedTuple

from tracer.logs.oom_lines import CHOSEN, INVOKED, KILLED

_COLOR = re.compile(rb"\x1b\[[0-9;:]{0,32}[mK]")
"""The sequences with which dmesg, journalctl and grep set and reset colours."""
_LINE_BEGIN = re.compile(
    rb"(?:[a-z0-9]{1,9} *:[a-z]{1,9} *: ?)?\[ *\d{1,12}\.\d{6}|\[\S{2,24} +\S{2,24} +\d|<\d{1,3}>"
    rb"|[A-Z][a-z]{2} [ \d]?\d \d\d:|\d{4}-\d\d-\d\d[T ]\d\d:"
)
"""The begins of lines in formats with a timestamp on each line."""
_SAMPLE_LINES = 512
_LEAST_WIDTH = 40
_LEAST_BROKEN = 3
_LEAST_CUT = 2
_MOST_TRIMMED = 8
"""Blanks at the end of a screen line are not copied."""
_COMPLETE_LINES = (KILLED, INVOKED, CHOSEN)


class Terminal(NamedTuple):
    """What a terminal has done to a log."""

    is_colored: bool = False
    broken_width: int = 0
    """The width at which lines were broken; 0: they were not."""
    cut_width: int = 0
    """The width at which lines were cut; 0: they were not."""

    @property
    def changes(self) -> bool:
        """Whether `clean` changes anything."""
        return self.is_colored or self.broken_width > 0

    def clean(self, data: bytes) -> bytes:
        """The lines as they were written; clean lines stay as they are."""
        if self.is_colored:
            data = _COLOR.sub(b"", data)
        return _join_broken_lines(data, self.broken_width) if self.broken_width else data


def detect_terminal(begin: bytes) -> Terminal:
    """Detect from the begin of a log what a terminal has done to it."""
    lines = begin.split(b"\n", _SAMPLE_LINES)[:_SAMPLE_LINES]
    colored = sum(b"\x1b[" in line for line in lines)
    is_colored = 4 * colored >= len(lines) and _COLOR.search(begin) is not None
    if is_colored:
        lines = [_COLOR.sub(b"", line) for line in lines]
    width = max(map(len, lines))
    full = [at for at, line in enumerate(lines[:-1]) if len(line) == width]
    if width < _LEAST_WIDTH or len(full) < _LEAST_CUT:
        return Terminal(is_colored)
    follow = [_LINE_BEGIN.match(lines[at + 1]) is not None for at in full if lines[at + 1]]
    if all(follow):
        return Terminal(is_colored, 0, width)
    others = [at for at, line in enumerate(lines) if at and line and _LINE_BEGIN.match(line) is None]
    behind = sum(len(lines[at - 1]) >= width - _MOST_TRIMMED for at in others)
    heads = sum(_LINE_BEGIN.match(line) is not None for line in lines)
    is_broken = behind >= _LEAST_BROKEN and 10 * behind >= 9 * len(others) and 4 * heads >= behind
    return Terminal(is_colored, width if is_broken else 0)


def _join_broken_lines(data: bytes, width: int) -> bytes:
    lines: list[bytes] = []
    for line in data.split(b"\n"):
        missing = -len(lines[-1]) % width if lines and lines[-1] else width
        if line and missing <= _MOST_TRIMMED and _LINE_BEGIN.match(line) is None:
            lines[-1] += b" " * missing + line
        else:
            lines.append(line)
    return b"\n".join(lines)


def trim_cut_line(text: bytes) -> bytes:
    """A kernel line that was cut, up to the last field that is complete."""
    if any(pattern.fullmatch(text) for pattern in _COMPLETE_LINES):
        return text
    end = len(text)
    while (end := max(text.rfind(b", ", 0, end), text.rfind(b") ", 0, end) + 1)) > 0:
        if any(pattern.fullmatch(text, 0, end) for pattern in _COMPLETE_LINES):
            return text[:end]
    return text
