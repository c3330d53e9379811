# SPDX-License-Identifier: Apache-2.0
"""The tools that are measured: how each is started, says that it is ready, and names a victim."""

import json
import os
import re
import sys
from collections.abc import Sequence
from typing import NamedTuple


class Said(NamedTuple):
    """What one line of output tells."""

    pid: int | None = None
    """A victim."""
    lost: int = 0
    """Kills that the tool admits to have missed."""


class Tool(NamedTuple):
    name: str
    command: tuple[str, ...]
    ready: bytes
    """A word of the output that says that it is attached."""
    ready_sign: str
    """The same for human readers."""
    terminal: bool = False
    """It writes line by line to a terminal only, so it gets one."""

    @property
    def ours(self) -> bool:
        return self.name.startswith("oomtrace")

    def environment(self) -> dict[str, str]:
        """As users have it: with byte code that is kept, and a language that changes no words."""
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        return {**kept, "LC_ALL": "C.UTF-8"}

    def read(self, line: bytes) -> Said:
        if self.ours:
            return _read_record(line)
        if found := _LOST.search(line):
            return Said(lost=int(found[1]))
        found = _VICTIM.search(line)
        return Said(pid=int(found[1] or found[2])) if found else Said()


_VICTIM = re.compile(rb"OOM kill of PID (\d+)|^(\d+)$")
_LOST = re.compile(rb"[Ll]ost (\d+)")


def _read_record(line: bytes) -> Said:
    try:
        record = json.loads(line)
    except ValueError:  # its last line may be cut where it was stopped
        return Said()
    if record["type"] == "lost":
        return Said(lost=record["count"])
    return Said(pid=record["victim"]["pid"]) if record["type"] == "oom_kill" else Said()


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
