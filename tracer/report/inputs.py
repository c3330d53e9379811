# SPDX-License-Identifier: Apache-2.0
"""Files of records, and kernel logs -> a collection of what they tell.

Bad lines are counted, and never end anything.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain
from typing import NamedTuple

from tracer.errors import TracerError
from tracer.logs.files import LogFile
from tracer.recorded import Records, UnfitError, read_json
from tracer.report.incidents import Collection
from tracer.report.log import LogKills

LONGEST_LINE_BYTES = 1 << 20
_SAMPLE_LINES = 64
_SAMPLE_BYTES = 1 << 20
_JOURNAL = re.compile(rb'\s*\{[^\n]*"(?:__CURSOR|_BOOT_ID|_TRANSPORT)":')
"""How ``journalctl -o json`` begins."""
_KERNEL = re.compile(rb'"_TRANSPORT": ?"kernel"')
_MARK = b"schema"
"""A field of each record."""


class Input(NamedTuple):
    """What was in a file."""

    name: str
    kind: str
    """``records`` or ``kernel log``."""
    records: int
    bad: int
    """Lines that are no records."""


class Inputs:
    """Reads one file after the other into a collection."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._records = Records()
        self.read_so_far: list[Input] = []

    def read(self, path: str) -> None:
        """Read a file, compressed or not, or standard input (``-``).

        Raises TracerError where it cannot be read to its end; what came before that counts.
        """
        file = LogFile(path)
        try:
            blocks = file.blocks()
            begin = b""
            for block in blocks:
                begin += block
                if len(begin) >= _SAMPLE_BYTES or begin.count(b"\n") >= _SAMPLE_LINES:
                    break
            rest = chain((begin,), blocks)
            has_records = not begin.strip() or _has_records(begin)
            if _JOURNAL.match(begin) is not None:  # of the whole host: the kernel's lines among oomtrace's records
                self._log(file, rest, has_records, _MARK)
            elif has_records:
                self._lines(file.name, rest)
            else:
                self._log(file, rest)
        finally:
            file.close()

    def _lines(self, name: str, blocks: Iterable[bytes]) -> None:
        found = bad = 0
        try:
            for line in split_lines(blocks):
                if not line.strip():
                    continue
                try:
                    record = self._records.read(line)
                except UnfitError:
                    bad += 1
                    continue
                if record is not None:
                    found += 1
                    self._collection.add(record)
        finally:
            self.read_so_far.append(Input(name, "records", found, bad))

    def _log(
        self, file: LogFile, blocks: Iterable[bytes], has_records: bool = False, mark: bytes | None = None
    ) -> None:
        """``mark``: lines that have this may be records; the log's reader passes over those."""
        found = 0

        def add(record: object, lines: tuple[str, ...] = ()) -> None:
            nonlocal found
            checked = self._records.conform(record)
            if checked is not None:
                found += 1
                self._collection.add(checked, lines)

        def hear(record: object, lines: tuple[str, ...]) -> None:
            with suppress(UnfitError):
                add(record, lines)

        bad = 0
        kills = LogKills(file.written_ns, hear)

        def heard() -> Iterator[bytes]:
            for block in blocks:
                kills.feed(block)
                yield block

        try:
            for line in split_lines(heard()) if mark is not None else heard():
                if mark is None or not line.strip():
                    continue
                try:
                    if mark not in line:
                        raise UnfitError
                    add(read_json(line))
                except UnfitError:
                    bad += has_records and _KERNEL.search(line) is None
        finally:
            kills.end()
            self.read_so_far.append(Input(file.name, "records" if has_records else "kernel log", found, bad))
        if not kills.recognized and not found and not has_records:
            hint = (
                "give files that oomtrace wrote (-o file:PATH), or kernel logs (dmesg, journalctl -k -o json, "
                "not json-pretty, syslog)"
            )
            raise TracerError(f"{file.name} has neither records nor lines of a kernel log", hint)


def _has_records(begin: bytes) -> bool:
    """Whether one of the first lines has a record, or what would be one if its fields were right."""
    for line in begin.split(b"\n", _SAMPLE_LINES)[:_SAMPLE_LINES]:
        if not line.lstrip().startswith(b"{"):
            continue
        try:
            value = read_json(line)
        except UnfitError:
            continue
        if "schema" in value and "type" in value:
            return True
    return False


def split_lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Lines; the last one may lack its end.  One that is too long comes as something that is no record."""
    rest, overlong = b"", False
    for block in blocks:
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            yield b"overlong" if overlong else line
            overlong = False
        if len(rest) > LONGEST_LINE_BYTES:
            rest, overlong = b"", True
    if rest or overlong:
        yield b"overlong" if overlong else rest
