# SPDX-License-Identifier: Apache-2.0
"""The options of each kind of output, from the forms in tracer/delivery/sinks, for the documentation.

Names and values stand in backquotes.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from tracer.delivery.sinks.destination import COMMON, Option
from tracer.delivery.sinks.open import MODULES, uri_forms
from tracer.delivery.sinks.tls import OPTIONS as TLS


class Row(NamedTuple):
    spelled: str
    values: str
    default: str
    """Empty: there is none."""
    meaning: str


class Group(NamedTuple):
    of: str
    """Schemes, with and without TLS as one: ``loki+http(s)``."""
    rows: tuple[Row, ...]


def groups() -> Iterator[Group]:
    """Options of all outputs, and those of TLS, first."""
    yield _group("all outputs", {name: (option, "") for name, option in COMMON.items()})
    tls = _short([scheme for scheme, form in uri_forms().items() if set(TLS) <= set(form.options)])
    yield _group(f"TLS ({tls})", {name: (option, "") for name, option in TLS.items()})
    kinds: dict[str, list[str]] = {}
    for scheme, module in MODULES.items():
        kinds.setdefault(module, []).append(scheme)
    for schemes in kinds.values():
        options: dict[str, tuple[Option, str]] = {}
        for scheme in schemes:
            for name, option in uri_forms()[scheme].options.items():
                has_all = set(TLS) <= set(uri_forms()[scheme].options)
                if not (has_all and TLS.get(name) == option):
                    options.setdefault(name, (option, ""))
        for name, (option, _) in options.items():
            having = [scheme for scheme in schemes if name in uri_forms()[scheme].options]
            remark = "" if having == schemes else f" ({_short(having)})"
            by_default: dict[str, list[str]] = {}
            for scheme in having:
                by_default.setdefault(_default(uri_forms()[scheme].options[name]) or "none", []).append(scheme)
            if len(by_default) > 1:
                told = "; ".join(f"{default} for {_short(those)}" for default, those in by_default.items())
                option, remark = option._replace(default=None), f" Default: {told}."
            options[name] = option, remark
        if options:
            yield _group(_short(schemes), options)


def _group(of: str, options: Mapping[str, tuple[Option, str]]) -> Group:
    rows = []
    for name, (option, remark) in options.items():
        spelled, values = _spelled(name, option)
        rows.append(Row(spelled, values, _default(option), f"{option.meaning}{remark}"))
    return Group(of, tuple(rows))


def _short(schemes: Sequence[str]) -> str:
    """With and without TLS as one: ``loki+http(s)``."""
    both = [f"{scheme}(s)" if f"{scheme}s" in schemes else scheme for scheme in schemes if scheme[:-1] not in schemes]
    return ", ".join(f"`{scheme}`" for scheme in both)


def _default(option: Option) -> str:
    return "" if option.default is None else f"`{_written(option)}`"


def _spelled(name: str, option: Option) -> tuple[str, str]:
    if isinstance(option.kind, tuple):
        return f"`{name}`", ", ".join(f"`{value}`" for value in option.kind)
    if option.kind == "secret":
        return f"`{name}-file`, `{name}-env`", "absolute path; environment variable"
    values = {
        "text": "text",
        "count": "number",
        "bytes": "number, with `K`, `M`, `G`",
        "seconds": "number, with `s`, `m`, `h`, `d`",
        "flag": "`yes`, `no`",
        "path": "absolute path",
        "list": "with commas between",
    }
    return f"`{name}`", values[option.kind]


def _written(option: Option) -> str:
    """A default as written in a URI."""
    if isinstance(option.default, bool):
        return "yes" if option.default else "no"
    if option.kind == "bytes" and isinstance(option.default, int):
        for unit, size in (("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)):
            if option.default and option.default % size == 0:
                return f"{option.default // size}{unit}"
    return str(option.default)
