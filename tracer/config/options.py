# SPDX-License-Identifier: Apache-2.0
"""Options of the daemon.  The command line passes them as JSON in the daemon's environment."""

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
"""Each scope includes the ones before it; the index is the value in the BPF programs (`enum sigkill_scope`)."""
Pairs = tuple[tuple[str, str], ...]


class Options(NamedTuple):
    """Contains only tuples, strings, numbers and None, so equal options are equal after JSON as well."""

    arguments: tuple[str, ...] = ()
    """Arguments of ``oomtrace run``, with which a reload reads the configuration again."""
    config: str | None = None
    """The configuration file, read again at SIGHUP."""
    settings: tuple[str, ...] = ()
    """Names of the settings in the configuration file."""
    engine: EngineOption = "auto"
    outputs: tuple[str, ...] = ("stdout",)
    labels: Pairs = ()
    """Labels of the host, in every record."""
    max_record_bytes: int = MAX_BYTES
    runtime_roots: Pairs = ()
    cmdline: bool = True
    redact_defaults: bool = True
    redact: tuple[str, ...] = ()
    include: Pairs = ()
    exclude: Pairs = ()
    """Filters of kills: field and pattern (tracer/records/filter.py)."""
    metrics: tuple[str, ...] = ()
    """Addresses and files of metrics (tracer/delivery/metrics.py)."""
    sigkill: SigkillOption = "containers"
    """Victims for which SIGKILLs of other senders than the OOM killer are recorded."""
    network: bool = False
    pins: str | None = PINS_DIR
    """bpffs directory in which the capture outlives the daemon; None: it does not."""
    state: str | None = STATE_DIR
    """Directory for what must outlive the daemon; None: nothing does."""
    backfill: bool = True
    """Whether missed kills are recovered from the kernel log."""


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
"""Options that a reload does not change, and the names of their settings."""


def to_json(options: Options) -> bytes:
    return orjson.dumps(options._asdict())


def from_json(text: bytes | str) -> Options:
    """Raises ValueError or TypeError if the text is not from ``to_json``."""
    return Options(**{name: _tuples(value) for name, value in orjson.loads(text).items()})


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
