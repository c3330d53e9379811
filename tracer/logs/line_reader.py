# SPDX-License-Identifier: Apache-2.0
"""Reads the lines of a log, one after another: in a known format, or behind a prefix that is inferred from the file.

Known formats come first, because they show who wrote a line.  No prefix is inferred if any line is in a known format.
"""

import re
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Iterable

from tracer.logs.formats import COLLECTED, LineFormats, unescape
from tracer.logs.inferred_prefix import InferredPrefix, infer_prefix, read_message_field
from tracer.logs.log_line import IGNORED, FormatReader, LogLine
from tracer.logs.oom_report import has_keyword
from tracer.logs.times import Calendar, digits_ns

_JUNK_BEGINS = frozenset((b"\0", BOM_UTF8[:1], b"\r"))
"""Zeros that were not yet written when the power failed, the byte order mark of other systems' editors, and the
carriage returns of serial consoles."""
_PADDING = frozenset((b"\r", b" ", b"\t"))
"""What consoles and terminals add behind a line."""
_PADDED = re.compile(
    rb"(?: invoked oom-killer: gfp_mask=.*order=-?\d+(?:, oom\w*=-?\d+)?"
    rb"|[Kk]ill(?:ed)? process \d.*(?:kB|child|adj:-?\d+))[ \t]+\r*\Z",
    re.DOTALL,
)
"""The kernel ends none of these lines with a blank; other lines may end with one, in a name."""
_LONG_PATH_AHEAD = b"Memory cgroup stats for"
"""printk ended a record here because a long path follows."""
_LONGEST_BYTES = 65536
"""Longer lines are not from the kernel."""


class LineReader(LineFormats):
    """Reads lines, one after another."""

    def __init__(self, calendar: Calendar) -> None:
        super().__init__(calendar)
        self._in_known_format = self._collected = 0
        """The number of lines in a known format, and of lines that a collector wrote."""
        self._inferred: InferredPrefix | None = None
        self._inferred_pattern = re.compile(b"")
        self._prefixable = (
            self._read_dmesg, self._read_syslog, self._read_dmesg_ctime, self._read_rfc5424, self._read_kmsg,
            self._read_dmesg_iso, self._read_talos, self._read_logread, self._read_dmesg_relative,
        )  # fmt: skip
        """Formats whose lines others may prefix; in the remaining ones a line is a part of an object."""
        self.is_unknown = False
        """Whether the last line, if `read` gave None for it, is neither in a known format nor behind the prefix."""

    @property
    def recognized(self) -> int:
        """The number of lines that are of a log, of any program."""
        return self._in_known_format + self._collected

    def read(self, raw: bytes) -> LogLine | None:
        """Read a line, without its newline; None: the line is not from the kernel, or has nothing to read."""
        self._last_match = None
        if raw[:1] in _JUNK_BEGINS:
            raw = raw.lstrip(b"\0\r").removeprefix(BOM_UTF8)
        if len(raw) > _LONGEST_BYTES:
            self.is_unknown = True
            return None
        if raw[-1:] in _PADDING:
            raw = self._strip_padding(raw)
        line = self._readers[0](raw)
        if line is None:
            line = self._try_others(raw)
            if line is None:
                return self._read_behind_inferred(raw)
        self._in_known_format += 1
        if line is IGNORED:
            self.is_unknown = False
            return None
        return line

    def _strip_padding(self, raw: bytes) -> bytes:
        self._has_padding = self._has_padding or (has_keyword(raw) and _PADDED.search(raw) is not None)
        if not self._has_padding:
            return raw.rstrip(b"\r")
        raw = raw.rstrip(b" \t\r")
        return raw + b" " if raw.endswith(_LONG_PATH_AHEAD) else raw

    @property
    def may_infer(self) -> bool:
        """Whether no line was in a known format, and no prefix was inferred yet."""
        return not self._in_known_format and self._inferred is None

    def infer_prefix(self, lines: Iterable[bytes]) -> bool:
        """Infer the prefix of the kernel's text from these lines; whether it is known now.

        Nothing is inferred if a single line is in a known format: the other lines may be the rest of a message.
        """
        if not self.may_infer:
            return False
        prefixes = Counter[InferredPrefix]()
        for raw in lines:
            line = raw.lstrip(b"\0\r").removeprefix(BOM_UTF8).rstrip(b"\r")
            if len(line) > _LONGEST_BYTES:
                continue
            if any(read(line) is not None for read in self._readers):
                return False
            if (prefix := infer_prefix(line, self._find_format)) is not None:
                prefixes[prefix] += 1
        if prefixes:
            self._inferred = prefixes.most_common(1)[0][0]
            self._inferred_pattern = re.compile(self._inferred.pattern)
        return self._inferred is not None

    def _find_format(self, line: bytes, start: int) -> FormatReader | None:
        """The known format in which the kernel's text begins at ``start``."""
        for read in self._readers:
            found = read(line)
            if found is not None and found is not IGNORED and found.text == line[start:] and read in self._prefixable:
                return read
        return None

    def _read_behind_inferred(self, raw: bytes) -> LogLine | None:
        """Read a line that is in no known format, behind the inferred prefix."""
        self._last_match, self.indent, self.is_unknown = None, 0, True
        self._collected += COLLECTED.match(raw) is not None
        inferred = self._inferred
        if inferred is None or self._in_known_format:
            return None
        if inferred.path:
            message = read_message_field(raw, inferred.path) if raw[:1] == b"{" else None
            if message is None:
                return None
            raw = message
        match = self._inferred_pattern.match(raw)
        if match is None:
            return None
        self._collected += 1
        rest = raw[match.end() :]
        if inferred.format is None:
            return LogLine(rest, digits_ns(match[0]), "unknown")
        line = inferred.format(rest)
        self._last_match, self.indent = None, 0
        self.is_unknown = line is None
        return None if line is IGNORED else line

    def end_of_record(self, data: bytes, at: int, end: int) -> int:
        """The end of the lines from ``at`` on that continue the last record."""
        indent, find = b" " * self.indent, data.find
        while data.startswith(indent, at, end) or (at < end and not data[at : find(b"\n", at, end)].strip(b" ")):
            at = find(b"\n", at, end) + 1
        return at

    def join(self, line: LogLine, continued: bytes) -> LogLine:
        """The record of the last line and of the lines that continue it, each of which ends with a newline."""
        if self._has_padding:
            continued = re.sub(rb"[ \t\r]+\n", b"\n", continued)
        newline = b"\n" + b" " * self.indent
        text = b"\n" + continued[:-1]
        if text.count(newline) == text.count(b"\n") and b"\r" not in text:
            text = text.replace(newline, b"\n")
        else:
            text = re.sub(rb"\r*\n {0,%d}" % self.indent, b"\n", text.rstrip(b"\r"))
        return line._replace(text=line.text + unescape(text))
