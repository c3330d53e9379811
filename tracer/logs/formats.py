# SPDX-License-Identifier: Apache-2.0
r"""Lines of logs in known formats -> the kernel's lines in them.

dmesg (raw, -r, -x, -d, -e, -H, -T, --time-format=iso), text of /dev/kmsg, what rsyslog, syslog-ng, busybox and
OpenWrt write (RFC 3164 and RFC 5424), journalctl's text, and Talos.  Which one it is shows in each line; the one before
is tried first.  Lines that somebody else wrote are left out where the format tells: by facility, by the name in front
of the colon.

dmesg spells bytes that cannot be printed as ``\xNN``, and indents what follows a newline in a record, as
journalctl does.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from tracer.logs.dmesg_json import DmesgObject
from tracer.logs.journal import read_json
from tracer.logs.oom_lines import DROPPED_LINE, MISSED, LogLine
from tracer.logs.oom_report import SKIPPED, is_relevant
from tracer.logs.same_prefix import LinePrefix
from tracer.logs.times import Calendar, digits_ns, month_of


class Origin(NamedTuple):
    """Who wrote a line, as far as the log tells."""

    host: str | None = None
    boot_id: str | None = None


Sourced = tuple[LogLine, Origin]
NOWHERE = Origin()

_CALLER = rb"(?: ?\[ *([TC]\d{1,10})\])? ?"
_PRIORITY = rb"(?:<(\d{1,3})>|([a-z0-9]{1,9}) *:[a-z]{1,9} *: ?)?"
_UPTIME = rb"\[ *(\d{1,12})\.(?P<microseconds>\d{6})(?: +<[^>]{0,40}>)?\]" + _CALLER
_DMESG = re.compile(_PRIORITY + _UPTIME + SKIPPED)
_BY_HOST = rb"(?:(?!kernel:)(\S{1,255})(?<!:) )?"
"""``journalctl --no-hostname`` and ``syslogd -S`` of busybox leave it out; what ends with a colon is a program."""
_HOST = re.compile(_BY_HOST + rb"kernel: ")
"""What follows in journalctl's short-monotonic."""
_WORD = rb"[A-Za-z0-9.\x80-\xff]{2,24}"
"""The name of a day or a month, in whatever language."""
_DMESG_CTIME = re.compile(
    _PRIORITY + rb"\[(" + _WORD + rb" +" + _WORD + rb" +\d{1,2} \d\d:\d\d:\d\d \d{4})\]" + _CALLER
)
_DMESG_ISO = re.compile(_PRIORITY + rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{6}[+-]\d\d:\d\d)" + _CALLER)
_DMESG_RELATIVE = re.compile(
    _PRIORITY + rb"\[(\d{0,2}[^\d\s\]]{1,20} ?\d\d \d\d:\d\d| {0,5}[+-]\d{1,6}\.\d{6})\]" + _CALLER
)
"""dmesg -e and -H: the minute where it changes, else the time since the line before."""
_TALOS = re.compile(
    rb"(?:(\S{1,255}): )?([a-z0-9]{1,9}): +[a-z]{1,9}: \[(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z)\]: "
)
_LOGREAD = re.compile(
    rb"([A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}) ([a-z0-9]{1,9})\.[a-z]{1,9} "
    rb"(?:(kernel): ?(?:" + _UPTIME + rb")?|\S)"
)
"""OpenWrt's."""
_KMSG = re.compile(rb"(\d{1,5}),(\d{1,20}),(\d{1,18}),([^;\n]*);")
_KMSG_GOES_ON = re.compile(rb"\d{1,5},\d{1,20},\d{1,18},c[^;\n]*;")
_KMSG_RECORD_BYTES = 2048
"""So much does /dev/kmsg give of a longer record since 6.4 (PRINTK_MESSAGE_MAX), without the newline at its end."""
_SYSLOG = re.compile(
    rb"(?:<(\d{1,3})>)?"
    rb"(?P<stamp>[A-Z][a-z]{2} [ \d]?\d \d\d:\d\d:\d\d(?:\.\d{1,9})?"  # RFC 3164; journalctl's short, short-precise
    rb"|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?"  # RFC 3339; short-iso
    rb"|[A-Z][a-z]{2} \d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,9})? [A-Za-z0-9+:-]{1,9}"  # short-full
    rb"|\d{9,11}\.\d{6}"  # short-unix
    rb"|" + _WORD + rb" [ \d]?\d \d\d:\d\d:\d\d(?:\.\d{1,9})?)"  # as the first, in another language
    rb"  ?" + _BY_HOST + rb"(?:([a-z0-9]{1,9})\.[a-z]{1,9} )?"  # two blanks: somebody has taken the host out
    rb"(?:(kernel): ?(?:" + _UPTIME + rb")?" + SKIPPED + rb"|[^\s\[])"  # journalctl's verbose has a bracket there
)
_RFC5424 = re.compile(
    rb"<(\d{1,3})>1 (\S{1,40}) (\S{1,255}) (\S{1,48}) \S{1,128} \S{1,32} "
    rb"(?:-|(?:\[(?:[^\\\]]|\\.){0,4096}\])+)(?:  ?(?:\xef\xbb\xbf)?|$)"
)
"""rsyslog keeps a space in front of what came by the older protocol."""
COLLECTED = re.compile(
    rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)? "
    rb"(?:std(?:out|err) [FP] |\{[^{}]{0,512}\} |[A-Z][a-z]\(\d\d\) \S{1,40} - "
    rb"|(?:\S{1,255} )?(?:<\d{1,3}>)?\[ *(?:\d{1,12}\.\d{6}\]|\S{2,24} +\S{2,24} +\d{1,2} \d\d:)"
    rb"|[A-Z][a-z]{2} [ \d]?\d \d\d:\d\d:\d\d |\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)"
)
"""What a collector put in front of somebody's line: the kubelet's log of a container, Loki's labels, a build's log,
netconsole, a virtual machine's console.  By the time alone it looks like syslog's, of a program that is called so."""
_MISSED = re.compile(rb"systemd-journald(?:\[\d{1,10}\])?: " + MISSED.pattern)
_STAMP = re.compile(_UPTIME)
_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")
_BACKSLASH = 92
_FRACTION = re.compile(rb"(?<=:\d\d\.)\d+")

Read = Callable[[bytes], Sourced | bool]


class LineFormats:
    """The known formats; line_reader.py reads with them."""

    def __init__(self, calendar: Calendar) -> None:
        self._calendar = calendar
        self._readers: list[Read] = [
            self._dmesg, self._syslog, self._journal, self._dmesg_ctime, self._rfc5424, self._kmsg, self._dmesg_iso,
            self._talos, self._logread, self._dmesg_relative, self._dmesg_json,
        ]  # fmt: skip
        self._object = DmesgObject(calendar)
        self._is_padded = False
        """Whether blanks stand behind each line."""
        self.indent = 0
        """How far lines are indented in which the record goes on that was read last; 0: it does not."""
        self._match: re.Match[bytes] | None = None
        """Of the line that was read last, if its text is what stands in the log."""
        self._host: bytes | None = None
        self._origin = NOWHERE
        self._stamp = b""
        self._stamp_ns: int | None = None

    def _try_others(self, raw: bytes) -> Sourced | bool:
        for number, read in enumerate(self._readers):
            if number and (found := read(raw)) is not False:
                self._readers.insert(0, self._readers.pop(number))
                return found
        return False

    def prefix(self) -> LinePrefix | None:
        """That of the line that was read last; None: in its format lines have to be read one by one."""
        match, fractions = self._match, []
        if match is None or self._is_padded:
            return None
        raw = match.string
        if match.re is _SYSLOG and (stamp := _FRACTION.search(raw, *match.span("stamp"))) is not None:
            fractions.append(stamp.span())
        has_uptime = match["microseconds"] is not None
        if has_uptime:
            fractions.append(match.span("microseconds"))
        return LinePrefix(raw, fractions, self.indent, has_uptime)

    def _dmesg(self, raw: bytes) -> Sourced | bool:
        match = _DMESG.match(raw)
        if match is None:
            return False
        priority, facility, seconds, microseconds, caller, unread = match.groups()
        if (priority and int(priority) > 7) or (facility and facility != b"kern"):
            self.indent = 0
            return True
        if unread is not None and not is_relevant(raw):
            self.indent = 0
            return True
        end = self.indent = match.end() if unread is None else match.start(6)
        text, time_ns = raw[end:], int(seconds + microseconds) * 1000
        if text.find(b"kernel: ") >= 0 and (match := _HOST.match(text)) is not None:
            self.indent += match.end()
            return LogLine(text[match.end() :], time_ns, "printk", caller), self._from(match[1])
        if _BACKSLASH in text:
            return LogLine(unescape(text), time_ns, "printk", caller), NOWHERE
        self._match = match
        return LogLine(text, time_ns, "printk", caller), NOWHERE

    def _dmesg_ctime(self, raw: bytes) -> Sourced | bool:
        match = _DMESG_CTIME.match(raw)
        if match is None:
            return False
        if match[3] != self._stamp:
            self._stamp, self._stamp_ns = match[3], self._calendar.ctime(match[3])
        return self._dmesg_at_wall(raw, match)

    def _dmesg_iso(self, raw: bytes) -> Sourced | bool:
        match = _DMESG_ISO.match(raw)
        if match is None:
            return False
        self._stamp, self._stamp_ns = match[3], self._calendar.iso(match[3])
        return self._dmesg_at_wall(raw, match)

    def _dmesg_relative(self, raw: bytes) -> Sourced | bool:
        match = _DMESG_RELATIVE.match(raw)
        if match is None:
            return False
        self._stamp, self._stamp_ns = match[3], None
        return self._dmesg_at_wall(raw, match)

    def _dmesg_at_wall(self, raw: bytes, match: re.Match[bytes]) -> Sourced | bool:
        self.indent = match.end()
        if (match[1] and int(match[1]) > 7) or (match[2] and match[2] != b"kern"):
            self.indent = 0
            return True
        return self._at_stamp(unescape(raw[match.end() :]), match[4]), NOWHERE

    def _kmsg(self, raw: bytes) -> Sourced | bool:
        match = _KMSG.match(raw)
        if match is None:
            return False
        self.indent = 0  # what is indented are properties
        if int(match[1]) > 7:
            return True
        caller = next((each[7:] for each in match[4].split(b",") if each.startswith(b"caller=")), None)
        if len(raw) > _KMSG_RECORD_BYTES and (cut := _KMSG_GOES_ON.match(raw, _KMSG_RECORD_BYTES)) is not None:
            raw = raw[:_KMSG_RECORD_BYTES] + raw[cut.end() :]
        return LogLine(unescape(raw[match.end() :]), int(match[3]) * 1000, "printk", caller), NOWHERE

    def _syslog(self, raw: bytes) -> Sourced | bool:
        match = _SYSLOG.match(raw)
        if match is None:
            return False
        priority, stamp, host, facility, kernel, seconds, microseconds, caller, unread = match.groups()
        self.indent = 0
        if unread is not None and not is_relevant(raw):
            return True
        if kernel is None and (missed := _MISSED.fullmatch(raw, match.end() - 1)) is not None:
            return LogLine(DROPPED_LINE % int(missed[1])), self._from(host)
        if kernel is None or (priority and int(priority) > 7) or (facility and facility != b"kern"):
            return kernel is not None or COLLECTED.match(raw) is None
        if stamp != self._stamp:
            self._stamp, self._stamp_ns = stamp, self._read_stamp(stamp)
        self._match = match
        end = self.indent = match.end() if unread is None else match.start(9)
        if seconds is None:
            return self._at_stamp(raw[end:], None), self._from(host)
        time_ns = int(seconds + microseconds) * 1000  # more exact
        return LogLine(raw[end:], time_ns, "printk", caller, self._stamp_ns), self._from(host)

    def _rfc5424(self, raw: bytes) -> Sourced | bool:
        match = _RFC5424.match(raw)
        if match is None:
            return False
        self.indent = 0
        priority, stamp, host, program = match.groups()
        if program == b"systemd-journald" and (missed := MISSED.fullmatch(raw, match.end())) is not None:
            return LogLine(DROPPED_LINE % int(missed[1])), self._from(host)
        if int(priority) > 7 or program != b"kernel":
            return True
        if stamp != self._stamp:
            self._stamp, self._stamp_ns = stamp, self._calendar.iso(stamp)
        return self._stamped(raw[match.end() :]), self._from(host)

    def _talos(self, raw: bytes) -> Sourced | bool:
        match = _TALOS.match(raw)
        if match is None:
            return False
        self.indent = 0
        host, facility, stamp = match.groups()
        if facility != b"kern":
            return True
        if stamp != self._stamp:
            self._stamp, self._stamp_ns = stamp, self._calendar.iso(stamp)
        return self._at_stamp(raw[match.end() :], None), self._from(host)

    def _logread(self, raw: bytes) -> Sourced | bool:
        match = _LOGREAD.match(raw)
        if match is None:
            return False
        self.indent = 0
        stamp, facility, kernel, seconds, microseconds, caller = match.groups()
        if kernel is None or facility != b"kern":
            return True
        if stamp != self._stamp:
            self._stamp, self._stamp_ns = stamp, self._calendar.ctime(stamp)
        text = raw[match.end() :]
        if seconds is None:
            return self._at_stamp(text, None), NOWHERE
        return LogLine(text, int(seconds + microseconds) * 1000, "printk", caller, self._stamp_ns), NOWHERE

    def _dmesg_json(self, raw: bytes) -> Sourced | bool:
        found = self._object.read(raw)
        if isinstance(found, bool):
            return found
        self.indent = 0
        return found, NOWHERE

    def _stamped(self, text: bytes) -> LogLine:
        """A line with the wall clock's time in front of it, and perhaps printk's in it, which is more exact."""
        if text[:1] == b"[" and (match := _STAMP.match(text)) is not None:
            time_ns = int(match[1] + match[2]) * 1000
            return LogLine(text[match.end() :], time_ns, "printk", match[3], self._stamp_ns)
        return self._at_stamp(text, None)

    def _at_stamp(self, text: bytes, caller: bytes | None) -> LogLine:
        if self._stamp_ns is None:
            return LogLine(text, digits_ns(self._stamp), "unknown", caller)
        return LogLine(text, self._stamp_ns, "realtime", caller, self._stamp_ns)

    def _journal(self, raw: bytes) -> Sourced | bool:
        if raw[:1] != b"{" or raw[-1:] != b"}":
            return False
        found = read_json(raw)
        self.indent = 0
        return found if isinstance(found, bool) else (found[0], Origin(*found[1:]))

    def _read_stamp(self, stamp: bytes) -> int | None:
        if stamp[:1].isdigit():
            if stamp[4:5] == b"-":
                return self._calendar.iso(stamp)
            if b" " not in stamp:
                return int(stamp.replace(b".", b"")) * 1000
        if stamp[3:4] == b" " and stamp[8:9] == b"-":  # of a zone's name only UTC is one zone's
            day, clock, zone = stamp[4:].split(b" ")
            return self._calendar.iso(day + b" " + clock + (b"" if zone.isalpha() and zone != b"UTC" else zone))
        name, day, clock = stamp.split()
        month = month_of(name)
        seconds_ns = month and self._calendar.without_year(
            month, int(day), int(clock[:2]), int(clock[3:5]), int(clock[6:8])
        )
        return None if not seconds_ns else seconds_ns + int(clock[9:].ljust(9, b"0"))

    def _from(self, host: bytes | None) -> Origin:
        if host is None:
            return NOWHERE
        if host != self._host:
            self._host = host
            self._origin = Origin(host.decode("utf-8", "backslashreplace") if host != b"-" else None)
        return self._origin


def unescape(text: bytes) -> bytes:
    return _ESCAPE.sub(lambda match: bytes((int(match[1], 16),)), text) if _BACKSLASH in text else text
