# SPDX-License-Identifier: Apache-2.0
"""Reads BoltDB files (bbolt, internal/common: meta.go, page.go, bucket.go) while their owner writes them.

The owner holds the file's lock as long as it runs, so the lock is not taken.  Pages have no checksums, but the pages of
the last transaction are overwritten only after the next transaction: a result is valid if the transaction is then still
the last one.  Numbers are in the host's byte order.
"""

import os
from bisect import bisect_right
from collections.abc import Callable, Iterator
from struct import Struct
from typing import NamedTuple, TypeVar

from tracer.linux import safe_files
from tracer.linux.safe_files import UnreadableError

_Answer = TypeVar("_Answer")

VALUE_MAX_BYTES = 1 << 20
READ_MAX_BYTES = 4 << 20
"""Limit per query; a path of four buckets takes about ten pages."""
STEPS_MAX = 30_000
"""Limit of page parts examined per query; it ends a circle of pages, which are read only once."""
ATTEMPTS_MAX = 5
"""Limit of attempts per query, if transactions end meanwhile."""
DEPTH_MAX = 16
"""Limit of pages on the path to a key; with two keys per page it takes 65536 keys to reach it."""

_PAGE_SIZES = [1024 << shift for shift in range(7)]
_PAGES_MAX = 1 << 40
_KEY_MAX_BYTES = 32768
_MAGIC, _VERSION = 0xED0CDAED, 2
_PAGE = Struct("=QHHI")
"""Number, type, count of elements, count of overflow pages."""
_BRANCH, _LEAF = 1, 2
_META = Struct("=IIIIQQQQQQ")
"""Magic, version, page size, flags, root page, sequence, freelist page, count of pages, transaction, checksum."""
_BRANCH_ELEMENT = Struct("=IIQ")
"""Offset of the key from the element, size of the key, child page."""
_LEAF_ELEMENT = Struct("=IIII")
"""Flags, offset of the key from the element, size of the key, size of the value after it."""
_IS_BUCKET = 1
_BUCKET = Struct("=QQ")
"""Root page, sequence.  If the page is 0, the bucket's only page follows inline, in the value."""


class _Meta(NamedTuple):
    page_size: int
    root: int
    pages: int
    transaction: int


class _Node(NamedTuple):
    """A page, or a bucket's inline page: byte offsets in the file."""

    start: int
    end: int
    is_leaf: bool
    elements: int


class _Element(NamedTuple):
    """A key on a page with its value (leaf), or with the child page that begins with it (branch)."""

    key_start: int
    key_size: int
    value_size: int
    is_bucket: bool
    page: int

    @property
    def value_start(self) -> int:
        return self.key_start + self.key_size


def query_database(folder: str, name: str, query: Callable[["Bucket"], _Answer]) -> _Answer | None:
    """Return ``query(root bucket)`` for the database ``name`` below ``folder``; None: there is no such file.

    The query is repeated if the database was written meanwhile, at most ATTEMPTS_MAX times in all.

    Raises UnreadableError, also if ``query`` raises it.
    """
    descriptor = safe_files.open_file(folder, name)
    if descriptor is None:
        return None
    try:
        source = f"{folder}/{name}"
        meta = _read_meta(descriptor, source)
        for _ in range(ATTEMPTS_MAX):
            before, problem = meta, None
            file = _File(descriptor, source, meta)
            try:
                answer = query(Bucket(file, file.node(meta.root)))
            except UnreadableError as error:
                problem = error
            meta = _read_meta(descriptor, source)
            if meta == before:
                if problem:
                    raise problem
                return answer
        raise UnreadableError(f"{source}: changed repeatedly during the read")
    finally:
        os.close(descriptor)


class Bucket:
    """A sorted map of keys to values and to other buckets.  All methods raise UnreadableError."""

    def __init__(self, file: "_File", root: _Node) -> None:
        self._file = file
        self._root = root

    def value(self, key: bytes) -> bytes | None:
        """The value of a key; None: there is no such key, or it is a bucket's."""
        found = self._find(key)
        return None if found is None or found.is_bucket else self._file.value(found)

    def bucket(self, *path: bytes) -> "Bucket | None":
        """The bucket at the end of a path of buckets; None: there is no such bucket."""
        bucket = self
        for key in path:
            found = bucket._find(key)
            if found is None or not found.is_bucket:
                return None
            bucket = Bucket(self._file, self._file.bucket(found))
        return bucket

    def values(self) -> Iterator[tuple[bytes, bytes]]:
        """All keys with their values, sorted."""
        for each in self._elements(self._root):
            if not each.is_bucket:
                yield self._file.key(each), self._file.value(each)

    def buckets(self) -> Iterator[tuple[bytes, "Bucket"]]:
        """All keys with their buckets, sorted."""
        for each in self._elements(self._root):
            if each.is_bucket:
                yield self._file.key(each), Bucket(self._file, self._file.bucket(each))

    def _find(self, key: bytes) -> _Element | None:
        node = self._root
        for _ in range(DEPTH_MAX):
            index = self._last(node, key)
            if not node.is_leaf:  # a branch has the smallest key of each child
                node = self._file.node(self._file.element(node, max(index, 0)).page)
                continue
            found = self._file.element(node, index) if index >= 0 else None
            return found if found and self._file.key(found) == key else None
        raise self._file.error("too deep")

    def _last(self, node: _Node, key: bytes) -> int:
        """Index of the last key that is at most ``key``; -1: there is none."""
        return bisect_right(range(node.elements), key, key=lambda at: self._file.key(self._file.element(node, at))) - 1

    def _elements(self, node: _Node, depth: int = 1) -> Iterator[_Element]:
        if depth > DEPTH_MAX:
            raise self._file.error("too deep")
        for index in range(node.elements):
            element = self._file.element(node, index)
            if node.is_leaf:
                yield element
            else:
                yield from self._elements(self._file.node(element.page), depth + 1)


class _File:
    """The untrusted file, for one query: all offsets and sizes in it are checked."""

    def __init__(self, descriptor: int, source: str, meta: _Meta) -> None:
        self._descriptor = descriptor
        self._source = source
        self._meta = meta
        self._pages: dict[int, bytes] = {}
        self._bytes_left = READ_MAX_BYTES
        self._steps_left = STEPS_MAX

    def error(self, reason: str) -> UnreadableError:
        return UnreadableError(f"{self._source}: {reason}")

    def node(self, number: int) -> _Node:
        """Read the header of the page with this number."""
        start = number * self._meta.page_size
        if not 2 <= number < self._meta.pages:
            raise self.error(f"invalid page number {number}")
        own, kind, count, more = _PAGE.unpack(self._read(start, _PAGE.size))
        if own != number or kind not in (_BRANCH, _LEAF) or number + more >= self._meta.pages:
            raise self.error(f"page {number} is not a bucket's")
        return self._node(start, start + (1 + more) * self._meta.page_size, kind, count)

    def bucket(self, element: _Element) -> _Node:
        """The root page of the bucket that is the element's value."""
        start, end = element.value_start, element.value_start + element.value_size
        if start + _BUCKET.size > end:
            raise self.error("a bucket is truncated")
        root, _ = _BUCKET.unpack(self._read(start, _BUCKET.size))
        if root:
            return self.node(root)
        start += _BUCKET.size
        if start + _PAGE.size > end:
            raise self.error("a bucket is truncated")
        _, kind, count, _ = _PAGE.unpack(self._read(start, _PAGE.size))
        if kind != _LEAF:
            raise self.error("an inline bucket is not a leaf")
        return self._node(start, end, kind, count)

    def _node(self, start: int, end: int, kind: int, count: int) -> _Node:
        size = _PAGE.size + count * _LEAF_ELEMENT.size  # branch elements have the same size
        if start + size > end or (kind == _BRANCH and not count):
            raise self.error(f"{count} elements in {end - start} bytes")
        return _Node(start, end, kind == _LEAF, count)

    def element(self, node: _Node, index: int) -> _Element:
        start = node.start + _PAGE.size + index * _LEAF_ELEMENT.size
        data = self._read(start, _LEAF_ELEMENT.size)
        flags = value_size = page = 0
        if node.is_leaf:
            flags, place, key_size, value_size = _LEAF_ELEMENT.unpack(data)
        else:
            place, key_size, page = _BRANCH_ELEMENT.unpack(data)
        if key_size > _KEY_MAX_BYTES or start + place + key_size + value_size > node.end:
            raise self.error("a key or value exceeds its page")
        return _Element(start + place, key_size, value_size, bool(flags & _IS_BUCKET), page)

    def key(self, element: _Element) -> bytes:
        return self._read(element.key_start, element.key_size)

    def value(self, element: _Element) -> bytes:
        if element.value_size > VALUE_MAX_BYTES:
            raise self.error(f"value of {element.value_size} bytes, more than {VALUE_MAX_BYTES}")
        return self._read(element.value_start, element.value_size)

    def _read(self, start: int, size: int) -> bytes:
        self._steps_left -= 1
        if self._steps_left < 0:
            raise self.error(f"not found within {STEPS_MAX} steps")
        page_size = self._meta.page_size
        number, within = divmod(start, page_size)
        if within + size > page_size:  # larger than a page, or across overflow pages
            data = self._load(start, size)
        else:
            if number not in self._pages:
                self._pages[number] = self._load(number * page_size, page_size)
            data = self._pages[number][within : within + size]
        if len(data) < size:
            raise self.error("file is truncated")
        return data

    def _load(self, start: int, size: int) -> bytes:
        self._bytes_left -= size
        if self._bytes_left < 0:
            raise self.error(f"not found within {READ_MAX_BYTES} bytes")
        return _pread(self._descriptor, self._source, start, size)


def _read_meta(descriptor: int, source: str) -> _Meta:
    """The meta page of the last transaction, of the two that there are."""
    first = _parse_meta(_pread(descriptor, source, _PAGE.size, _META.size))
    # The offset of the second follows from the first, which may be half written.
    found = [first] if first else []
    for page_size in [first.page_size] if first else _PAGE_SIZES:
        second = _parse_meta(_pread(descriptor, source, page_size + _PAGE.size, _META.size))
        if second and second.page_size == page_size:
            found.append(second)
            break
    if not found:
        raise UnreadableError(f"{source}: not a Bolt database")
    return max(found, key=lambda meta: meta.transaction)


def _parse_meta(data: bytes) -> _Meta | None:
    if len(data) < _META.size:
        return None
    magic, version, page_size, _, root, _, _, pages, transaction, checksum = _META.unpack(data)
    if (magic, version, checksum) != (_MAGIC, _VERSION, _fnv1a(data[:-8])) or page_size not in _PAGE_SIZES:
        return None
    return _Meta(page_size, root, pages, transaction) if pages <= _PAGES_MAX else None


def _fnv1a(data: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def _pread(descriptor: int, source: str, start: int, size: int) -> bytes:
    try:
        return os.pread(descriptor, size, start)
    except OSError as error:
        raise UnreadableError(f"{source}: {error.strerror}") from error
