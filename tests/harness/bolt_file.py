# SPDX-License-Identifier: Apache-2.0
"""Writes BoltDB files as bbolt does: two meta pages, a freelist, leaves, branches, inline buckets."""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Union

Tree = dict[bytes, Union[bytes, "Tree"]]
"""A bucket: key -> value or nested bucket."""

BRANCH, LEAF, META, FREELIST = 1, 2, 4, 16
FIRST_PAGE = 3
_Entry = tuple[int, bytes, bytes]
"""Flags, key, value."""


class Writer:
    """Builds one transaction's pages."""

    def __init__(self, page_size: int = 4096, most: int = 10_000) -> None:
        """``most``: elements per page; a small number makes a deep tree."""
        self.page_size = page_size
        self.most = most
        self.pages: dict[int, bytes] = {2: self._padded(_header(2, FREELIST, 0, 0))}
        self.next = FIRST_PAGE

    def file(self, tree: Tree, transaction: int = 7) -> bytes:
        """The file; its other meta page is of the previous transaction."""
        root = self.root(tree)
        metas = {number % 2: self.meta(number, root if number == transaction else 2)
                 for number in (transaction - 1, transaction)}  # fmt: skip
        pages = {**metas, **self.pages}
        return b"".join(pages[number] for number in sorted(pages))

    def meta(self, transaction: int, root: int) -> bytes:
        content = struct.pack("=4I6Q", 0xED0CDAED, 2, self.page_size, 0, root, 0, 2, self.next, transaction, 0)[:-8]
        number = transaction % 2
        return self._padded(_header(number, META, 0, 0) + content + struct.pack("=Q", fnv(content)))

    def root(self, tree: Tree) -> int:
        """Add the pages of a bucket; the number of its root page."""
        level = [(chunk[0][1], self.add(LEAF, chunk)) for chunk in self._chunks(self._entries(tree))]
        while len(level) > 1:
            groups = [level[at : at + self.most] for at in range(0, len(level), self.most)]
            level = [(group[0][0], self.add(BRANCH, [(0, key, struct.pack("=Q", page)) for key, page in group]))
                     for group in groups]  # fmt: skip
        return level[0][1] if level else self.add(LEAF, [])

    def add(self, kind: int, entries: Sequence[_Entry]) -> int:
        """Add a page with its overflow pages; its number."""
        number = self.next
        size = len(_content(number, kind, entries, 0))
        more = (size - 1) // self.page_size
        self.pages[number] = self._padded(_content(number, kind, entries, more))
        self.next += 1 + more
        return number

    def _entries(self, tree: Tree) -> list[_Entry]:
        return [
            (1, key, self._bucket(value)) if isinstance(value, dict) else (0, key, value)
            for key, value in sorted(tree.items())
        ]

    def _bucket(self, tree: Tree) -> bytes:
        if all(isinstance(value, bytes) for value in tree.values()):
            inline = struct.pack("=QQ", 0, 0) + _content(0, LEAF, self._entries(tree), 0)
            if len(inline) <= self.page_size // 4:
                return inline
        return struct.pack("=QQ", self.root(tree), 0)

    def _chunks(self, entries: list[_Entry]) -> list[list[_Entry]]:
        """Entries per page: at least two, if there are."""
        chunks: list[list[_Entry]] = []
        room = 0
        for entry in entries:
            size = 16 + len(entry[1]) + len(entry[2])
            if not chunks or (len(chunks[-1]) >= 2 and (size > room or len(chunks[-1]) >= self.most)):
                chunks.append([])
                room = self.page_size - 16
            chunks[-1].append(entry)
            room -= size
        return chunks

    def _padded(self, data: bytes) -> bytes:
        return data + bytes(-len(data) % self.page_size)


def write(path: Path, tree: Tree) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(Writer().file(tree))


def fnv(data: bytes) -> int:
    """64-bit FNV-1a."""
    value = 14695981039346656037
    for byte in data:
        value ^= byte
        value = value * 1099511628211 % 2**64
    return value


def _header(number: int, kind: int, count: int, more: int) -> bytes:
    return struct.pack("=QHHI", number, kind, count, more)


def _content(number: int, kind: int, entries: Sequence[_Entry], more: int) -> bytes:
    elements, data = b"", b""
    for index, (flags, key, value) in enumerate(entries):
        place = 16 * (len(entries) - index) + len(data)
        if kind == LEAF:
            elements += struct.pack("=4I", flags, place, len(key), len(value))
            data += key + value
        else:
            elements += struct.pack("=2I", place, len(key)) + value
            data += key
    return _header(number, kind, len(entries), more) + elements + data
