# SPDX-License-Identifier: Apache-2.0
"""Files of records, and kernel logs -> a collection of what they tell.

Bad lines are counted, and never end anything.
"""

import codecs
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain
from typing import NamedTuple

from tracer.base.errors import TracerError
from tracer.encoding.decoder import InvalidRecordError, RecordReader, read_json
from tracer.logs import kmsg
from tracer.logs.log_file import LogFile
from tracer.logs.remarks import Remark
from tracer.records.model import OomKill
from tracer.report.incidents import Collection
from tracer.report.log import LogReader

LONGEST_LINE_BYTES = 1 << 20
_SAMPLE_LINES = 64
_SAMPLE_BYTES = 1 << 20
_JOURNAL = re.compile(rb'\s*\{[^\n]*"(?:__CURSOR|_BOOT_ID|_TRANSPORT)":')
"""How ``journalctl -o json`` begins."""
_KERNEL = re.compile(rb'"_TRANSPORT": ?"kernel"')
_MARK = b"schema"
"""A field of each record."""


class InputFile(NamedTuple):
    """A file that was read."""

    name: str
    bad: int
    """Lines that are no records."""


class ReportInputs:
    """Reads one file after the other into a collection."""

    def __init__(self, collection: Collection, is_wanted: Callable[[OomKill], bool] = lambda _kill: True) -> None:
        self._collection = collection
        self._is_wanted = is_wanted
        self._records = RecordReader()
        self._kills = LogReader(self._hear)
        self.read_so_far: list[InputFile] = []

    def read(self, path: str) -> None:
        """Read a file, compressed or not, standard input (``-``), or this boot's log (``/dev/kmsg``).

        Raises TracerError where it cannot be read to its end; what came before that counts.
        """
        if path == kmsg.PATH:
            self._kills.read_this_boot()
            self.read_so_far.append(InputFile(path, 0))
            return
        file = LogFile(path)
        try:
            blocks = _UpToDamage(file.blocks())
            bad = self._blocks(blocks, file)
        finally:
            file.close()
        if bad is not None:
            self.read_so_far.append(InputFile(file.name, bad))
        if blocks.damage is not None:
            raise blocks.damage
        if bad is None:
            hint = (
                "give files that oomtrace wrote (-o file:PATH), or kernel logs (dmesg, journalctl -k -o json, "
                "not json-pretty, syslog)"
            )
            raise TracerError(f"{file.name} has neither records nor lines of a kernel log", hint)

    def end(self) -> None:
        """All are read: no other log goes on with what the last one left open."""
        self._kills.end_all()

    def remarks(self) -> Iterator[Remark]:
        """What kernel logs have beside the kills that are read in them."""
        return self._kills.remarks()

    def _blocks(self, blocks: "_UpToDamage", file: LogFile) -> int | None:
        """How many bad lines there are in a file; None: it is nothing that is read here."""
        begin = b""
        for block in blocks:
            begin += block
            if len(begin) >= _SAMPLE_BYTES or begin.count(b"\n") >= _SAMPLE_LINES:
                break
        if not begin and blocks.damage is not None:
            return None
        begin = begin.removeprefix(codecs.BOM_UTF8)
        rest = chain((begin,), blocks)
        has_records = not begin.strip() or _has_records(begin)
        if has_records and _JOURNAL.match(begin) is None:
            return sum(not self._takes(line) for line in split_lines(rest) if line.strip())
        # A journal may be of the whole host: the kernel's lines among oomtrace's records.
        return self._log(rest, file, has_records)

    def _log(self, blocks: Iterable[bytes], file: LogFile, has_records: bool) -> int | None:
        """``has_records``: then lines that are neither records nor the kernel's are bad ones."""
        bad, is_known, kills = 0, has_records, self._kills

        def heard() -> Iterator[bytes]:
            for block in blocks:
                kills.feed(block)
                yield block

        kills.begin(file)
        for line in split_lines(heard(), b"" if has_records else _MARK):
            # In a log what is indented may go on with a name: nobody can make a record by giving one.
            if line[:1] == b"{" and _MARK in line and self._takes(line):
                is_known = True
            elif has_records:
                bad += bool(line.strip()) and _KERNEL.search(line) is None
            else:
                bad += _is_meant(line)
        kills.end()
        return bad if is_known or kills.recognized else None

    def _takes(self, line: bytes) -> bool:
        try:
            self._add(read_json(line))
        except InvalidRecordError:
            return False
        return True

    def _hear(self, record: object, lines: tuple[str, ...]) -> None:
        with suppress(InvalidRecordError):
            self._add(record, lines)

    def _add(self, record: object, lines: tuple[str, ...] = ()) -> None:
        checked = self._records.conform(record)
        if checked is not None and (checked["type"] != "oom_kill" or self._is_wanted(checked)):
            self._collection.add(checked, lines)


class _UpToDamage:
    """What can be read of a file, block by block."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self.damage: TracerError | None = None
        """Why that is not all."""

    def __iter__(self) -> "_UpToDamage":
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._blocks)
        except TracerError as error:
            self.damage = error
            raise StopIteration from error


def _has_records(begin: bytes) -> bool:
    """Whether one of the first lines has a record."""
    return any(map(_is_meant, begin.split(b"\n", _SAMPLE_LINES)[:_SAMPLE_LINES]))


def _is_meant(line: bytes) -> bool:
    """Whether it is a record, or would be one if its fields were right; never an indented line."""
    if line[:1] != b"{":
        return False
    try:
        value = read_json(line)
    except InvalidRecordError:
        return False
    return "schema" in value and "type" in value


def split_lines(blocks: Iterable[bytes], word: bytes = b"") -> Iterator[bytes]:
    """Lines; the last one may lack its end.  One that is too long comes as something that is no record.

    With ``word`` those that do not have it may be left out.
    """
    rest, overlong = b"", False
    for block in blocks:
        data = rest + block
        if word not in data:
            end = data.rfind(b"\n") + 1
            rest, overlong = data[end:], overlong and not end
        else:
            *lines, rest = data.split(b"\n")
            for line in lines:
                yield b"overlong" if overlong else line
                overlong = False
        if len(rest) > LONGEST_LINE_BYTES:
            rest, overlong = b"", True
    if rest or overlong:
        yield b"overlong" if overlong else rest
