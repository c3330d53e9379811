# SPDX-License-Identifier: Apache-2.0
"""When somebody watched: only then does it mean something that no kill is on record.

A tracer writes a start record and, told to stop, a stop record; of one that ends otherwise the last record of a boot is
the last proof that it was there.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from tracer.config.options import SigkillOption
from tracer.records.model import Host, Record
from tracer.why.timestamps import unix_seconds


class Coverage(NamedTuple):
    """A time in which every kill was put on record, or counted as missing."""

    since: str
    until: str | None
    """None: it goes on."""
    sigkills: SigkillOption
    """Whose SIGKILLs are on record, too, if they are not the OOM killer's."""


class _Mark(NamedTuple):
    time: str
    kind: Literal["stop", "start", "first", "last"]
    """``first`` and ``last``: of a part of the stream; ``last`` only where more is missing."""
    sigkills: SigkillOption = "off"
    adopted: bool = False
    """Whether nothing was missed since the stop before."""


class StreamPart:
    """Of a stream of records what one file has."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._spans: dict[str | None, tuple[str, str]] = {}
        """The first and the last moment, by the id of the boot."""
        self._marks: dict[str | None, list[_Mark]] = {}
        self._has_sigkills = False
        self.is_damaged = False

    def add(self, record: Record) -> None:
        """Of another host's records nothing follows for this one."""
        time, host = record["time"], record["host"]
        if time is None or not (host["boot_id"] == self._host["boot_id"] or _is_named_alike(host, self._host)):
            return
        if record["type"] == "oom_kill" and record["source"] == "kernel_log":
            return  # found afterwards
        boot = host["boot_id"]
        first, last = self._spans.get(boot, (time, time))
        self._spans[boot] = min(first, time), max(last, time)
        if record["type"] == "start":
            self._marks.setdefault(boot, []).append(_Mark(time, "start", record["sigkill"], record["adopted"]))
        elif record["type"] == "stop":
            self._marks.setdefault(boot, []).append(_Mark(time, "stop"))
        elif record["type"] == "sigkill":
            self._has_sigkills = True

    def lasts(self) -> Iterable[tuple[str | None, str]]:
        """The last moment of each boot."""
        return [(boot, last) for boot, (_, last) in self._spans.items()]

    def marks(self) -> Iterable[tuple[str | None, _Mark]]:
        """What begins and ends watches, by boot."""
        for boot, (first, last) in self._spans.items():
            # Its start may be in an older file, and with it what is on record.
            yield boot, _Mark(first, "first", "containers" if self._has_sigkills else "off")
            if self.is_damaged:
                yield boot, _Mark(last, "last")
        for boot, marks in self._marks.items():
            yield from ((boot, mark) for mark in marks)


def stream_coverage(parts: Iterable[StreamPart], boot_id: str | None) -> list[Coverage]:
    """Of one stream, whose parts come in any order, and some twice; in the order of time.

    ``boot_id`` is that of the boot that lasts.
    """
    by_boot: dict[str | None, list[_Mark]] = {}
    last_of: dict[str | None, str] = {}
    for part in parts:
        for boot, last in part.lasts():
            last_of[boot] = max(last, last_of.get(boot, last))
        for boot, mark in part.marks():
            by_boot.setdefault(boot, []).append(mark)
    found: list[Coverage] = []
    for boot, marks in by_boot.items():
        lasts_until = None if boot is not None and boot == boot_id else last_of[boot]
        found += _joined(sorted(set(marks), key=_order), lasts_until)
    return _in_order(found)


def covers(coverage: Coverage | None, at_s: float) -> bool:
    """Whether it was watched then."""
    since_s, until_s = (
        (None, None) if coverage is None else (unix_seconds(coverage.since), unix_seconds(coverage.until))
    )
    return since_s is not None and since_s <= at_s and (until_s is None or at_s <= until_s)


def coverage_at(at_s: float | None, coverages: Sequence[Coverage]) -> Coverage | None:
    """The one that was then, or else the last before, or else the first; so it is without a time."""
    found = _in_order(coverages)
    before = [each for each in found if at_s is not None and (unix_seconds(each.since) or 0) <= at_s]
    then = [each for each in before if at_s is not None and covers(each, at_s)]
    return next(iter(then or before[-1:] or found), None)


def _in_order(coverages: Iterable[Coverage]) -> list[Coverage]:
    return sorted(coverages, key=lambda each: each.since)


def _joined(marks: list[_Mark], lasts_until: str | None) -> list[Coverage]:
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
            found.append(Coverage(since, lasts_until, mark.sigkills))
            is_open = True
    return found


def _order(mark: _Mark) -> tuple[str, int]:
    return mark.time, ("start", "first", "stop", "last").index(mark.kind)


def _is_named_alike(one: Host, other: Host) -> bool:
    names = [(each["name"] or "").partition(".")[0] for each in (one, other)]
    return names[0] == names[1] != ""
