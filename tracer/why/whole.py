# SPDX-License-Identifier: Apache-2.0
"""A line of somebody's file -> a record that has all of its fields, as tracer/event.py types them."""

import types
from functools import cache
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints, is_typeddict

import orjson

from tracer.event import Gap, Lost, OomExit, OomKill, Record, Sigkill, Start, Stop

KINDS = {"oom_kill": OomKill, "oom_exit": OomExit, "sigkill": Sigkill, "start": Start, "stop": Stop, "gap": Gap}
KINDS["lost"] = Lost


class UnfitError(ValueError):
    """It is no record."""


def record(line: bytes) -> Record | None:
    """None: a record of a kind that a later version may have.

    Raises UnfitError.
    """
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise UnfitError from error
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        raise UnfitError
    kind = KINDS.get(value["type"])
    return None if kind is None else cast(Record, _fitted(value, kind))


def _fitted(value: Any, hint: Any) -> Any:
    """The value, if it is of this type; what an older version did not write is null, where it may be."""
    if hint is Any or hint is object:
        return value
    if is_typeddict(hint):
        if not isinstance(value, dict):
            raise UnfitError
        return {name: _fitted(value.get(name), inner) for name, inner in _fields(hint).items()}
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return _fitted(value, inner)
    if origin is Literal:
        fits = value in arguments
    elif origin is list:
        return [_fitted(item, arguments[0]) for item in value] if isinstance(value, list) else _refuse()
    elif origin is dict:
        return (
            {key: _fitted(item, arguments[1]) for key, item in value.items()} if isinstance(value, dict) else _refuse()
        )
    else:
        fits = isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
    return value if fits else _refuse()


@cache
def _fields(hint: Any) -> dict[str, Any]:
    return get_type_hints(hint)


def _refuse() -> Any:
    raise UnfitError
