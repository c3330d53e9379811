# SPDX-License-Identifier: Apache-2.0
"""An independent BTF reader, to compare with tracer/capture/btf_offsets.py.

Format: Documentation/bpf/btf.rst.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, FUNC_PROTO, VAR, DATASEC = 1, 2, 3, 4, 5, 6, 7, 8, 13, 14, 15
DECL_TAG, ENUM64 = 17, 19
MODIFIERS = {TYPEDEF, 9, 10, 11, 18}
POINTER_SIZE = 8

_EXTRA = {INT: 4, ARRAY: 12, VAR: 4, DECL_TAG: 4}
_EACH = {STRUCT: 12, UNION: 12, ENUM: 8, ENUM64: 12, FUNC_PROTO: 8, DATASEC: 12}


class RawBtf:
    """Types by id, each as (name, kind, size or type, kind flag, the bytes after it)."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        _magic, _version, _flags, head, type_at, type_len, text_at, _text_len = struct.unpack_from("=HBBIIIII", data)
        self._data, self._text = data, head + text_at
        self.types: list[tuple[str, int, int, bool, bytes]] = [("void", 0, 0, False, b"")]
        self._named: dict[tuple[int, str], int] = {}
        at, end = head + type_at, head + type_at + type_len
        while at < end:
            name, info, size = struct.unpack_from("=III", data, at)
            kind, count = info >> 24 & 0x1F, info & 0xFFFF
            length = _EXTRA.get(kind, 0) + _EACH.get(kind, 0) * count
            self._named.setdefault((kind, self._string(name)), len(self.types))
            self.types.append((self._string(name), kind, size, bool(info >> 31), data[at + 12 : at + 12 + length]))
            at += 12 + length

    def _string(self, offset: int) -> str:
        start = self._text + offset
        return self._data[start : self._data.index(b"\0", start)].decode()

    def enumerators(self, name: str) -> dict[str, int]:
        """Enumerator -> value; empty if there is no such enum."""
        number = self._named.get((ENUM, name))
        if number is None:
            return {}
        return {self._string(text): value for text, value in struct.iter_unpack("=Ii", self.types[number][4])}

    def fields(self, name: str) -> dict[str, tuple[int, int, int]]:
        """Field -> offset, size and kind, including those of anonymous members; empty if there is no such struct."""
        number = self._named.get((STRUCT, name))
        return {} if number is None else dict(self._fields(number, 0))

    def _fields(self, number: int, base: int) -> Iterator[tuple[str, tuple[int, int, int]]]:
        _name, _kind, _size, flag, members = self.types[number]
        for text, kind, bits in struct.iter_unpack("=III", members):
            at = base + (bits & 0xFFFFFF if flag else bits) // 8
            if text and self._string(text):
                yield self._string(text), (at, self.size(kind), self.types[self.resolve(kind)][1])
            else:
                yield from self._fields(kind, at)

    def resolve(self, number: int) -> int:
        """Skip typedefs and modifiers such as const."""
        while self.types[number][1] in MODIFIERS:
            number = self.types[number][2]
        return number

    def size(self, number: int) -> int:
        _name, kind, size, _flag, behind = self.types[self.resolve(number)]
        if kind == PTR:
            return POINTER_SIZE
        if kind == ARRAY:
            element, _index, count = struct.unpack("=III", behind)
            return int(count) * self.size(element)
        return size

    def struct_size(self, name: str) -> int:
        """Size in bytes; 0 if there is no such struct."""
        number = self._named.get((STRUCT, name))
        return 0 if number is None else self.size(number)
