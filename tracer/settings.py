# SPDX-License-Identifier: Apache-2.0
"""Settings by the names of `oomtrace run`'s options -> what the daemon is told, checked."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

from tracer.errors import EXIT_USAGE, TracerError
from tracer.filter import Filter
from tracer.line import MIN_MAX_BYTES
from tracer.metrics import parse as parse_metrics
from tracer.options import EngineOption, Options, SigkillOption
from tracer.redact import Redactor
from tracer.runtimes import parse_root
from tracer.sinks.open import parse_all

Kind = Literal["flag", "number", "text", "list", "table", "tables"]
"""``table``: names with a value each; ``tables``: with one or several."""


class Setting(NamedTuple):
    kind: Kind
    field: str | None
    """Of Options; None: it decides over others."""


SETTINGS: Mapping[str, Setting] = {
    "engine": Setting("text", "engine"),
    "output": Setting("list", "outputs"),
    "label": Setting("table", "labels"),
    "max-record": Setting("number", "max_record_bytes"),
    "runtime-root": Setting("tables", "runtime_roots"),
    "cmdline": Setting("flag", "cmdline"),
    "redact-defaults": Setting("flag", "redact_defaults"),
    "redact": Setting("list", "redact"),
    "only": Setting("tables", "only"),
    "except": Setting("tables", "unwanted"),
    "metrics": Setting("list", "metrics"),
    "sigkill": Setting("text", "sigkill"),
    "network": Setting("flag", "network"),
    "pins": Setting("text", "pins"),
    "state": Setting("text", "state"),
    "keep": Setting("flag", None),
    "backfill": Setting("flag", "backfill"),
}


class SettingError(TracerError):
    """A setting that is wrong, by its name."""

    def __init__(self, name: str, error: TracerError) -> None:
        super().__init__(error.message, error.hint, EXIT_USAGE)
        self.name = name


def make(settings: Mapping[str, Any], arguments: Sequence[str] = (), config: str | None = None) -> Options:
    """The options; what is not among the settings is as Options has it.

    Values are of the type that SETTINGS tells; tables are pairs.

    Raises SettingError (exit code 2) where one is wrong.
    """
    fields: dict[str, Any] = {
        each.field: settings[name] for name, each in SETTINGS.items() if each.field and name in settings
    }
    values: dict[str, Any] = {
        field: tuple(value) if isinstance(value, list) else value for field, value in fields.items()
    }
    options = Options(tuple(arguments), config, **values)
    if not settings.get("keep", True):
        options = options._replace(pins=None, state=None, backfill=settings.get("backfill", False))
    _check("engine", lambda: _one_of("engine", options.engine, get_args(EngineOption)))
    _check("sigkill", lambda: _one_of("sigkill", options.sigkill, get_args(SigkillOption)))
    _check("output", lambda: parse_all(options.outputs))
    _check("max-record", lambda: _at_least(options.max_record_bytes, MIN_MAX_BYTES))
    _check("runtime-root", lambda: [parse_root(f"{name}={folder}") for name, folder in options.runtime_roots])
    _check("redact", lambda: Redactor(options.redact))
    _check("metrics", lambda: list(map(parse_metrics, options.metrics)))
    _check("only", lambda: Filter(options.only, ()))
    _check("except", lambda: Filter((), options.unwanted))
    return options


def _check(name: str, check: Callable[[], object]) -> None:
    try:
        check()
    except TracerError as error:
        raise SettingError(name, error) from error


def _one_of(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise TracerError(f"{name} {value!r} is unknown", f"use one of {', '.join(known)}", EXIT_USAGE)


def _at_least(value: int, least: int) -> None:
    if value < least:
        raise TracerError(f"max-record {value} is too small for a record", f"use {least} or more", EXIT_USAGE)
