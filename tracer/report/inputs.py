# SPDX-License-Identifier: Apache-2.0
"""Files of records and kernel logs -> a collection of kills.

Bad lines are counted and skipped.
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
"""Beginning of ``journalctl -o json``."""
_KERNEL = re.compile(rb'"_TRANSPORT": ?"kernel"')
_RECORD_FIELD = b"schema"
"""Every record has this field."""


class InputFile(NamedTuple):
    """A file that was read."""

    name: str
    bad: int
    """Lines that are not records."""


class ReportInputs:
    """Reads files into a collection, one after the other."""

    def __init__(self, collection: Collection, matches: Callable[[OomKill], bool] = lambda _kill: True) -> None:
        self._collection = collection
        self._matches = matches
        self._records = RecordReader()
        self._kills = LogReader(self._add_kill)
        self.read_so_far: list[InputFile] = []

    def read(self, path: str) -> None:
        """Read a file, compressed or not, standard input (``-``), or this boot's log (``/dev/kmsg``).

        Raises TracerError if it cannot be read completely; the part before the error counts.
        """
        if path == kmsg.PATH:
            self._kills.read_this_boot()
            self.read_so_far.append(InputFile(path, 0))
            return
        file = LogFile(path)
        try:
            blocks = _ReadableBlocks(file.blocks())
            bad = self._read_blocks(blocks, file)
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
        """No more files: end the report that the last log left incomplete."""
        self._kills.end_all()

    def remarks(self) -> Iterator[Remark]:
        """Remarks about kernel logs: unreadable lines, kills by other killers."""
        return self._kills.remarks()

    def _read_blocks(self, blocks: "_ReadableBlocks", file: LogFile) -> int | None:
        """Number of bad lines; None: neither records nor a kernel log."""
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
            return sum(not self._add_line(line) for line in split_lines(rest) if line.strip())
        # The journal of a whole host has kernel lines among oomtrace's records.
        return self._read_log(rest, file, has_records)

    def _read_log(self, blocks: Iterable[bytes], file: LogFile, has_records: bool) -> int | None:
        """As ``_read_blocks()``.  ``has_records``: lines that are neither records nor the kernel's are bad."""
        bad, is_recognized, kills = 0, has_records, self._kills

        def copy_to_kills() -> Iterator[bytes]:
            for block in blocks:
                kills.feed(block)
                yield block

        kills.begin(file)
        for line in split_lines(copy_to_kills(), b"" if has_records else _RECORD_FIELD):
            # An indented line in a log may continue a process name, and must not be taken for a record.
            if line[:1] == b"{" and _RECORD_FIELD in line and self._add_line(line):
                is_recognized = True
            elif has_records:
                bad += bool(line.strip()) and _KERNEL.search(line) is None
            else:
                bad += _is_record(line)
        kills.end()
        return bad if is_recognized or kills.recognized else None

    def _add_line(self, line: bytes) -> bool:
        try:
            self._add(read_json(line))
        except InvalidRecordError:
            return False
        return True

    def _add_kill(self, record: object, lines: tuple[str, ...]) -> None:
        with suppress(InvalidRecordError):
            self._add(record, lines)

    def _add(self, record: object, lines: tuple[str, ...] = ()) -> None:
        checked = self._records.conform(record)
        if checked is not None and (checked["type"] != "oom_kill" or self._matches(checked)):
            self._collection.add(checked, lines)


class _ReadableBlocks:
    """The readable blocks of a file."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self.damage: TracerError | None = None
        """The error that ended the reading."""

    def __iter__(self) -> "_ReadableBlocks":
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._blocks)
        except TracerError as error:
            self.damage = error
            raise StopIteration from error


def _has_records(begin: bytes) -> bool:
    """Whether one of the first lines is a record."""
    return any(map(_is_record, begin.split(b"\n", _SAMPLE_LINES)[:_SAMPLE_LINES]))


def _is_record(line: bytes) -> bool:
    """Whether a line is a record, possibly an invalid one; an indented line is not."""
    if line[:1] != b"{":
        return False
    try:
        value = read_json(line)
    except InvalidRecordError:
        return False
    return "schema" in value and "type" in value


def split_lines(blocks: Iterable[bytes], word: bytes = b"") -> Iterator[bytes]:
    """Split blocks into lines; the last one may be incomplete.  A line above 1 MiB becomes ``overlong``, not a record.

    With ``word``, lines without it may be omitted.
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
