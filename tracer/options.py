# SPDX-License-Identifier: Apache-2.0
"""What the daemon is told: by the command line, as JSON in its environment."""

from typing import Literal, NamedTuple

from tracer.line import MAX_BYTES

ENVIRONMENT = "OOMTRACE_OPTIONS"
PINS_FOLDER = "/sys/fs/bpf/oomtrace"
STATE_FOLDER = "/var/lib/oomtrace"

EngineOption = Literal["auto", "core", "bcc"]
SigkillOption = Literal["containers", "all", "off"]


class Options(NamedTuple):
    engine: EngineOption = "auto"
    outputs: tuple[str, ...] = ("stdout",)
    max_record_bytes: int = MAX_BYTES
    runtime_roots: tuple[tuple[str, str], ...] = ()
    cmdline: bool = True
    redact_defaults: bool = True
    redact: tuple[str, ...] = ()
    network: bool = False
    pins: str | None = PINS_FOLDER
    """Where the capture goes on when the daemon ends; None: it ends, too."""
    state: str | None = STATE_FOLDER
    """What must outlive the daemon; None: nothing."""
    sigkill: SigkillOption = "containers"
    """Whose SIGKILLs are told that are not the OOM killer's."""
    backfill: bool = True
    """Whether kills that nobody saw are looked for in the kernel log."""
