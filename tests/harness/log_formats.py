# SPDX-License-Identifier: Apache-2.0
"""Renders kernel log lines in the formats of the programs that show or store them."""

import json
import time
from collections.abc import Callable, Iterable

from tracer.logs.log_line import LogLine

BOOT_NS = 1_795_500_000 * 1_000_000_000
"""Time of boot: 2026-11-24T06:00:00Z."""
BOOT_ID = "6a4ce4a0ba4711eab2a70cc47ac5979e"
HOST = "node-1"

Render = Callable[[Iterable[LogLine]], bytes]


def _printable(text: bytes) -> bytes:
    return b"".join(bytes((byte,)) if 32 <= byte < 127 or byte == 10 else b"\\x%02x" % byte for byte in text)


def _seconds(line: LogLine) -> bytes:
    return b"%5d.%06d" % divmod((line.time_ns or 0) // 1000, 1_000_000)


def _wall(line: LogLine, form: str) -> bytes:
    return time.strftime(form, time.gmtime((BOOT_NS + (line.time_ns or 0)) // 10**9)).encode()


def _micro(line: LogLine) -> bytes:
    return b"%06d" % ((BOOT_NS + (line.time_ns or 0)) // 1000 % 1_000_000)


def _indented(prefix: Callable[[LogLine], bytes], spell: Callable[[bytes], bytes] = _printable) -> Render:
    """A prefix before each line, and as many spaces before its continuation lines."""

    def render(lines: Iterable[LogLine]) -> bytes:
        rendered = []
        for line in lines:
            head = prefix(line)
            rendered.append(head + spell(line.text).replace(b"\n", b"\n" + b" " * len(head)) + b"\n")
        return b"".join(rendered)

    return render


def _repeated(prefix: Callable[[LogLine], bytes]) -> Render:
    """A prefix before each line and its continuation lines."""

    def render(lines: Iterable[LogLine]) -> bytes:
        return b"".join(
            prefix(line) + part + b"\n" for line in lines for part in line.text.split(b"\n")
        )  # fmt: skip

    return render


def _kmsg(lines: Iterable[LogLine]) -> bytes:
    rendered = []
    for number, line in enumerate(lines):
        text = b"".join(bytes((b,)) if 32 <= b < 127 and b != 92 else b"\\x%02x" % b for b in line.text)
        rendered.append(b"3,%d,%d,-,caller=T7;%s\n SUBSYSTEM=x\n" % (number, (line.time_ns or 0) // 1000, text))
    return b"".join(rendered)


def _dmesg_json(lines: Iterable[LogLine]) -> bytes:
    objects = []
    for line in lines:
        message = json.dumps(line.text.decode("utf-8", "surrogateescape"), ensure_ascii=False)
        objects.append(
            b'{\n         "pri": 3,\n         "time": %s,\n         "msg": %s\n      }'
            % (_seconds(line).rjust(12), message.encode("utf-8", "surrogateescape"))
        )
    return b'{\n   "dmesg": [\n      ' + b",".join(objects) + b"\n   ]\n}\n"


def _fields(line: LogLine) -> dict[str, str]:
    monotonic_us = (line.time_ns or 0) // 1000
    return {
        "__CURSOR": "s=1;i=1",
        "__REALTIME_TIMESTAMP": str(BOOT_NS // 1000 + monotonic_us),
        "__MONOTONIC_TIMESTAMP": str(monotonic_us + 5000),
        "_BOOT_ID": BOOT_ID,
        "_HOSTNAME": HOST,
        "PRIORITY": "3",
        "SYSLOG_FACILITY": "0",
        "SYSLOG_IDENTIFIER": "kernel",
        "_TRANSPORT": "kernel",
        "_SOURCE_MONOTONIC_TIMESTAMP": str(monotonic_us),
    }


def entry(fields: dict[str, str], text: bytes) -> bytes:
    """A line of ``journalctl -o json``."""
    is_text = all(byte >= 32 or byte in (9, 10) for byte in text)
    try:
        message: str | list[int] = text.decode() if is_text else list(text)
    except UnicodeDecodeError:
        message = list(text)
    return json.dumps({**fields, "MESSAGE": message}, separators=(",", ":")).encode() + b"\n"


def export(fields: dict[str, str], text: bytes) -> bytes:
    """An entry of ``journalctl -o export``."""
    head = b"".join(f"{name}={value}\n".encode() for name, value in fields.items())
    if b"\n" in text or any(byte < 32 or byte > 126 for byte in text):
        return head + b"MESSAGE\n" + len(text).to_bytes(8, "little") + text + b"\n\n"
    return head + b"MESSAGE=" + text + b"\n\n"


def _journal(spell: Callable[[dict[str, str], bytes], bytes]) -> Render:
    return lambda lines: b"".join(spell(_fields(line), line.text) for line in lines)


WHOLE: dict[str, Render] = {
    "dmesg": _indented(lambda line: b"[%s] " % _seconds(line)),
    "dmesg with caller": _indented(lambda line: b"[%s][  T123] " % _seconds(line)),
    "dmesg with spaced caller": _indented(lambda line: b"[%s] [ T123] " % _seconds(line)),
    "dmesg -x": _indented(lambda line: b"kern  :err   : [%s] " % _seconds(line)),
    "dmesg -d": _indented(lambda line: b"[%s <    0.000001>] " % _seconds(line)),
    "dmesg -T": _indented(lambda line: b"[%s] " % _wall(line, "%a %b %e %H:%M:%S %Y")),
    "dmesg -x -T": _indented(lambda line: b"kern  :err   : [%s] " % _wall(line, "%a %b %e %H:%M:%S %Y")),
    "dmesg iso": _indented(lambda line: b"%s,%s+00:00 " % (_wall(line, "%Y-%m-%dT%H:%M:%S"), _micro(line))),
    "dmesg -J": _dmesg_json,
    "/dev/kmsg": _kmsg,
    "journal json": _journal(entry),
    "journal export": _journal(export),
    "journal short": _indented(lambda line: b"%s node-1 kernel: " % _wall(line, "%b %d %H:%M:%S"), bytes),
    "journal short-precise": _indented(
        lambda line: b"%s.%s node-1 kernel: " % (_wall(line, "%b %d %H:%M:%S"), _micro(line)), bytes
    ),
    "journal short-iso": _indented(lambda line: b"%s+0000 node-1 kernel: " % _wall(line, "%Y-%m-%dT%H:%M:%S"), bytes),
    "journal short-full": _indented(
        lambda line: b"%s UTC node-1 kernel: " % _wall(line, "%a %Y-%m-%d %H:%M:%S"), bytes
    ),
    "journal short-monotonic": _indented(lambda line: b"[%s] node-1 kernel: " % _seconds(line), bytes),
    "journal short-unix": _indented(
        lambda line: b"%d.%s node-1 kernel: " % ((BOOT_NS + (line.time_ns or 0)) // 10**9, _micro(line)), bytes
    ),
}
"""Formats that keep records complete."""
SPLIT: dict[str, Render] = {
    "dmesg -r": _repeated(lambda line: b"<3>[%s] " % _seconds(line)),
    "rsyslog": _repeated(lambda line: b"%s node-1 kernel: [%s] " % (_wall(line, "%b %e %H:%M:%S"), _seconds(line))),
    "rsyslog without uptime": _repeated(lambda line: b"%s node-1 kernel: " % _wall(line, "%b %e %H:%M:%S")),
    "rsyslog, RFC 3339": _repeated(
        lambda line: (
            b"%s.%s+00:00 node-1 kernel: [%s] " % (_wall(line, "%Y-%m-%dT%H:%M:%S"), _micro(line), _seconds(line))
        )
    ),
    "RFC 5424": _repeated(
        lambda line: (
            b"<3>1 %s.%sZ node-1 kernel - - - [%s] " % (_wall(line, "%Y-%m-%dT%H:%M:%S"), _micro(line), _seconds(line))
        )
    ),
    "busybox": _repeated(
        lambda line: b"%s node-1 kern.err kernel: [%s] " % (_wall(line, "%b %e %H:%M:%S"), _seconds(line))
    ),
}
"""Formats that split records at newlines."""


def _levels(forms: tuple[bytes, bytes]) -> Callable[[LogLine], bytes]:
    """A prefix with a level that differs within a report."""
    return lambda line: forms[line.text[:1] in (b"[", b" ")]


def _relative(lines: Iterable[LogLine]) -> bytes:
    minutes = [b""]

    def prefix(line: LogLine) -> bytes:
        minutes.append(_wall(line, "%b%d %H:%M"))
        return b"[%s] " % (minutes[-1] if minutes[-1] != minutes[-2] else b"  +0.000010")

    return _indented(prefix)(lines)


def _docker(lines: Iterable[LogLine]) -> bytes:
    texts = (f"[{_seconds(line).decode()}] {line.text.decode('utf-8', 'replace')}\n" for line in lines)
    return b"".join(
        json.dumps({"log": text, "stream": "stdout", "time": "2024-06-18T07:44:52.123456789Z"}).encode() + b"\n"
        for text in texts
    )


def _google(lines: Iterable[LogLine]) -> bytes:
    rendered = []
    for line in lines:
        fields = {key: value for key, value in _fields(line).items() if not key.startswith("__")}
        payload = {**fields, "MESSAGE": line.text.decode("utf-8", "replace")}
        stamp = f"{_wall(line, '%Y-%m-%dT%H:%M:%S').decode()}.{_micro(line).decode()}Z"
        rendered.append(json.dumps({"insertId": "x", "jsonPayload": payload, "timestamp": stamp}).encode() + b"\n")
    return b"".join(rendered)


_RSYSLOG = SPLIT["rsyslog"]
_CONSOLE = _repeated(lambda line: b"[%s] " % _seconds(line))
_STAMP = b"2024-06-18T07:44:52.1234567Z "
FORMS: dict[str, Render] = {
    "bare": _repeated(lambda _: b""),
    "kernel only": _repeated(lambda line: b"kernel: [%s] " % _seconds(line)),
    "kernel only, no uptime": _repeated(lambda _: b"kernel: "),
    "quoted": _repeated(lambda line: b"> [%s] " % _seconds(line)),
    "quoted, bare": _repeated(lambda _: b"> "),
    "indented": _repeated(lambda line: b"    [%s] " % _seconds(line)),
    "indented by tabs, bare": _repeated(lambda _: b"\t\t"),
    "compose": _repeated(lambda line: b"watch-1  | [%s] " % _seconds(line)),
    "kubelet, dmesg": _repeated(lambda line: b"%sstdout F [%s] " % (_STAMP, _seconds(line))),
    "kubelet, /dev/kmsg": _repeated(lambda line: b"%sstdout F 4,7,%d,-;" % (_STAMP, (line.time_ns or 0) // 1000)),
    "kubelet, bare": _repeated(lambda _: _STAMP + b"stderr F "),
    "build log": _repeated(lambda line: b"%s[%s] " % (_STAMP, _seconds(line))),
    "build log of dmesg -T": _repeated(lambda line: b"%s[%s] " % (_STAMP, _wall(line, "%a %b %e %H:%M:%S %Y"))),
    "build log of journalctl": _repeated(
        lambda line: b"%s%s node-1 kernel: " % (_STAMP, _wall(line, "%b %d %H:%M:%S"))
    ),
    "pstore": lambda lines: b"Panic#1 Part1\n" + SPLIT["dmesg -r"](lines),
    "VMware": _repeated(lambda line: b"%sIn(05) vcpu-5 - Guest: <4>[%s] " % (_STAMP, _seconds(line))),
    "netconsole": _repeated(lambda line: b"%s192.0.2.5 [%s] " % (_STAMP, _seconds(line))),
    "CloudWatch": _repeated(lambda line: b"2024-06-18T07:44:52.123000+00:00 i-0abc/kern [%s] " % _seconds(line)),
    "logcli": _repeated(lambda line: b'2024-06-18T07:44:52Z {host="a", job="k"} [%s] ' % _seconds(line)),
    "dmesg -e": _relative,
    "Talos": _repeated(
        lambda line: (
            b"192.0.2.9: kern: %s: [%s.%s000Z]: "
            % (_levels((b"warning", b"   info"))(line), _wall(line, "%Y-%m-%dT%H:%M:%S"), _micro(line))
        )
    ),
    "OpenWrt": _repeated(
        lambda line: (
            b"%s kern.%s kernel: [%s] "
            % (_wall(line, "%a %b %e %H:%M:%S %Y"), _levels((b"warn", b"info"))(line), _seconds(line))
        )
    ),
    "levels": _repeated(lambda line: b"console %s " % _levels((b"warn", b"info"))(line)),
    "grep -n": lambda lines: b"".join(
        b"%d:%s" % (number, line) for number, line in enumerate(_RSYSLOG(lines).splitlines(keepends=True), 98)
    ),
    "grep -H": lambda lines: b"".join(
        b"/var/log/kern.log:" + line for line in _RSYSLOG(lines).splitlines(keepends=True)
    ),
    "color": lambda lines: b"".join(
        b"\x1b[32m[%s] \x1b[0m\x1b[33m%s\x1b[0m\n" % (_seconds(line), part)
        for line in lines
        for part in line.text.split(b"\n")
    ),
    "serial console": lambda lines: _CONSOLE(lines).replace(b"\n", b"\r\r\n"),
    "console, CR in front": lambda lines: _CONSOLE(lines).replace(b"\n", b"\n\r"),
    "dmesg, CR CR LF": lambda lines: WHOLE["dmesg"](lines).replace(b"\n", b"\r\r\n"),
    "padded": lambda lines: WHOLE["dmesg"](lines).replace(b"\n", b"      \n"),
    "one blank before the day": lambda lines: _RSYSLOG(lines).replace(b"Nov 24", b"Nov 4"),
    "host taken out": lambda lines: _RSYSLOG(lines).replace(b" node-1 ", b"  "),
    "Docker's json-file": _docker,
    "Google Cloud": _google,
}
"""Formats of collectors and of pasted logs, with a prefix per line."""
