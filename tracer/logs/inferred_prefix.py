# SPDX-License-Identifier: Apache-2.0
"""Infers the prefix of the kernel's text in a file of no known format from the lines of the file.

Pastes and collectors put anything in front: ``> ``, ``node | ``, a timestamp, a line number, a JSON object around the
line.  The words with which the kernel begins its lines show where the prefix ends, and all lines of a report share it.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import orjson

from tracer.logs.log_line import FormatReader

FindFormat = Callable[[bytes, int], FormatReader | None]
"""Called with a line and the position of the kernel's text; gives the known format that finds the text there, or None.
"""

_REPORT_LINE = re.compile(
    rb"(?:Memory cgroup out of memory|Out of [Mm]emory(?: \(oom_kill_allocating_task\))?|No available memory[^:]{0,20})"
    rb": [Kk]ill(?:ed)? process \d"
    rb"|Killed process \d{1,10}[, ]"
    rb"|oom-kill:constraint=CONSTRAINT_"
    rb"|oom_reaper: reaped process \d"
    rb"|CPU: \d{1,5} (?:UID: \d{1,10} )?PID: \d{1,10} Comm: "
    rb"|Pid: \d{1,10}, comm: "
    rb"|Mem-Info:|Call Trace:$"
    rb"|Tasks state \(memory values in pages\):"
    rb"|\[ {1,2}pid {1,2}\] +uid +tgid total_vm "
    rb"|Tasks? in /"
    rb"|Memory cgroup stats for /"
    rb"|memory: usage \d{1,20}kB, limit \d"
)
"""The begins of those lines of a report that can begin nowhere else; a comm stands in front of ``invoked``."""
_TOKENS = re.compile(
    rb"(?P<age>(?<![A-Za-z0-9])(?:\d+[smhd])+(?![A-Za-z0-9]))|(?P<fraction>(?<=\d)[.,]\d+)|(?P<number>\d+)"
    rb"|(?P<word>[A-Za-z]+)|(?P<blank>[ \t]+)|(?P<other>.)",
    re.DOTALL,
)
_DATE_WORDS = frozenset(b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec Mon Tue Wed Thu Fri Sat Sun".split())
_LEVELS = frozenset(
    b"emerg alert crit critical err error warn warning notice info debug".split()
)  # these vary between the lines of a report
_NODE_PROBLEM_EVENT = re.compile(
    rb" *(?:\S+ +){0,8}Warning +OOMKilling +(?:\S+ +){1,4}?(?=" + _REPORT_LINE.pattern + rb")"
)
"""An event of Kubernetes' node-problem-detector, as kubectl prints it."""
_LONGEST_PREFIX_BYTES = 300
_MESSAGE_FIELDS = frozenset(
    ("message", "msg", "log", "textpayload", "line", "text", "body", "@message", "content", "data")
)
_PROGRAM_FIELDS = frozenset(
    ("syslog_identifier", "ident", "identifier", "program", "programname", "appname", "app-name", "app_name")
)
"""Fields that name the program that wrote a message."""
_MOST_DEPTH = 3


class InferredPrefix(NamedTuple):
    """The prefix of the lines of a file."""

    pattern: bytes
    """A regular expression."""
    format: FormatReader | None
    """The known format of the rest of the line; None: the rest is the kernel's bare text."""
    path: tuple[str, ...] = ()
    """The field of a JSON object that contains the line; empty: there is no object around it."""


def infer_prefix(line: bytes, find_format: FindFormat) -> InferredPrefix | None:
    """The prefix of a line of a report; None if the line does not show it."""
    if line[:1] == b"{":
        for path, text in _messages(line):
            if (prefix := _infer_from_text(text, find_format, 0)) is not None:
                return prefix._replace(path=path)
        return None
    return _infer_from_text(line, find_format, 1)  # at 0 the line would be in a known format


def _infer_from_text(line: bytes, find_format: FindFormat, first: int) -> InferredPrefix | None:
    match = _REPORT_LINE.search(line, 0, _LONGEST_PREFIX_BYTES + 64)
    if match is None or match.start() > _LONGEST_PREFIX_BYTES:
        return None
    if (event := _NODE_PROBLEM_EVENT.match(line)) is not None and event.end() == match.start():
        return InferredPrefix(_NODE_PROBLEM_EVENT.pattern, None)
    end = match.start()
    for at in range(first, end):
        if at == 0 or not line[at - 1 : at].isalnum():
            known_format = find_format(line[at:], end - at)
            if known_format is not None:
                return InferredPrefix(_generalize(line[:at]), known_format)
    if line[end - 1 : end] == b'"':  # a string in a structure of several lines
        return None
    return InferredPrefix(_generalize(line[:end]), None)


def _generalize(prefix: bytes) -> bytes:
    """A pattern that matches the prefixes of other lines: numbers, days, months and levels vary."""
    parts = []
    for match in _TOKENS.finditer(prefix):
        kind, token = match.lastgroup, match[0]
        if kind == "age":
            parts.append(rb"(?:\d+[smhd])+")
        elif kind == "fraction":
            parts.append(rb"(?:[.,]\d+)?")
        elif kind == "number":
            parts.append(rb"\d+")
        elif kind == "word" and (token in _DATE_WORDS or token.lower() in _LEVELS):
            parts.append(rb"[A-Za-z]+")
        elif kind == "blank" and match.end() < len(prefix):
            parts.append(rb"[ \t]+")
        else:  # the last blanks are kept as they are: the text may begin with others
            parts.append(re.escape(token))
    return b"".join(parts)


def read_message_field(line: bytes, path: tuple[str, ...]) -> bytes | None:
    """The text of a field of a JSON object; None if there is no such field, or if the object names a program."""
    return next((text for each, text in _messages(line) if each == path), None)


def _messages(line: bytes) -> Iterator[tuple[tuple[str, ...], bytes]]:
    """The message fields of a JSON object, and their texts."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return
    yield from _messages_below(value, ())


def _messages_below(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], bytes]]:
    if not isinstance(value, dict) or len(path) > _MOST_DEPTH:
        return
    for name, each in value.items():
        if name.lower() in _PROGRAM_FIELDS and isinstance(each, str) and each not in ("kernel", "kern", "kmsg"):
            return
    for name, each in value.items():
        if isinstance(each, str) and name.lower() in _MESSAGE_FIELDS:
            yield (*path, name), each.encode("utf-8", "surrogatepass").rstrip(b"\r\n")
        else:
            yield from _messages_below(each, (*path, name))
