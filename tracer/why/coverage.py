# SPDX-License-Identifier: Apache-2.0
"""Times in which kills were recorded: only then does the absence of a record mean that there was no kill.

A tracer writes a start record and, when it is stopped, a stop record.  If it ends otherwise, the last record of a boot
is the last proof that it was running.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from tracer.config.options import SigkillOption
from tracer.records.model import Host, Record
from tracer.records.unix_time import unix_seconds


class Coverage(NamedTuple):
    """A time in which every kill was recorded, or counted as missing."""

    since: str
    until: str | None
    """None: it continues."""
    sigkills: SigkillOption
    """Scope in which SIGKILLs of other senders than the OOM killer were recorded, too."""


class _Mark(NamedTuple):
    time: str
    kind: Literal["stop", "start", "first", "last"]
    """``first`` and ``last``: records of a part of the stream; ``last`` only if the rest of the part is unreadable."""
    sigkills: SigkillOption = "off"
    adopted: bool = False
    """Whether the capture continued since the previous stop."""


class StreamPart:
    """The part of a stream of records that is in one file."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._spans: dict[str | None, tuple[str, str]] = {}
        """First and last time, by boot id."""
        self._marks: dict[str | None, list[_Mark]] = {}
        self._has_sigkills = False
        self.is_damaged = False

    def add(self, record: Record) -> None:
        """Add a record; those of other hosts are ignored."""
        time, host = record["time"], record["host"]
        if time is None or not (host["boot_id"] == self._host["boot_id"] or _has_same_name(host, self._host)):
            return
        if record["type"] == "oom_kill" and record["source"] == "kernel_log":
            return  # recovered afterwards
        boot = host["boot_id"]
        first, last = self._spans.get(boot, (time, time))
        self._spans[boot] = min(first, time), max(last, time)
        if record["type"] == "start":
            self._marks.setdefault(boot, []).append(_Mark(time, "start", record["sigkill"], record["adopted"]))
        elif record["type"] == "stop":
            self._marks.setdefault(boot, []).append(_Mark(time, "stop"))
        elif record["type"] == "sigkill":
            self._has_sigkills = True

    def last_times(self) -> Iterable[tuple[str | None, str]]:
        """Boot ids, each with the time of its last record."""
        return [(boot, last) for boot, (_, last) in self._spans.items()]

    def marks(self) -> Iterable[tuple[str | None, _Mark]]:
        """Boot ids, each with a mark that begins or ends a coverage."""
        for boot, (first, last) in self._spans.items():
            # The start record, which has the scope of SIGKILL records, may be in an older file.
            yield boot, _Mark(first, "first", "containers" if self._has_sigkills else "off")
            if self.is_damaged:
                yield boot, _Mark(last, "last")
        for boot, marks in self._marks.items():
            yield from ((boot, mark) for mark in marks)


def stream_coverage(parts: Iterable[StreamPart], boot_id: str | None) -> list[Coverage]:
    """Coverages of a stream in order of time; its parts come in any order, and may repeat each other.

    ``boot_id``: the current boot, whose last coverage continues.
    """
    by_boot: dict[str | None, list[_Mark]] = {}
    last_of: dict[str | None, str] = {}
    for part in parts:
        for boot, last in part.last_times():
            last_of[boot] = max(last, last_of.get(boot, last))
        for boot, mark in part.marks():
            by_boot.setdefault(boot, []).append(mark)
    found: list[Coverage] = []
    for boot, marks in by_boot.items():
        end = None if boot is not None and boot == boot_id else last_of[boot]
        found += _join_marks(sorted(set(marks), key=_mark_order), end)
    return _sorted(found)


def covers(coverage: Coverage | None, at_s: float) -> bool:
    """Whether kills were recorded at this Unix time."""
    since_s, until_s = (
        (None, None) if coverage is None else (unix_seconds(coverage.since), unix_seconds(coverage.until))
    )
    return since_s is not None and since_s <= at_s and (until_s is None or at_s <= until_s)


def coverage_at(at_s: float | None, coverages: Sequence[Coverage]) -> Coverage | None:
    """The coverage at this Unix time, else the last one before it, else (also without a time) the first one."""
    found = _sorted(coverages)
    before = [each for each in found if at_s is not None and (unix_seconds(each.since) or 0) <= at_s]
    then = [each for each in before if at_s is not None and covers(each, at_s)]
    return next(iter(then or before[-1:] or found), None)


def _sorted(coverages: Iterable[Coverage]) -> list[Coverage]:
    return sorted(coverages, key=lambda each: each.since)


def _join_marks(marks: list[_Mark], end: str | None) -> list[Coverage]:
    found: list[Coverage] = []
    is_open = False
    for mark in marks:
        if mark.kind in ("stop", "last"):
            if is_open:
                found[-1] = found[-1]._replace(until=mark.time)
            is_open = False
        elif mark.kind == "start" or not is_open:
            since = mark.time
            if is_open:
                found[-1] = found[-1]._replace(until=mark.time)
            elif mark.adopted and found and found[-1].until is not None:
                since = found[-1].until
            found.append(Coverage(since, end, mark.sigkills))
            is_open = True
    return found


def _mark_order(mark: _Mark) -> tuple[str, int]:
    return mark.time, ("start", "first", "stop", "last").index(mark.kind)


def _has_same_name(one: Host, other: Host) -> bool:
    names = [(each["name"] or "").partition(".")[0] for each in (one, other)]
    return names[0] == names[1] != ""
