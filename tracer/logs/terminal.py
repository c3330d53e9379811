# SPDX-License-Identifier: Apache-2.0
"""What terminals make of a log, taken back: colours, lines that are broken or cut at the screen's width.

Names cannot bring a colour into a log: dmesg, journalctl and syslog daemons spell escape sequences in them.
"""

import re
from typing import NamedTuple

from tracer.logs.oom_lines import CHOSEN, INVOKED, KILLED

_COLOR = re.compile(rb"\x1b\[[0-9;:]{0,32}[mK]")
"""As dmesg, journalctl and grep set them, and take them back."""
_HEAD = re.compile(
    rb"(?:[a-z0-9]{1,9} *:[a-z]{1,9} *: ?)?\[ *\d{1,12}\.\d{6}|\[\S{2,24} +\S{2,24} +\d|<\d{1,3}>"
    rb"|[A-Z][a-z]{2} [ \d]?\d \d\d:|\d{4}-\d\d-\d\d[T ]\d\d:"
)
"""How lines begin in formats where each line says when it was written."""
_SAMPLE_LINES = 512
_LEAST_WIDTH = 40
_LEAST_BROKEN = 3
_LEAST_CUT = 2
_MOST_TRIMMED = 8
"""Blanks at the end of a screen's line are not copied."""
_WHOLE = (KILLED, INVOKED, CHOSEN)


class Terminal(NamedTuple):
    """What is to be taken back in a log."""

    is_colored: bool = False
    broken_width: int = 0
    """Where lines were broken; 0: they are not."""
    cut_width: int = 0
    """Where lines end of which the rest is missing; 0: they do not."""

    @property
    def changes(self) -> bool:
        """Whether there is anything to `clean`."""
        return self.is_colored or self.broken_width > 0

    def clean(self, data: bytes) -> bytes:
        """Lines as they were; what is clean stays so."""
        if self.is_colored:
            data = _COLOR.sub(b"", data)
        return _joined(data, self.broken_width) if self.broken_width else data


def terminal_of(begin: bytes) -> Terminal:
    """As the beginning of a log shows it."""
    lines = begin.split(b"\n", _SAMPLE_LINES)[:_SAMPLE_LINES]
    colored = sum(b"\x1b[" in line for line in lines)
    is_colored = 4 * colored >= len(lines) and _COLOR.search(begin) is not None
    if is_colored:
        lines = [_COLOR.sub(b"", line) for line in lines]
    width = max(map(len, lines))
    full = [at for at, line in enumerate(lines[:-1]) if len(line) == width]
    if width < _LEAST_WIDTH or len(full) < _LEAST_CUT:
        return Terminal(is_colored)
    follow = [_HEAD.match(lines[at + 1]) is not None for at in full if lines[at + 1]]
    if all(follow):
        return Terminal(is_colored, 0, width)
    others = [at for at, line in enumerate(lines) if at and line and _HEAD.match(line) is None]
    behind = sum(len(lines[at - 1]) >= width - _MOST_TRIMMED for at in others)
    heads = sum(_HEAD.match(line) is not None for line in lines)
    is_broken = behind >= _LEAST_BROKEN and 10 * behind >= 9 * len(others) and 4 * heads >= behind
    return Terminal(is_colored, width if is_broken else 0)


def _joined(data: bytes, width: int) -> bytes:
    lines: list[bytes] = []
    for line in data.split(b"\n"):
        missing = -len(lines[-1]) % width if lines and lines[-1] else width
        if line and missing <= _MOST_TRIMMED and _HEAD.match(line) is None:
            lines[-1] += b" " * missing + line
        else:
            lines.append(line)
    return b"\n".join(lines)


def whole_part(text: bytes) -> bytes:
    """A line of the kernel that was cut, up to the last field that is whole."""
    if any(pattern.fullmatch(text) for pattern in _WHOLE):
        return text
    end = len(text)
    while (end := max(text.rfind(b", ", 0, end), text.rfind(b") ", 0, end) + 1)) > 0:
        if any(pattern.fullmatch(text, 0, end) for pattern in _WHOLE):
            return text[:end]
    return text
