# SPDX-License-Identifier: Apache-2.0
"""What the daemon is told: by the command line, as JSON in its environment."""

from typing import Any, Literal, NamedTuple

import orjson

from tracer.encoding.encoder import MAX_BYTES

ENVIRONMENT = "OOMTRACE_OPTIONS"
PINS_DIR = "/sys/fs/bpf/oomtrace"
STATE_DIR = "/var/lib/oomtrace"
CONFIG_FILE = "/etc/oomtrace/config.toml"

EngineOption = Literal["auto", "core", "bcc"]
SigkillOption = Literal["containers", "all", "off"]
SIGKILL_SCOPES: tuple[SigkillOption, ...] = ("off", "containers", "all")
"""Each has all that those before it have; its place is what the programs are told (`enum sigkill_scope`)."""
Pairs = tuple[tuple[str, str], ...]


class Options(NamedTuple):
    """Only tuples, strings, numbers and None: two that say the same are equal, after JSON, too."""

    arguments: tuple[str, ...] = ()
    """Of ``oomtrace run``: with them the configuration is read again."""
    config: str | None = None
    """The file that is read again at SIGHUP."""
    settings: tuple[str, ...] = ()
    """Those that stand in it."""
    engine: EngineOption = "auto"
    outputs: tuple[str, ...] = ("stdout",)
    labels: Pairs = ()
    """What every record tells of the host."""
    max_record_bytes: int = MAX_BYTES
    runtime_roots: Pairs = ()
    cmdline: bool = True
    redact_defaults: bool = True
    redact: tuple[str, ...] = ()
    include: Pairs = ()
    exclude: Pairs = ()
    """Which kills are told: field and pattern (tracer/records/filter.py)."""
    metrics: tuple[str, ...] = ()
    """Where counts are shown (tracer/delivery/metrics.py)."""
    sigkill: SigkillOption = "containers"
    """Whose SIGKILLs are told that are not the OOM killer's."""
    network: bool = False
    pins: str | None = PINS_DIR
    """Where the capture goes on when the daemon ends; None: it ends, too."""
    state: str | None = STATE_DIR
    """What must outlive the daemon; None: nothing."""
    backfill: bool = True
    """Whether kills that nobody saw are looked for in the kernel log."""


RESTART_REQUIRED = {
    "engine": "engine",
    "runtime_roots": "runtime-root",
    "metrics": "metrics",
    "sigkill": "sigkill",
    "network": "network",
    "pins": "pins",
    "state": "state",
    "backfill": "backfill",
}
"""What stays as it was when the daemon started, with the names of its settings."""


def to_json(options: Options) -> bytes:
    return orjson.dumps(options._asdict())


def from_json(text: bytes | str) -> Options:
    """Raises ValueError or TypeError where that is not what ``to_json`` made."""
    return Options(**{name: _tuples(value) for name, value in orjson.loads(text).items()})


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
