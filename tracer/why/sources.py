# SPDX-License-Identifier: Apache-2.0
"""Where kills are on record: oomtrace's own records in files and in the journal, and kernel logs.

Out come records, each with its source, and when this host was watched.  A source that cannot be read is
told, and the others are read.
"""

import glob
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from tracer.base.clock import boottime_to_rfc3339, suspended_ns
from tracer.base.errors import TracerError
from tracer.encoding.decoder import Records, UnfitError
from tracer.identity import enrich
from tracer.logs import kmsg
from tracer.logs.kills import KillSearch
from tracer.logs.kmsg import Kmsg
from tracer.logs.log_file import LogFile, UnopenedError
from tracer.records.model import Host, OomExit, Record
from tracer.records.same_kill import ExitIndex, KillRecord
from tracer.why.coverage import Coverage, StreamPart, stream_coverage

RECORDS = "/var/log/oomtrace/*.json*"
"""Where the service may write to, and what logrotate makes of it."""
JOURNAL = (
    "journalctl", "--quiet", "--no-pager", "--all", "--unit=oomtrace", "--output=json",
    "--output-fields=MESSAGE,OOMTRACE_RECORD",
)  # fmt: skip
"""The unit's entries: its records, and what else it said, which is none.  Without --all long ones are left out."""
_LONGEST_BYTES = 1 << 20


class FoundKill(NamedTuple):
    """A kill, and where it is on record."""

    kill: KillRecord
    source: str
    exit: OomExit | None = None
    is_given: bool = False
    """Whether the user named the source."""


class SearchedSource(NamedTuple):
    """What a source can tell of."""

    source: str
    since: str | None
    """The first moment from which on it has kills; None: not known."""
    missing: int = 0
    """Kills of which it says that they have no record."""
    is_given: bool = False


class Sources(NamedTuple):
    found: list[FoundKill]
    """All kills, in no order; the same kill once for each source."""
    watched: list[SearchedSource]
    coverages: list[Coverage]
    """When this host was watched, by whichever of them."""
    problems: list[str]
    """Sources that could not be read, or not all of them, and why."""
    exits: ExitIndex
    """Of all kills: rotation may come between the two records of one."""


def read_sources(
    records: list[str], logs: list[str], find: enrich.FetchMetadata, wanted: Callable[[KillRecord], bool], host: Host
) -> Sources:
    """The wanted kills of all sources.

    ``records`` are files of oomtrace's; none: those of the service, and its journal.  ``logs`` are kernel logs; this
    boot's is read, too.  ``find`` names the containers in the latter.  ``host`` is this one.
    """
    sources = Sources([], [], [], [], ExitIndex())
    parts: list[StreamPart] = []

    def part() -> StreamPart:
        parts.append(StreamPart(host))
        return parts[-1]

    for path in records or sorted(glob.glob(RECORDS)):
        _attempt(sources, lambda path=path: _read_file(sources, path, wanted, part(), bool(records)))  # type: ignore[misc]
    if not records and shutil.which(JOURNAL[0]) is not None:
        _attempt(sources, lambda: _read_journal(sources, wanted, part()))
    sources.coverages.extend(stream_coverage(parts, host["boot_id"]))
    for path in (kmsg.PATH, *(log for log in logs if log != kmsg.PATH)):
        _attempt(sources, lambda path=path: _read_log(sources, path, find, wanted, path in logs))  # type: ignore[misc]
    sources.found[:] = [each._replace(exit=sources.exits.find(each.kill)) for each in sources.found]
    return sources


def _attempt(sources: Sources, reading: Callable[[], None]) -> None:
    try:
        reading()
    except TracerError as error:
        sources.problems.append(str(error))


def _read_file(
    sources: Sources, path: str, wanted: Callable[[KillRecord], bool], part: StreamPart, is_given: bool
) -> None:
    file = LogFile(path)
    try:
        _read_records(sources, file.name, file.blocks(), wanted, part, is_given=is_given)
    except TracerError:
        part.is_damaged = True
        raise
    finally:
        file.close()


def _read_journal(sources: Sources, wanted: Callable[[KillRecord], bool], part: StreamPart) -> None:
    with subprocess.Popen(
        JOURNAL, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as reader:
        output = reader.stdout
        assert output is not None
        _read_records(sources, "journal", iter(lambda: output.read(1 << 20), b""), wanted, part, is_pure=False)
    if reader.returncode:
        part.is_damaged = True
        sources.problems.append(f"journalctl: exit code {reader.returncode}")


def _read_records(
    sources: Sources,
    source: str,
    blocks: Iterable[bytes],
    wanted: Callable[[KillRecord], bool],
    part: StreamPart,
    is_pure: bool = True,
    is_given: bool = False,
) -> None:
    """``is_pure``: other lines than records are damage; ``is_given``: the user named the source."""
    found: dict[tuple[str | None, str], FoundKill] = {}
    since: str | None = None
    missing, unfit = 0, 0
    records = Records()
    try:
        for line in _lines(blocks):
            try:
                record = records.read(line)
            except UnfitError:
                unfit += 1
                continue
            if record is None:
                continue
            since = _earlier(since, record)
            part.add(record)
            if record["type"] == "oom_kill" or record["type"] == "sigkill":
                if wanted(record):
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
            sources.watched.append(SearchedSource(source, since, missing, is_given))
    if is_pure and unfit:
        sources.problems.append(f"{source}: {unfit} lines are no records of oomtrace, and were passed over")


def _earlier(since: str | None, record: Record) -> str | None:
    """A kill that was found later, in the kernel log, does not tell when the tracer began."""
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
        yield rest  # a line that is being written is no JSON yet


def _read_log(
    sources: Sources, path: str, find: enrich.FetchMetadata, wanted: Callable[[KillRecord], bool], is_given: bool
) -> None:
    source = "kernel log" if path == kmsg.PATH else f"log {path}"
    is_open = True
    kills = KillSearch()
    try:
        for record in kills.kills([path]):
            cgroup = record["victim"]["cgroup"]
            enrich.set_identity(
                record,
                enrich.resolve_cgroup(cgroup, find) if cgroup is not None else enrich.resolve_container(record, find),
            )
            if wanted(record):
                sources.found.append(FoundKill(record, source, is_given=is_given))
    except UnopenedError:
        is_open = False
        raise
    finally:
        sources.problems.extend(remark.text_with_hint() for remark in kills.remarks())
        if is_open:
            since = _first_line() if path == kmsg.PATH else None
            sources.watched.append(SearchedSource(source, since, is_given=is_given))
            if since is not None:
                sources.coverages.append(Coverage(since, None, "off"))


def _first_line() -> str | None:
    """When the first line was written that the kernel still has."""
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
