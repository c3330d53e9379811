# SPDX-License-Identifier: Apache-2.0
"""Numbers the boots of each host in a log as journalctl does: 1 is the first in the log, 0 the last.

The journal names boots. In other logs a boot begins with the kernel's first line, or when the uptime goes back.
"""

import tempfile
from collections.abc import Iterator
from heapq import merge
from itertools import chain
from typing import IO

import orjson

from tracer.encoding import encoder
from tracer.logs.log_line import Origin
from tracer.logs.victim_report import VictimReport
from tracer.records.model import OomKill

_UNORDERED_NS = 1_000_000_000
"""printk's clocks on two CPUs differ by less."""
_IN_MEMORY_BYTES = 1 << 20


class Boots:
    """Numbers the boots of each host, from 1."""

    def __init__(self) -> None:
        self._numbers: dict[str | None, int] = {}
        self._named: dict[Origin, int] = {}
        self._uptime_ns: dict[str | None, int] = {}

    def last_number(self, host: str | None) -> int:
        """The number of boots of a host so far."""
        return self._numbers.get(host, 0)

    def begin_boot(self, origin: Origin) -> None:
        """A host boots."""
        if origin.boot_id is not None:
            self._name(origin)
        else:
            self._numbers[origin.host] = self.last_number(origin.host) + 1
            self._uptime_ns.pop(origin.host, None)

    def number_of(self, report: VictimReport, origin: Origin) -> int:
        """The boot number of a kill; kills come in the order of the log."""
        if origin.boot_id is not None:
            return self._name(origin)
        if report.clock == "printk" and report.time_ns is not None:
            if report.time_ns + _UNORDERED_NS < self._uptime_ns.get(origin.host, 0):
                self.begin_boot(origin)
            self._uptime_ns[origin.host] = report.time_ns
        return self._numbers.setdefault(origin.host, 1)

    def _name(self, origin: Origin) -> int:
        if origin not in self._named:
            self._named[origin] = self._numbers[origin.host] = self.last_number(origin.host) + 1
        return self._named[origin]


class LatestBoots:
    """Holds back kills until the last boot is known: in files, because there may be many."""

    def __init__(self, boots: Boots, back: int) -> None:
        self._boots = boots
        self._back = back
        self._held: dict[tuple[str | None, int], IO[bytes]] = {}
        self._all_dated = True

    def add(self, record: OomKill, host: str | None, number: int) -> None:
        """Hold back a kill of a host's ``number``-th boot."""
        for key in [key for key in self._held if key[0] == host and key[1] < self._released_number(host)]:
            self._held.pop(key).close()
        if number < self._released_number(host):
            return
        file = self._held.get((host, number))
        if file is None:
            file = self._held[host, number] = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115
        file.write(encoder.encode(record))
        self._all_dated = self._all_dated and record["time"] is not None

    def release(self) -> Iterator[OomKill]:
        """The kills of the boot that is ``back`` before the last one of their host; several hosts' kills come in the
        order of time, if all have one."""
        files = []
        for (host, number), file in self._held.items():
            if number == self._released_number(host):
                file.seek(0)
                files.append(map(orjson.loads, file))
        yield from merge(*files, key=_time) if self._all_dated else chain(*files)
        for file in self._held.values():
            file.close()
        self._held, self._all_dated = {}, True

    def _released_number(self, host: str | None) -> int:
        return self._boots.last_number(host) - self._back


def latest_kills(records: list[OomKill], count: int) -> list[OomKill]:
    """The latest ``count`` kills: by time if all have one, else by their order in the log."""
    if all(record["time"] is not None for record in records):
        records = sorted(records, key=_time)
    return records[-count:]


def _time(record: OomKill) -> str:
    return record["time"] or ""
