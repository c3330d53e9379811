# SPDX-License-Identifier: Apache-2.0
r"""Parsers of the known log formats: a line of a log -> the kernel's line in it.

The formats are dmesg (raw, -r, -x, -d, -e, -H, -T, -J, --time-format=iso), the text of /dev/kmsg, what rsyslog,
syslog-ng, busybox and OpenWrt write (RFC 3164 and RFC 5424), journalctl's text and JSON, and Talos. Each line shows its
format; the format of the line before is tried first. Lines from other programs are ignored if the format shows the
writer: by the facility, or by the program's name in front of the colon.

dmesg prints unprintable bytes as ``\xNN``; dmesg and journalctl indent what follows a newline in a record.
"""

import re

from tracer.logs.dmesg_json import DmesgObject
from tracer.logs.journal import read_json
from tracer.logs.log_line import IGNORED, UNKNOWN_ORIGIN, FormatReader, LogLine, Origin
from tracer.logs.oom_lines import DROPPED_LINE, MISSED
from tracer.logs.oom_report import SKIPPED, is_relevant
from tracer.logs.same_prefix import LinePrefix
from tracer.logs.times import Calendar, digits_ns, parse_month

_CALLER = rb"(?: ?\[ *(?P<caller>[TC]\d{1,10})\])? ?"
_LEVEL = rb"(?:<(?P<priority>\d{1,3})>|(?P<facility>[a-z0-9]{1,9}) *:[a-z]{1,9} *: ?)?"
_UPTIME = rb"\[ *(?P<seconds>\d{1,12})\.(?P<microseconds>\d{6})(?: +<[^>]{0,40}>)?\]" + _CALLER
_DMESG = re.compile(_LEVEL + _UPTIME + SKIPPED)
_OPTIONAL_HOST = rb"(?:(?!kernel:)(?P<host>\S{1,255})(?<!:) )?"
"""``journalctl --no-hostname`` and busybox's ``syslogd -S`` omit the host; a word that ends with a colon is a program's
name."""
_HOST_AND_KERNEL = re.compile(_OPTIONAL_HOST + rb"kernel: ")
"""Follows the uptime in journalctl's short-monotonic."""
_WORD = rb"[A-Za-z0-9.\x80-\xff]{2,24}"
"""The name of a day or a month, in any language."""
_DMESG_CTIME = re.compile(
    _LEVEL + rb"\[(?P<stamp>" + _WORD + rb" +" + _WORD + rb" +\d{1,2} \d\d:\d\d:\d\d \d{4})\]" + _CALLER
)
_DMESG_ISO = re.compile(_LEVEL + rb"(?P<stamp>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{6}[+-]\d\d:\d\d)" + _CALLER)
_DMESG_RELATIVE = re.compile(
    _LEVEL + rb"\[(?P<stamp>\d{0,2}[^\d\s\]]{1,20} ?\d\d \d\d:\d\d| {0,5}[+-]\d{1,6}\.\d{6})\]" + _CALLER
)
"""dmesg -e and -H: the minute if it has changed, else the time since the line before."""
_TALOS = re.compile(
    rb"(?:(?P<host>\S{1,255}): )?(?P<facility>[a-z0-9]{1,9}): +[a-z]{1,9}: "
    rb"\[(?P<stamp>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z)\]: "
)
_LOGREAD = re.compile(
    rb"(?P<stamp>[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}) (?P<facility>[a-z0-9]{1,9})\.[a-z]{1,9} "
    rb"(?:(?P<kernel>kernel): ?(?:" + _UPTIME + rb")?|\S)"
)
"""OpenWrt."""
_KMSG = re.compile(rb"(?P<priority>\d{1,5}),\d{1,20},(?P<microseconds>\d{1,18}),(?P<flags>[^;\n]*);")
_KMSG_CONTINUED = re.compile(rb"\d{1,5},\d{1,20},\d{1,18},c[^;\n]*;")
_KMSG_RECORD_BYTES = 2048
"""Since 6.4 /dev/kmsg gives this much of a longer record (PRINTK_MESSAGE_MAX), without the newline at its end."""
_SYSLOG = re.compile(
    rb"(?:<(?P<priority>\d{1,3})>)?"
    rb"(?P<stamp>[A-Z][a-z]{2} [ \d]?\d \d\d:\d\d:\d\d(?:\.\d{1,9})?"  # RFC 3164; journalctl's short, short-precise
    rb"|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?"  # RFC 3339; short-iso
    rb"|[A-Z][a-z]{2} \d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,9})? [A-Za-z0-9+:-]{1,9}"  # short-full
    rb"|\d{9,11}\.\d{6}"  # short-unix
    rb"|" + _WORD + rb" [ \d]?\d \d\d:\d\d:\d\d(?:\.\d{1,9})?)"  # as the first, in another language
    rb"  ?" + _OPTIONAL_HOST + rb"(?:(?P<facility>[a-z0-9]{1,9})\.[a-z]{1,9} )?"  # two blanks: the host was removed
    rb"(?:(?P<kernel>kernel): ?(?:" + _UPTIME + rb")?" + SKIPPED + rb"|[^\s\[])"  # journalctl's verbose has a bracket
)
_RFC5424 = re.compile(
    rb"<(?P<priority>\d{1,3})>1 (?P<stamp>\S{1,40}) (?P<host>\S{1,255}) (?P<program>\S{1,48}) \S{1,128} \S{1,32} "
    rb"(?:-|(?:\[(?:[^\\\]]|\\.){0,4096}\])+)(?:  ?(?:\xef\xbb\xbf)?|$)"
)
"""rsyslog keeps a space in front of a message that it received by RFC 3164."""
COLLECTED = re.compile(
    rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)? "
    rb"(?:std(?:out|err) [FP] |\{[^{}]{0,512}\} |[A-Z][a-z]\(\d\d\) \S{1,40} - "
    rb"|(?:\S{1,255} )?(?:<\d{1,3}>)?\[ *(?:\d{1,12}\.\d{6}\]|\S{2,24} +\S{2,24} +\d{1,2} \d\d:)"
    rb"|[A-Z][a-z]{2} [ \d]?\d \d\d:\d\d:\d\d |\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)"
)
"""The prefix that a collector adds to a line: the kubelet's container log, Loki's labels, a CI log, netconsole, a
virtual machine's console.  By its timestamp alone such a line looks like syslog's, from a program of that name."""
_JOURNALD_MISSED = re.compile(rb"systemd-journald(?:\[\d{1,10}\])?: " + MISSED.pattern)
_UPTIME_STAMP = re.compile(_UPTIME)
_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")
_BACKSLASH = 92
_FRACTION = re.compile(rb"(?<=:\d\d\.)\d+")
_KERNEL_PRIORITY_MAX = 7
"""Facility 0, any severity."""


# groups() is the fastest way to all groups of a match; their order is asserted here.
assert list(_DMESG.groupindex) == ["priority", "facility", "seconds", "microseconds", "caller", "skipped"]
assert list(_SYSLOG.groupindex) == [
    "priority", "stamp", "host", "facility", "kernel", "seconds", "microseconds", "caller", "skipped"
]  # fmt: skip


class LineFormats:
    """A parser per known format; `LineReader` of line_reader.py uses them.

    Each parser returns the kernel's line, IGNORED for a line of its format that has nothing to read, or None if the
    line is not in its format.
    """

    def __init__(self, calendar: Calendar) -> None:
        self._calendar = calendar
        self._readers: list[FormatReader] = [
            self._read_dmesg, self._read_syslog, self._read_journal_json, self._read_dmesg_ctime, self._read_rfc5424,
            self._read_kmsg, self._read_dmesg_iso, self._read_talos, self._read_logread, self._read_dmesg_relative,
            self._read_dmesg_json,
        ]  # fmt: skip
        """The format of the last line comes first."""
        self._dmesg_object = DmesgObject(calendar)
        self._has_padding = False
        """Whether blanks follow each line."""
        self.indent = 0
        """The indentation of lines that continue the last record; 0: the format has none."""
        self._last_match: re.Match[bytes] | None = None
        """Of the last line, if its text is in the log as it is, without escapes."""
        self._host: bytes | None = None
        self._host_origin = UNKNOWN_ORIGIN
        self._stamp = b""
        self._stamp_ns: int | None = None

    def _try_others(self, raw: bytes) -> LogLine | None:
        """Try all formats but the first."""
        for number, read in enumerate(self._readers):
            if number and (line := read(raw)) is not None:
                self._readers.insert(0, self._readers.pop(number))
                return line
        return None

    def prefix(self) -> LinePrefix | None:
        """The prefix of the last line; None: each line of its format has to be parsed on its own."""
        match, fractions = self._last_match, []
        if match is None or self._has_padding:
            return None
        raw = match.string
        if match.re is _SYSLOG and (fraction := _FRACTION.search(raw, *match.span("stamp"))) is not None:
            fractions.append(fraction.span())
        has_uptime = match["microseconds"] is not None
        if has_uptime:
            fractions.append(match.span("microseconds"))
        return LinePrefix(raw, fractions, self.indent, has_uptime)

    def _read_dmesg(self, raw: bytes) -> LogLine | None:
        match = _DMESG.match(raw)
        if match is None:
            return None
        priority, facility, seconds, microseconds, caller, skipped = match.groups()
        if (priority or facility) and not _is_kernel(priority, facility):
            self.indent = 0
            return IGNORED
        if skipped is not None and not is_relevant(raw):
            self.indent = 0
            return IGNORED
        end = self.indent = match.end() if skipped is None else match.start("skipped")
        text, time_ns = raw[end:], int(seconds + microseconds) * 1000
        if text.find(b"kernel: ") >= 0 and (host := _HOST_AND_KERNEL.match(text)) is not None:
            self.indent += host.end()
            return LogLine(text[host.end() :], time_ns, "printk", caller, None, self._origin(host["host"]))
        if _BACKSLASH in text:
            return LogLine(unescape(text), time_ns, "printk", caller)
        self._last_match = match
        return LogLine(text, time_ns, "printk", caller)

    def _read_dmesg_ctime(self, raw: bytes) -> LogLine | None:
        match = _DMESG_CTIME.match(raw)
        if match is None:
            return None
        stamp = match["stamp"]
        if stamp != self._stamp:
            self._stamp, self._stamp_ns = stamp, self._calendar.parse_ctime(stamp)
        return self._read_dmesg_at_stamp(raw, match)

    def _read_dmesg_iso(self, raw: bytes) -> LogLine | None:
        match = _DMESG_ISO.match(raw)
        if match is None:
            return None
        self._stamp, self._stamp_ns = match["stamp"], self._calendar.parse_iso(match["stamp"])
        return self._read_dmesg_at_stamp(raw, match)

    def _read_dmesg_relative(self, raw: bytes) -> LogLine | None:
        match = _DMESG_RELATIVE.match(raw)
        if match is None:
            return None
        self._stamp, self._stamp_ns = match["stamp"], None
        return self._read_dmesg_at_stamp(raw, match)

    def _read_dmesg_at_stamp(self, raw: bytes, match: re.Match[bytes]) -> LogLine:
        if not _is_kernel(match["priority"], match["facility"]):
            self.indent = 0
            return IGNORED
        self.indent = match.end()
        return self._line_at_stamp(unescape(raw[match.end() :]), match["caller"])

    def _read_kmsg(self, raw: bytes) -> LogLine | None:
        match = _KMSG.match(raw)
        if match is None:
            return None
        self.indent = 0  # indented lines are properties
        if int(match["priority"]) > _KERNEL_PRIORITY_MAX:
            return IGNORED
        caller = next((flag[7:] for flag in match["flags"].split(b",") if flag.startswith(b"caller=")), None)
        if len(raw) > _KMSG_RECORD_BYTES:
            continued = _KMSG_CONTINUED.match(raw, _KMSG_RECORD_BYTES)
            if continued is not None:
                raw = raw[:_KMSG_RECORD_BYTES] + raw[continued.end() :]
        return LogLine(unescape(raw[match.end() :]), int(match["microseconds"]) * 1000, "printk", caller)

    def _read_syslog(self, raw: bytes) -> LogLine | None:
        match = _SYSLOG.match(raw)
        if match is None:
            return None
        priority, stamp, host, facility, kernel, seconds, microseconds, caller, skipped = match.groups()
        self.indent = 0
        if skipped is not None and not is_relevant(raw):
            return IGNORED
        if kernel is None:
            missed = _JOURNALD_MISSED.fullmatch(raw, match.end() - 1)
            if missed is not None:
                return LogLine(DROPPED_LINE % int(missed[1]), origin=self._origin(host))
            return IGNORED if COLLECTED.match(raw) is None else None
        if (priority or facility) and not _is_kernel(priority, facility):
            return IGNORED
        if stamp != self._stamp:
            self._stamp, self._stamp_ns = stamp, self._parse_syslog_stamp(stamp)
        self._last_match = match
        end = self.indent = match.end() if skipped is None else match.start("skipped")
        if seconds is None:
            return self._line_at_stamp(raw[end:], None, self._origin(host))
        time_ns = int(seconds + microseconds) * 1000  # more precise than the timestamp
        return LogLine(raw[end:], time_ns, "printk", caller, self._stamp_ns, self._origin(host))

    def _read_rfc5424(self, raw: bytes) -> LogLine | None:
        match = _RFC5424.match(raw)
        if match is None:
            return None
        self.indent = 0
        stamp, program, end = match["stamp"], match["program"], match.end()
        if program == b"systemd-journald" and (missed := MISSED.fullmatch(raw, end)) is not None:
            return LogLine(DROPPED_LINE % int(missed[1]), origin=self._origin(match["host"]))
        if program != b"kernel" or not _is_kernel(match["priority"], None):
            return IGNORED
        if stamp != self._stamp:
            self._stamp, self._stamp_ns = stamp, self._calendar.parse_iso(stamp)
        origin = self._origin(match["host"])
        if raw[end : end + 1] == b"[" and (uptime := _UPTIME_STAMP.match(raw, end)) is not None:
            time_ns = int(uptime["seconds"] + uptime["microseconds"]) * 1000  # more precise than the timestamp
            return LogLine(raw[uptime.end() :], time_ns, "printk", uptime["caller"], self._stamp_ns, origin)
        return self._line_at_stamp(raw[end:], None, origin)

    def _read_talos(self, raw: bytes) -> LogLine | None:
        match = _TALOS.match(raw)
        if match is None:
            return None
        self.indent = 0
        stamp = match["stamp"]
        if match["facility"] != b"kern":
            return IGNORED
        if stamp != self._stamp:
            self._stamp, self._stamp_ns = stamp, self._calendar.parse_iso(stamp)
        return self._line_at_stamp(raw[match.end() :], None, self._origin(match["host"]))

    def _read_logread(self, raw: bytes) -> LogLine | None:
        match = _LOGREAD.match(raw)
        if match is None:
            return None
        self.indent = 0
        stamp, seconds, text = match["stamp"], match["seconds"], raw[match.end() :]
        if match["kernel"] is None or match["facility"] != b"kern":
            return IGNORED
        if stamp != self._stamp:
            self._stamp, self._stamp_ns = stamp, self._calendar.parse_ctime(stamp)
        if seconds is None:
            return self._line_at_stamp(text, None)
        time_ns = int(seconds + match["microseconds"]) * 1000
        return LogLine(text, time_ns, "printk", match["caller"], self._stamp_ns)

    def _read_dmesg_json(self, raw: bytes) -> LogLine | None:
        line = self._dmesg_object.read(raw)
        if line is not None and line is not IGNORED:
            self.indent = 0
        return line

    def _read_journal_json(self, raw: bytes) -> LogLine | None:
        if raw[:1] != b"{" or raw[-1:] != b"}":
            return None
        self.indent = 0
        return read_json(raw)

    def _line_at_stamp(self, text: bytes, caller: bytes | None, origin: Origin = UNKNOWN_ORIGIN) -> LogLine:
        """A line with no time but the last timestamp."""
        if self._stamp_ns is None:
            return LogLine(text, digits_ns(self._stamp), "unknown", caller, None, origin)
        return LogLine(text, self._stamp_ns, "realtime", caller, self._stamp_ns, origin)

    def _parse_syslog_stamp(self, stamp: bytes) -> int | None:
        if stamp[:1].isdigit():
            if stamp[4:5] == b"-":
                return self._calendar.parse_iso(stamp)
            if b" " not in stamp:
                return int(stamp.replace(b".", b"")) * 1000
        if stamp[3:4] == b" " and stamp[8:9] == b"-":  # UTC is the only zone name that names one zone
            day, clock, zone = stamp[4:].split(b" ")
            return self._calendar.parse_iso(day + b" " + clock + (b"" if zone.isalpha() and zone != b"UTC" else zone))
        name, day, clock = stamp.split()
        month = parse_month(name)
        seconds_ns = month and self._calendar.without_year(
            month, int(day), int(clock[:2]), int(clock[3:5]), int(clock[6:8])
        )
        return None if not seconds_ns else seconds_ns + int(clock[9:].ljust(9, b"0"))

    def _origin(self, host: bytes | None) -> Origin:
        if host is None:
            return UNKNOWN_ORIGIN
        if host != self._host:
            self._host = host
            self._host_origin = Origin(host.decode("utf-8", "backslashreplace") if host != b"-" else None)
        return self._host_origin


def _is_kernel(priority: bytes | None, facility: bytes | None) -> bool:
    """Whether the kernel wrote a line with this syslog priority or facility, if either is given."""
    return not (priority and int(priority) > _KERNEL_PRIORITY_MAX) and not (facility and facility != b"kern")


def unescape(text: bytes) -> bytes:
    r"""Replace each ``\xNN`` by its byte."""
    return _ESCAPE.sub(lambda match: bytes((int(match[1], 16),)), text) if _BACKSLASH in text else text
