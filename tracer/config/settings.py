# SPDX-License-Identifier: Apache-2.0
"""Convert settings, named like the options of `oomtrace run`, to the daemon's options, and check them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

from tracer.base.errors import EXIT_USAGE, TracerError
from tracer.config.options import EngineOption, Options, SigkillOption
from tracer.delivery.metrics import parse_endpoint
from tracer.delivery.sinks.destination import is_utf8
from tracer.delivery.sinks.open import parse_destinations
from tracer.encoding.encoder import MIN_MAX_BYTES
from tracer.identity.runtimes import parse_runtime_root
from tracer.records.filter import Filter
from tracer.redaction.cmdline import Redactor

MAX_MAX_BYTES = 1 << 30
SettingKind = Literal["flag", "number", "text", "list", "table", "tables"]
"""``table``: one value per name; ``tables``: one or several values per name."""


class Setting(NamedTuple):
    kind: SettingKind
    field: str | None
    """Field of Options; None: the setting changes other fields."""


SETTINGS: Mapping[str, Setting] = {
    "engine": Setting("text", "engine"),
    "output": Setting("list", "outputs"),
    "label": Setting("table", "labels"),
    "max-record": Setting("number", "max_record_bytes"),
    "runtime-root": Setting("tables", "runtime_roots"),
    "cmdline": Setting("flag", "cmdline"),
    "redact-defaults": Setting("flag", "redact_defaults"),
    "redact": Setting("list", "redact"),
    "only": Setting("tables", "include"),
    "except": Setting("tables", "exclude"),
    "metrics": Setting("list", "metrics"),
    "sigkill": Setting("text", "sigkill"),
    "network": Setting("flag", "network"),
    "pins": Setting("text", "pins"),
    "state": Setting("text", "state"),
    "keep": Setting("flag", None),
    "backfill": Setting("flag", "backfill"),
}


class SettingError(TracerError):
    """An invalid setting."""

    def __init__(self, name: str, error: TracerError) -> None:
        super().__init__(error.message, error.hint, EXIT_USAGE)
        self.name = name


def make_options(settings: Mapping[str, Any], arguments: Sequence[str] = (), config: str | None = None) -> Options:
    """Make options from settings and, for the others, the defaults of Options.

    Values have the types in SETTINGS; tables are pairs.

    Raises SettingError (exit code 2) for an invalid setting.
    """
    fields: dict[str, Any] = {
        each.field: settings[name] for name, each in SETTINGS.items() if each.field and name in settings
    }
    values: dict[str, Any] = {
        field: tuple(value) if isinstance(value, list) else value for field, value in fields.items()
    }
    for name, value in settings.items():
        _check(name, lambda name=name, value=value: _check_text(name, value))  # type: ignore[misc]
    _check_text("the name of the configuration file", config)
    _check_text("the command line", arguments)
    options = Options(tuple(arguments), config, **values)
    if not settings.get("keep", True):
        options = options._replace(pins=None, state=None, backfill=settings.get("backfill", False))
    _check("engine", lambda: _check_choice("engine", options.engine, get_args(EngineOption)))
    _check("sigkill", lambda: _check_choice("sigkill", options.sigkill, get_args(SigkillOption)))
    _check("output", lambda: parse_destinations(options.outputs))
    _check("max-record", lambda: _check_size(options.max_record_bytes))
    _check("runtime-root", lambda: [parse_runtime_root(f"{name}={folder}") for name, folder in options.runtime_roots])
    _check("redact", lambda: Redactor(options.redact))
    _check("metrics", lambda: list(map(parse_endpoint, options.metrics)))
    _check("only", lambda: Filter(options.include, ()))
    _check("except", lambda: Filter((), options.exclude))
    return options


def as_settings(options: Options) -> dict[str, Any]:
    """All settings by name, as in a configuration file; those that ``keep`` disables are None."""
    values: dict[str, Any] = {"keep": options.pins is not None}
    for name, setting in SETTINGS.items():
        value = getattr(options, setting.field) if setting.field else values[name]
        if setting.kind == "table":
            value = dict(value)
        elif setting.kind == "tables":
            value = {key: [each for other, each in value if other == key] for key, _ in value}
        values[name] = value
    return {name: values[name] for name in SETTINGS}


def _check(name: str, check: Callable[[], object]) -> None:
    try:
        check()
    except TracerError as error:
        raise SettingError(name, error) from error


def _check_text(name: str, value: Any) -> None:
    """Check a value and its items: an argument of a process may be any bytes, the daemon's options are text."""
    if isinstance(value, list | tuple):
        for each in value:
            _check_text(name, each)
    elif isinstance(value, str) and ("\0" in value or not is_utf8(value)):
        raise TracerError(f"{name} is not text", "write UTF-8 without NUL bytes", EXIT_USAGE)


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise TracerError(f"invalid {name} {value!r}", f"use one of {', '.join(choices)}", EXIT_USAGE)


def _check_size(value: int) -> None:
    if value < MIN_MAX_BYTES:
        raise TracerError(f"max-record {value} is too small for a record", f"use {MIN_MAX_BYTES} or more", EXIT_USAGE)
    if value > MAX_MAX_BYTES:
        raise TracerError(f"max-record {value} is too large", f"use {MAX_MAX_BYTES} or less", EXIT_USAGE)
