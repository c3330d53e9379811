# SPDX-License-Identifier: Apache-2.0
"""Reads the lines of a log, one after another: in a known format, or behind what was learnt of the file.

Known formats come first, as they tell who wrote a line.  Nothing is learnt of a file with a line in one of them.
"""

import re
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Iterable

from tracer.logs.formats import COLLECTED, NOWHERE, LineFormats, Read, Sourced, unescape
from tracer.logs.inferred_prefix import InferredPrefix, infer_prefix, message_of
from tracer.logs.oom_lines import LogLine
from tracer.logs.oom_report import has_keyword
from tracer.logs.times import Calendar, digits_ns

_UNPRINTED = frozenset((b"\0", BOM_UTF8[:1], b"\r"))
"""What was not yet on disk when the power failed, what editors of other systems put in front of a file, and what serial
consoles do."""
_PADDING = frozenset((b"\r", b" ", b"\t"))
"""What consoles and terminals put behind a line."""
_PADDED = re.compile(
    rb"(?: invoked oom-killer: gfp_mask=.*order=-?\d+(?:, oom\w*=-?\d+)?"
    rb"|[Kk]ill(?:ed)? process \d.*(?:kB|child|adj:-?\d+))[ \t]+\r*\Z",
    re.DOTALL,
)
"""The kernel ends none of these lines with a blank; it may do so with others, where a name ends with one."""
_LONG_PATH_AHEAD = b"Memory cgroup stats for"
"""Where printk broke a record in front of a long path."""
_LONGEST = 65536
"""Bytes; longer lines are nobody's."""
_AFTER_A_PREFIX = frozenset(
    ("_dmesg", "_syslog", "_dmesg_ctime", "_rfc5424", "_kmsg", "_dmesg_iso", "_talos", "_logread", "_dmesg_relative")
)
"""Formats whose lines others put something in front of; in the others a line is a part of an object."""


class LineReader(LineFormats):
    """Reads lines, one after another."""

    def __init__(self, calendar: Calendar) -> None:
        super().__init__(calendar)
        self._known = self._collected = 0
        """How many lines were in a known format, and how many were as a collector writes them."""
        self._shape: InferredPrefix | None = None
        self._prefix = re.compile(b"")
        self.is_unknown = False
        """Whether the line that was read last, of which nothing was made, is in no format that is known or learnt."""

    @property
    def recognized(self) -> int:
        """How many lines were of a log, whoever wrote them."""
        return self._known + self._collected

    def read(self, raw: bytes) -> Sourced | None:
        """A line, without its newline; None: it is not the kernel's, or nothing is to be read in it."""
        self._match = None
        if raw[:1] in _UNPRINTED:
            raw = raw.lstrip(b"\0\r").removeprefix(BOM_UTF8)
        if len(raw) > _LONGEST:
            self.is_unknown = True
            return None
        if raw[-1:] in _PADDING:
            raw = self._without_padding(raw)
        found = self._readers[0](raw)
        if found is False:
            found = self._try_others(raw)
            if found is False:
                return self._read_learnt(raw)
        self._known += 1
        if found is True:
            self.is_unknown = False
            return None
        return found

    def _without_padding(self, raw: bytes) -> bytes:
        self._is_padded = self._is_padded or (has_keyword(raw) and _PADDED.search(raw) is not None)
        if not self._is_padded:
            return raw.rstrip(b"\r")
        raw = raw.rstrip(b" \t\r")
        return raw + b" " if raw.endswith(_LONG_PATH_AHEAD) else raw

    @property
    def may_learn(self) -> bool:
        """Whether no line was in a known format, and nothing was learnt."""
        return not self._known and self._shape is None

    def learn(self, lines: Iterable[bytes]) -> bool:
        """Learn what stands in front of the kernel's words in these lines; whether it is known now.

        Where a single line is in a known format nothing is learnt: what else is there may be the rest of a message.
        """
        if not self.may_learn:
            return False
        shapes = Counter[InferredPrefix]()
        for raw in lines:
            line = raw.lstrip(b"\0\r").removeprefix(BOM_UTF8).rstrip(b"\r")
            if len(line) > _LONGEST:
                continue
            if self._text_start(line, None) is not None:
                return False
            if (shape := infer_prefix(line, self._text_start)) is not None:
                shapes[shape] += 1
        if shapes:
            self._shape = shapes.most_common(1)[0][0]
            self._prefix = re.compile(self._shape.prefix)
        return self._shape is not None

    def _text_start(self, line: bytes, start: int | None) -> str | None:
        """The known format of a line: of one of the kernel's whose text begins there, or of anybody's."""
        for read in self._readers:
            found = read(line)
            if start is None and found is not False:
                return read.__name__
            if not isinstance(found, bool) and found[0].text == line[start:] and read.__name__ in _AFTER_A_PREFIX:
                return read.__name__
        return None

    def _read_learnt(self, raw: bytes) -> Sourced | None:
        """A line in no known format, behind what was learnt."""
        self._match, self.indent, self.is_unknown = None, 0, True
        self._collected += COLLECTED.match(raw) is not None
        shape = self._shape
        if shape is None or self._known:
            return None
        if shape.path:
            line = message_of(raw, shape.path) if raw[:1] == b"{" else None
            if line is None:
                return None
            raw = line
        match = self._prefix.match(raw)
        if match is None:
            return None
        self._collected += 1
        rest = raw[match.end() :]
        if shape.format is None:
            return LogLine(rest, digits_ns(match[0]), "unknown"), NOWHERE
        read: Read = getattr(self, shape.format)
        found = read(rest)
        self._match, self.indent = None, 0
        self.is_unknown = found is False
        return None if isinstance(found, bool) else found

    def more(self, data: bytes, at: int, end: int) -> int:
        """Where the lines end, of those from ``at`` on, that belong to the record that was read last."""
        indent, find = b" " * self.indent, data.find
        while data.startswith(indent, at, end) or (at < end and not data[at : find(b"\n", at, end)].strip(b" ")):
            at = find(b"\n", at, end) + 1
        return at

    def join(self, sourced: Sourced, more: bytes) -> Sourced:
        """The record of a line that was read last, and of those that go on with it, which end with a newline each."""
        line, origin = sourced
        if self._is_padded:
            more = re.sub(rb"[ \t\r]+\n", b"\n", more)
        newline = b"\n" + b" " * self.indent
        text = b"\n" + more[:-1]
        if text.count(newline) == text.count(b"\n") and b"\r" not in text:
            text = text.replace(newline, b"\n")
        else:
            text = re.sub(rb"\r*\n {0,%d}" % self.indent, b"\n", text.rstrip(b"\r"))
        return line._replace(text=line.text + unescape(text)), origin
