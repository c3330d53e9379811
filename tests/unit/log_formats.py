# SPDX-License-Identifier: Apache-2.0
"""Lines of the kernel, spelled as the programs spell them that show or store them."""

import json
import time
from collections.abc import Callable, Iterable

from tracer.logs.oom_lines import LogLine

BOOT_NS = 1_795_500_000 * 1_000_000_000
"""When the host booted: 2026-11-24T06:00:00Z."""
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
    """Each line has this in front of it, and what follows a newline in it as many spaces."""

    def render(lines: Iterable[LogLine]) -> bytes:
        rendered = []
        for line in lines:
            head = prefix(line)
            rendered.append(head + spell(line.text).replace(b"\n", b"\n" + b" " * len(head)) + b"\n")
        return b"".join(rendered)

    return render


def _repeated(prefix: Callable[[LogLine], bytes]) -> Render:
    """Each line, and what follows a newline in it, has this in front of it."""

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
"""Formats that lose nothing of a record."""
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
"""Formats that make lines of what follows a newline in a record."""
