# SPDX-License-Identifier: Apache-2.0
"""Names of the flags in a gfp_mask, from the running kernel's own table.

Bit numbers differ between kernel versions.  The kernel prints its table as C expressions in the format file of every
tracepoint with gfp flags (``{( unsigned long)(((1UL)) << (10)), "__GFP_DIRECT_RECLAIM"}``).
"""

import re
from collections.abc import Iterator

_FORMAT = "events/kmem/mm_page_alloc/format"
_ENTRY = re.compile(r'\{((?:[^{}"])*),\s*"(\w+)"\s*\}')
_CAST = re.compile(r"\(\s*(?:(?:unsigned\s+)?(?:long|int)|gfp_t|u32|__u32)\s*\)")
_BITS_MAX = 64
_LEXEME = re.compile(r"\s*(0x[0-9a-fA-F]+|\d+|<<|[()|&~])[uUlL]*")


class GfpNames:
    """The kernel's table, read at first use."""

    def __init__(self, tracefs: str | None) -> None:
        self._tracefs = tracefs
        self._table: list[tuple[int, str]] | None = None

    def spell(self, mask: int) -> str | None:
        """Spell a mask as the kernel log does (``GFP_KERNEL|__GFP_ZERO``); None: the table cannot be read."""
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
    """Parse the table into (bits, name) in the kernel's order.

    Raises ValueError for an expression with unknown syntax.
    """
    entries = [(_evaluate(expression), name) for expression, name in _ENTRY.findall(text)]
    return [(bits, name) for bits, name in entries if "GFP" in name]


def _evaluate(expression: str) -> int:
    lexemes = _lexemes(_CAST.sub("", expression))
    try:
        value, rest = _or(next(lexemes), lexemes)
    except (RecursionError, StopIteration) as error:
        raise ValueError(f"invalid expression {expression:.60}") from error
    if rest:
        raise ValueError(f"unexpected {rest!r} in {expression!r}")
    return value & 0xFFFFFFFF


def _lexemes(expression: str) -> Iterator[str]:
    at = 0
    while match := _LEXEME.match(expression, at):
        yield match[1]
        at = match.end()
    if expression[at:].strip():
        raise ValueError(f"invalid expression {expression[at:]!r}")
    yield ""
    yield ""


def _or(lexeme: str, lexemes: Iterator[str]) -> tuple[int, str]:
    value, lexeme = _and(lexeme, lexemes)
    while lexeme == "|":
        right, lexeme = _and(next(lexemes), lexemes)
        value |= right
    return value, lexeme


def _and(lexeme: str, lexemes: Iterator[str]) -> tuple[int, str]:
    value, lexeme = _shift(lexeme, lexemes)
    while lexeme == "&":
        right, lexeme = _shift(next(lexemes), lexemes)
        value &= right
    return value, lexeme


def _shift(lexeme: str, lexemes: Iterator[str]) -> tuple[int, str]:
    value, lexeme = _term(lexeme, lexemes)
    while lexeme == "<<":
        right, lexeme = _term(next(lexemes), lexemes)
        if right >= _BITS_MAX:
            raise ValueError(f"shift by {right:#x} bits")
        value <<= right
    return value, lexeme


def _term(lexeme: str, lexemes: Iterator[str]) -> tuple[int, str]:
    if lexeme == "~":
        value, lexeme = _term(next(lexemes), lexemes)
        return ~value, lexeme
    if lexeme == "(":
        value, lexeme = _or(next(lexemes), lexemes)
        if lexeme != ")":
            raise ValueError(f"expected ')', not {lexeme!r}")
        return value, next(lexemes)
    return int(lexeme, 0), next(lexemes)
