# SPDX-License-Identifier: Apache-2.0
"""What stands in front of the kernel's words in a file of no known format, learnt from the file itself.

Pastes and collectors put anything there: ``> ``, ``node | ``, a time stamp, the number of the line, a JSON object
around it.  The words with which the kernel begins its lines show where that ends, and the lines of a report agree.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import orjson

TextStart = Callable[[bytes, int], str | None]
"""The known format in which a line is the kernel's, whose text begins there; None: there is none."""

_BEGINS = re.compile(
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
"""How lines of a report begin that can begin nowhere else; in front of ``invoked`` stands a name."""
_TOKENS = re.compile(
    rb"(?P<age>(?<![A-Za-z0-9])(?:\d+[smhd])+(?![A-Za-z0-9]))|(?P<fraction>(?<=\d)[.,]\d+)|(?P<number>\d+)"
    rb"|(?P<word>[A-Za-z]+)|(?P<blank>[ \t]+)|(?P<other>.)",
    re.DOTALL,
)
_DATE_WORDS = frozenset(b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec Mon Tue Wed Thu Fri Sat Sun".split())
_LEVELS = frozenset(
    b"emerg alert crit critical err error warn warning notice info debug".split()
)  # which differ from line to line of a report
_EVENT = re.compile(rb" *(?:\S+ +){0,8}Warning +OOMKilling +(?:\S+ +){1,4}?(?=" + _BEGINS.pattern + rb")")
"""An event of Kubernetes' node-problem-detector, as kubectl shows it."""
_LONGEST = 300
_MESSAGES = frozenset(("message", "msg", "log", "textpayload", "line", "text", "body", "@message", "content", "data"))
_WRITERS = frozenset(
    ("syslog_identifier", "ident", "identifier", "program", "programname", "appname", "app-name", "app_name")
)
"""Fields that name the program that wrote a message."""
_MOST_DEPTH = 3


class InferredPrefix(NamedTuple):
    """What stands in front of each line's text, and what that is."""

    prefix: bytes
    """A regular expression."""
    format: str | None
    """The known format in which the rest of the line is; None: it is the kernel's bare text."""
    path: tuple[str, ...] = ()
    """The field of a JSON object that the line is in; empty: it is the whole line."""


def infer_prefix(line: bytes, text_start: TextStart) -> InferredPrefix | None:
    """That of a line of a report; None: it does not show."""
    if line[:1] == b"{":
        for path, text in _messages(line):
            if (shape := _shape(text, text_start, 0)) is not None:
                return shape._replace(path=path)
        return None
    return _shape(line, text_start, 1)  # at 0 it would be in a known format


def _shape(line: bytes, text_start: TextStart, first: int) -> InferredPrefix | None:
    match = _BEGINS.search(line, 0, _LONGEST + 64)
    if match is None or match.start() > _LONGEST:
        return None
    if (event := _EVENT.match(line)) is not None and event.end() == match.start():
        return InferredPrefix(_EVENT.pattern, None)
    end = match.start()
    for at in range(first, end):
        if (at == 0 or not line[at - 1 : at].isalnum()) and (form := text_start(line[at:], end - at)) is not None:
            return InferredPrefix(_pattern(line[:at]), form)
    if line[end - 1 : end] == b'"':  # a string in something over many lines
        return None
    return InferredPrefix(_pattern(line[:end]), None)


def _pattern(prefix: bytes) -> bytes:
    """What it has in common with those of other lines: numbers, names of days and months and levels differ."""
    found = []
    for match in _TOKENS.finditer(prefix):
        kind, token = match.lastgroup, match[0]
        if kind == "age":
            found.append(rb"(?:\d+[smhd])+")
        elif kind == "fraction":
            found.append(rb"(?:[.,]\d+)?")
        elif kind == "number":
            found.append(rb"\d+")
        elif kind == "word" and (token in _DATE_WORDS or token.lower() in _LEVELS):
            found.append(rb"[A-Za-z]+")
        elif kind == "blank" and match.end() < len(prefix):
            found.append(rb"[ \t]+")
        else:  # the last blanks as they are: the text may begin with others
            found.append(re.escape(token))
    return b"".join(found)


def message_of(line: bytes, path: tuple[str, ...]) -> bytes | None:
    """The text in that field of a line that is a JSON object, unless a program is named as its writer."""
    return next((text for found, text in _messages(line) if found == path), None)


def _messages(line: bytes) -> Iterator[tuple[tuple[str, ...], bytes]]:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return
    yield from _texts(value, ())


def _texts(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], bytes]]:
    if not isinstance(value, dict) or len(path) > _MOST_DEPTH:
        return
    for name, each in value.items():
        if name.lower() in _WRITERS and isinstance(each, str) and each not in ("kernel", "kern", "kmsg"):
            return
    for name, each in value.items():
        if isinstance(each, str) and name.lower() in _MESSAGES:
            yield (*path, name), each.encode("utf-8", "surrogatepass").rstrip(b"\r\n")
        else:
            yield from _texts(each, (*path, name))
