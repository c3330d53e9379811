# SPDX-License-Identifier: Apache-2.0
"""Read kills from oomtrace's records, in files and in the journal, and from kernel logs.

The result has each record with its source, and the times in which kills of this host were recorded.  A source that
cannot be read is reported as a problem; the others are read.
"""

import glob
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from tracer.base.clock import boottime_to_rfc3339, suspended_ns
from tracer.base.errors import TracerError
from tracer.encoding.decoder import InvalidRecordError, RecordReader
from tracer.identity import enrich
from tracer.logs import kmsg
from tracer.logs.kills import KillSearch
from tracer.logs.kmsg import Kmsg
from tracer.logs.log_file import LogFile, UnopenedError
from tracer.records.model import Host, OomExit, Record
from tracer.records.same_kill import ExitIndex, KillRecord
from tracer.why.coverage import Coverage, StreamPart, stream_coverage

RECORDS = "/var/log/oomtrace/*.json*"
"""Files that the service may write, with those that logrotate made of them."""
JOURNAL = (
    "journalctl", "--quiet", "--no-pager", "--all", "--unit=oomtrace", "--output=json",
    "--output-fields=MESSAGE,OOMTRACE_RECORD",
)  # fmt: skip
"""Entries of the service's unit: records and messages.  Without --all, journalctl omits long fields."""
_LONGEST_BYTES = 1 << 20


class FoundKill(NamedTuple):
    """The record of a kill, and its source."""

    kill: KillRecord
    source: str
    exit: OomExit | None = None
    is_given: bool = False
    """Whether the source was given on the command line."""


class SearchedSource(NamedTuple):
    """A source that was read."""

    source: str
    since: str | None
    """Time of its first record or line; None: unknown."""
    missing: int = 0
    """Kills that it counts as lost or without a record."""
    is_given: bool = False


class Sources(NamedTuple):
    found: list[FoundKill]
    """All matching kills, unordered; a kill in several sources stands here several times."""
    searched: list[SearchedSource]
    coverages: list[Coverage]
    """Times in which kills of this host were recorded, of all sources."""
    problems: list[str]
    """Error messages of sources that could not be read completely."""
    exits: ExitIndex
    """Exits of all files: rotation may separate a kill from its exit."""


def read_sources(
    records: list[str],
    logs: list[str],
    fetch_metadata: enrich.FetchMetadata,
    matches: Callable[[KillRecord], bool],
    host: Host,
) -> Sources:
    """Read the kills for which ``matches`` is true from all sources.

    ``records``: files of oomtrace records; if empty, those of the service, and the journal of its unit.  ``logs``:
    kernel logs, read in addition to this boot's.  ``fetch_metadata`` supplies container names for the latter.
    ``host``: this host.
    """
    sources = Sources([], [], [], [], ExitIndex())
    parts: list[StreamPart] = []

    def part() -> StreamPart:
        parts.append(StreamPart(host))
        return parts[-1]

    for path in records or sorted(glob.glob(RECORDS)):
        _read_or_report(sources, lambda path=path: _read_file(sources, path, matches, part(), bool(records)))  # type: ignore[misc]
    if not records and shutil.which(JOURNAL[0]) is not None:
        _read_or_report(sources, lambda: _read_journal(sources, matches, part()))
    sources.coverages.extend(stream_coverage(parts, host["boot_id"]))
    for path in (kmsg.PATH, *(log for log in logs if log != kmsg.PATH)):
        _read_or_report(sources, lambda path=path: _read_log(sources, path, fetch_metadata, matches, path in logs))  # type: ignore[misc]
    sources.found[:] = [each._replace(exit=sources.exits.find(each.kill)) for each in sources.found]
    return sources


def _read_or_report(sources: Sources, read: Callable[[], None]) -> None:
    try:
        read()
    except TracerError as error:
        sources.problems.append(str(error))


def _read_file(
    sources: Sources, path: str, matches: Callable[[KillRecord], bool], part: StreamPart, is_given: bool
) -> None:
    file = LogFile(path)
    try:
        _read_records(sources, file.name, file.blocks(), matches, part, is_given=is_given)
    except TracerError:
        part.is_damaged = True
        raise
    finally:
        file.close()


def _read_journal(sources: Sources, matches: Callable[[KillRecord], bool], part: StreamPart) -> None:
    with subprocess.Popen(
        JOURNAL, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as reader:
        output = reader.stdout
        assert output is not None
        _read_records(sources, "journal", iter(lambda: output.read(1 << 20), b""), matches, part, is_pure=False)
    if reader.returncode:
        part.is_damaged = True
        sources.problems.append(f"journalctl: exit code {reader.returncode}")


def _read_records(
    sources: Sources,
    source: str,
    blocks: Iterable[bytes],
    matches: Callable[[KillRecord], bool],
    part: StreamPart,
    is_pure: bool = True,
    is_given: bool = False,
) -> None:
    """``is_pure``: lines that are not records count as a problem; ``is_given``: the source is from the command line."""
    found: dict[tuple[str | None, str], FoundKill] = {}
    since: str | None = None
    missing, bad = 0, 0
    records = RecordReader()
    try:
        for line in _lines(blocks):
            try:
                record = records.read(line)
            except InvalidRecordError:
                bad += 1
                continue
            if record is None:
                continue
            since = _earlier_time(since, record)
            part.add(record)
            if record["type"] == "oom_kill" or record["type"] == "sigkill":
                if matches(record):
                    found[record["host"]["name"], record["id"]] = FoundKill(record, source, is_given=is_given)
            elif record["type"] == "oom_exit":
                sources.exits.add(record)
            elif record["type"] == "gap":
                missing += record["missing"]
            elif record["type"] == "lost":
                missing += record["count"]
    finally:
        sources.found.extend(found.values())
        if since is not None:
            sources.searched.append(SearchedSource(source, since, missing, is_given))
    if is_pure and bad:
        sources.problems.append(f"{source}: {bad} lines are not oomtrace records and were skipped")


def _earlier_time(since: str | None, record: Record) -> str | None:
    """The earlier time; a kill recovered from the kernel log does not show when tracing started."""
    time = record["time"]
    if time is None or (record["type"] == "oom_kill" and record["source"] == "kernel_log"):
        return since
    return time if since is None or time < since else since


def _lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for block in blocks:
        *lines, rest = (rest + block).split(b"\n")
        yield from filter(None, lines)
        if len(rest) > _LONGEST_BYTES:
            rest = b""
    if rest:
        yield rest  # a line that is still being written: not yet JSON


def _read_log(
    sources: Sources,
    path: str,
    fetch_metadata: enrich.FetchMetadata,
    matches: Callable[[KillRecord], bool],
    is_given: bool,
) -> None:
    source = "kernel log" if path == kmsg.PATH else f"log {path}"
    is_open = True
    kills = KillSearch()
    try:
        for record in kills.kills([path]):
            cgroup = record["victim"]["cgroup"]
            enrich.set_identity(
                record,
                enrich.resolve_cgroup(cgroup, fetch_metadata)
                if cgroup is not None
                else enrich.resolve_container(record, fetch_metadata),
            )
            if matches(record):
                sources.found.append(FoundKill(record, source, is_given=is_given))
    except UnopenedError:
        is_open = False
        raise
    finally:
        sources.problems.extend(remark.text_with_hint() for remark in kills.remarks())
        if is_open:
            since = _oldest_line() if path == kmsg.PATH else None
            sources.searched.append(SearchedSource(source, since, is_given=is_given))
            if since is not None:
                sources.coverages.append(Coverage(since, None, "off"))


def _oldest_line() -> str | None:
    """Time of the oldest line in the kernel's log buffer."""
    try:
        log = Kmsg()
    except OSError:
        return None
    try:
        for line in log.read():
            return None if line.time_ns is None else boottime_to_rfc3339(line.time_ns + suspended_ns())
    finally:
        log.close()
    return None
