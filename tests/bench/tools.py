# SPDX-License-Identifier: Apache-2.0
"""The measured tools: how each is started, signals that it is ready, and prints a victim."""

import json
import os
import re
import sys
from collections.abc import Sequence
from typing import NamedTuple


class ParsedLine(NamedTuple):
    """The content of one line of output."""

    pid: int | None = None
    """Pid of a victim."""
    lost: int = 0
    """Kills that the tool reports as lost."""


class Tool(NamedTuple):
    name: str
    command: tuple[str, ...]
    ready: bytes
    """Output that shows that it is attached."""
    ready_sign: str
    """Display name."""
    terminal: bool = False
    """Whether it needs a terminal for line-buffered output."""

    @property
    def ours(self) -> bool:
        return self.name.startswith("oomtrace")

    def environment(self) -> dict[str, str]:
        """The environment: with cached byte code, and an English locale."""
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        return {**kept, "LC_ALL": "C.UTF-8"}

    def read(self, line: bytes) -> ParsedLine:
        if self.ours:
            return _read_record(line)
        if found := _LOST.search(line):
            return ParsedLine(lost=int(found[1]))
        found = _VICTIM.search(line)
        return ParsedLine(pid=int(found[1] or found[2])) if found else ParsedLine()


_VICTIM = re.compile(rb"OOM kill of PID (\d+)|^(\d+)$")
_LOST = re.compile(rb"[Ll]ost (\d+)")


def _read_record(line: bytes) -> ParsedLine:
    try:
        record = json.loads(line)
    except ValueError:  # the last line may be partial
        return ParsedLine()
    if record["type"] == "lost":
        return ParsedLine(lost=record["count"])
    return ParsedLine(pid=record["victim"]["pid"]) if record["type"] == "oom_kill" else ParsedLine()


def oomtrace(engine: str) -> Tool:
    return Tool(
        f"oomtrace {engine}",
        (sys.executable, "-m", "tracer", "run", "--no-keep", "--engine", engine),
        b'"type":"start"',
        "its start record",
    )


ONE_LINER = 'tracepoint:oom:mark_victim { printf("%d\\n", args->pid); }'

CORE = oomtrace("core")
BCC = oomtrace("bcc")
BPFTRACE = Tool("bpftrace one-liner", ("bpftrace", "-e", ONE_LINER), b"Attaching 1 probe", '"Attaching 1 probe..."')
OOMKILL_BT = Tool("oomkill.bt", ("/usr/sbin/oomkill.bt",), b"Hit Ctrl-C", '"Hit Ctrl-C to end."')
OOMKILL_BPFCC = Tool(
    "bpfcc oomkill", ("/usr/sbin/oomkill-bpfcc",), b"Tracing OOM kills", '"Tracing OOM kills..."', terminal=True
)
OOMKILL_LIBBPF = Tool(
    "libbpf-tools oomkill", ("/usr/sbin/oomkill",), b"Tracing OOM kills", '"Tracing OOM kills..."', terminal=True
)

NATIVE: Sequence[Tool] = (CORE, BCC, BPFTRACE)
GUEST: Sequence[Tool] = (CORE, BCC, BPFTRACE, OOMKILL_BT, OOMKILL_BPFCC, OOMKILL_LIBBPF)
