# SPDX-License-Identifier: Apache-2.0
"""The replacement of orjson in the Debian package behaves like orjson, as far as oomtrace uses it."""

import ast
import importlib.util
import types
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.harness import ROOT

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
ODD = [
    *(b"", b" ", b"{", b"NaN", b"[Infinity]", b"\xef\xbb\xbf{}", b'"\xff"', b'"\\ud800"', b'"\\ud83d\\ude00"', b"01"),
    *(b'{"a":1,"a":2}', b"[1,]", b"'a'", b'"\n"', b"18446744073709551616", b"-9223372036854775809"),
    *(b"1e400", b"1" * 400, b"-0", b"1.5e3", b'{"a":1}\0', b"\xff\xfe{\0}\0", b"[" * 100_000, b'{"a":' * 100_000),
]


def load() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("stand_in", ROOT / "deploy/debian/stand-in/orjson.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


stand_in = load()


def outcome(module: Any, data: bytes | str) -> object:
    """The value with the types of numbers, or that it is rejected."""
    try:
        return repr(module.loads(data))
    except module.JSONDecodeError:
        return "refused"


@given(JSON)
def test_dumps(value: Any) -> None:
    """dumps() returns the same bytes."""
    for option in (0, orjson.OPT_APPEND_NEWLINE, orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE):
        assert orjson.dumps(value, option=option) == stand_in.dumps(value, option=option)


@given(JSON, st.integers(0, 60), st.binary(max_size=3))
def test_loads(value: Any, position: int, damage: bytes) -> None:
    """loads() returns the same values, and rejects the same inputs."""
    sound = orjson.dumps(value)
    for data in (sound, sound.decode(), sound[:position] + damage + sound[position:]):
        assert outcome(orjson, data) == outcome(stand_in, data)


@pytest.mark.parametrize("data", ODD, ids=lambda data: repr(data[:20]))
def test_odd(data: bytes) -> None:
    """Inputs that only resemble JSON."""
    assert outcome(orjson, data) == outcome(stand_in, data)


def test_complete() -> None:
    """It has all names that oomtrace uses, and options have the same values."""
    used = {
        node.attr
        for path in (ROOT / "tracer").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "orjson"
    }
    assert {"dumps", "loads"} < used
    assert used <= set(vars(stand_in))
    for name in used:
        if name.startswith("OPT_"):
            assert getattr(orjson, name) == getattr(stand_in, name)
