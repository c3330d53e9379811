# SPDX-License-Identifier: Apache-2.0
"""gfp_mask -> names, by the running kernel's own table.

The bits move between versions.  The kernel prints its table as C expressions in the format file of every tracepoint
that shows gfp flags (``{( unsigned long)(((1UL)) << (10)), "__GFP_DIRECT_RECLAIM"}``).
"""

import re
from collections.abc import Iterator

_FORMAT = "events/kmem/mm_page_alloc/format"
_ENTRY = re.compile(r'\{((?:[^{}"])*),\s*"(\w+)"\s*\}')
_CAST = re.compile(r"\(\s*(?:(?:unsigned\s+)?(?:long|int)|gfp_t|u32|__u32)\s*\)")
_TOKEN = re.compile(r"\s*(0x[0-9a-fA-F]+|\d+|<<|[()|&~])[uUlL]*")


class GfpNames:
    """The table; read once, at first use."""

    def __init__(self, tracefs: str | None) -> None:
        self._tracefs = tracefs
        self._table: list[tuple[int, str]] | None = None

    def spell(self, mask: int) -> str | None:
        """As the kernel log spells it (``GFP_KERNEL|__GFP_ZERO``); None where the table cannot be read."""
        if self._table is None:
            self._table = self._read()
        if not self._table:
            return None
        names = []
        for bits, name in self._table:
            if bits and mask & bits == bits:
                names.append(name)
                mask &= ~bits
        if mask:
            names.append(hex(mask))
        return "|".join(names) or "0"

    def _read(self) -> list[tuple[int, str]]:
        if self._tracefs is None:
            return []
        try:
            with open(f"{self._tracefs}/{_FORMAT}", encoding="ascii", errors="replace") as file:
                return parse_table(file.read())
        except (OSError, ValueError):
            return []


def parse_table(text: str) -> list[tuple[int, str]]:
    """(bits, name) in the kernel's order.

    Raises ValueError where an expression is none of those seen so far.
    """
    entries = [(_evaluate(expression), name) for expression, name in _ENTRY.findall(text)]
    return [(bits, name) for bits, name in entries if "GFP" in name]


def _evaluate(expression: str) -> int:
    tokens = _tokens(_CAST.sub("", expression))
    value, rest = _or(next(tokens), tokens)
    if rest:
        raise ValueError(f"unexpected {rest!r} in {expression!r}")
    return value & 0xFFFFFFFF


def _tokens(expression: str) -> Iterator[str]:
    at = 0
    while match := _TOKEN.match(expression, at):
        yield match[1]
        at = match.end()
    if expression[at:].strip():
        raise ValueError(f"cannot read {expression[at:]!r}")
    yield ""
    yield ""


def _or(token: str, tokens: Iterator[str]) -> tuple[int, str]:
    value, token = _and(token, tokens)
    while token == "|":
        right, token = _and(next(tokens), tokens)
        value |= right
    return value, token


def _and(token: str, tokens: Iterator[str]) -> tuple[int, str]:
    value, token = _shift(token, tokens)
    while token == "&":
        right, token = _shift(next(tokens), tokens)
        value &= right
    return value, token


def _shift(token: str, tokens: Iterator[str]) -> tuple[int, str]:
    value, token = _term(token, tokens)
    while token == "<<":
        right, token = _term(next(tokens), tokens)
        value <<= right
    return value, token


def _term(token: str, tokens: Iterator[str]) -> tuple[int, str]:
    if token == "~":
        value, token = _term(next(tokens), tokens)
        return ~value, token
    if token == "(":
        value, token = _or(next(tokens), tokens)
        if token != ")":
            raise ValueError(f"expected ')', not {token!r}")
        return value, next(tokens)
    return int(token, 0), next(tokens)
