# SPDX-License-Identifier: Apache-2.0
"""From events to records in the stream: joined, built, enriched, accounted for."""

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from tracer.accounting import backfill
from tracer.accounting.audit import Audit
from tracer.accounting.backfill import Backfill
from tracer.base.log import warn
from tracer.capture import wire
from tracer.capture.ringbuf_retention import Backlog, Place
from tracer.identity import enrich
from tracer.identity.metadata_cache import MetadataCache
from tracer.pipeline.deduplication import Handover
from tracer.pipeline.incidents import Incidents, Kill, Told
from tracer.pipeline.oom_exit import Exits
from tracer.pipeline.oom_kill import Records
from tracer.pipeline.stream import Stream
from tracer.reading.procfs_reader import ProcfsReader
from tracer.records.filter import ExcludedIds, Filter
from tracer.records.model import OomExit, OomKill

if TYPE_CHECKING:
    from tracer.identity.interface_cache import InterfaceCache


class Pipeline:
    """Takes events of one capture, in their order; ``inherited`` ones are those that an older capture left."""

    def __init__(
        self,
        records: Records,
        names: MetadataCache,
        redact: enrich.Redact,
        interfaces: "InterfaceCache | None",
        audit: Audit,
        backlogs: Sequence[Backlog],
        stream: Stream,
        wanted: Filter,
        processes: ProcfsReader,
    ) -> None:
        self._records = records
        self._names = names
        self.redact = redact
        """How command lines are shown."""
        self.wanted = wanted
        """Which kills are told."""
        self._interfaces = interfaces
        self._audit = audit
        self._backlogs = backlogs
        self._stream = stream
        self._processes = processes
        self._exits = Exits(names, processes.lives)
        self._incidents = Incidents()
        self._handover = Handover()
        self.kills = 0
        """oom_kill records that were written."""
        self.filtered = 0
        """Those that the filter left out."""
        self._left_out = ExcludedIds()

    @property
    def incident_is_open(self) -> bool:
        return self._incidents.is_open

    def patience_ns(self) -> int | None:
        """How long to wait for the rest of an incident; None: there is none that lacks something."""
        return self._incidents.patience_ns()

    def next_ns(self) -> int | None:
        """When ``tell_exits`` has to be called, in CLOCK_MONOTONIC; None: there is no need."""
        return self._exits.next_ns()

    def feed(self, event: wire.Event, place: Place) -> None:
        """An event, and where it begins."""
        if isinstance(event, wire.ExitEvent):
            place.backlog.read_exit(self._records.kill_id(event.header.incident_ns, event.pid), place.position)
        else:
            place.backlog.read(event.header.incident_ns, place.position)
        self._tell(self._incidents.feed(event, time.monotonic_ns()))

    def flush(self) -> None:
        """Write what has waited long enough for its other half."""
        self._tell(self._incidents.flush(time.monotonic_ns()))

    def end(self) -> None:
        """Write what waits for its other half, which does not come."""
        self._tell(self._incidents.end())

    def inherit(self, events: Iterable[wire.Event]) -> None:
        """All events that an older capture left."""
        incidents = Incidents()
        for event in events:
            self._tell(incidents.feed(event, 0), inherited=True)
        self._tell(incidents.end(), inherited=True)

    def tell_exits(self, *, all_of_them: bool = False) -> None:
        """Write the exits whose time has come."""
        self._write_exits(self._exits.end() if all_of_them else self._exits.due(time.monotonic_ns()))

    def lose(self, stage: str, error: Exception) -> None:
        """Count what could not be understood, and say so once."""
        if not self._stream.losses(stage):
            warn(f"an event is lost ({stage}): {error!r}; it is counted, as are all that follow")
        self._stream.lose(stage)

    def explain(self, log: Backfill | None, read_events: Callable[[], None]) -> None:
        """Tell the kills that have no record from the kernel log, and how many are not there either."""
        logged = log.kills(self._audit.since_ns) if log else []
        read_events()  # what was logged in this moment
        missing, noted = self._audit.certainly_missing(), []
        if not missing or self.patience_ns() is not None:
            self._audit.touched(time.monotonic_ns())
            return
        for built, killed_ns in backfill.unknown(logged, self._audit.known(), missing):
            incident = built["incident"]
            enrich.enrich_oom_kill(built, None, self._names, self.redact)
            self._write_if_wanted(built, [])
            noted.append((killed_ns, built["victim"], incident["id"] if incident["group_kill"] else None))
        let_go = self._audit.hold()  # on disk too early, they would be lost with this process
        for each in noted:
            self._audit.note(*each)
        is_first, gap = self._audit.is_first, self._audit.settle()
        if gap is not None:
            self._stream.write(gap, is_again=is_first)
        self._stream.once_taken(let_go)

    def _tell(self, joined: Iterable[Told], *, inherited: bool = False) -> None:
        for each in joined:
            self._audit.touched(time.monotonic_ns())
            if isinstance(each, wire.KilledAgainEvent):
                self._audit.note_again(each.header.time_ns, each.tid)
                continue
            write = self._write_exit if isinstance(each, wire.ExitEvent) else self._write_kill
            try:
                write(each, inherited)  # type: ignore[arg-type]
            except Exception as error:  # whatever it is: it would come again at every start
                self.lose("record", error)

    def _write_exit(self, event: wire.ExitEvent, inherited: bool) -> None:
        gone = self._records.oom_exit(event)
        if inherited:
            self._handover.gone(gone)
        complete = self._exits.exited(gone, time.monotonic_ns())
        self._write_exits([complete] if complete else [])

    def _write_kill(self, kill: Kill, inherited: bool) -> None:
        built, victim = self._records.oom_kill(kill), kill.victim
        if inherited:
            self._handover.told(built, victim.header.time_ns)
        elif old_id := self._handover.double_of(built, victim.header.time_ns):
            self._exits.rename(old_id, built["id"])
            return
        known = victim.network_cookie, built["victim"]["cgroup"]
        interfaces = partial(self._interfaces.look_up, *known) if self._interfaces else None
        enrich.enrich_oom_kill(built, victim.started_ns, self._names, self.redact, interfaces, self._processes.look)
        self._exits.killed(built, victim.init_pid, victim.init_started_ns)
        places = [] if inherited else self._places(lambda backlog: backlog.incident(victim.header.incident_ns))
        in_group = built["incident"]["id"] if victim.flags & wire.VICTIM_GROUP else None
        self._audit.note(victim.header.time_ns, built["victim"], in_group, victim.header.incident_ns)
        self._write_if_wanted(built, places)

    def _places(self, find: Callable[[Backlog], int | None]) -> list[Place]:
        """Where in each ring buffer that begins which ``find`` finds there."""
        found = [(backlog, find(backlog)) for backlog in self._backlogs]
        return [Place(backlog, position) for backlog, position in found if position is not None]

    def _write_if_wanted(self, record: OomKill, places: Sequence[Place]) -> None:
        if self.wanted.matches(record):
            self.kills += self._stream.write(record, places)
            return
        self.filtered += 1
        self._left_out.add(record["id"])

    def _write_exits(self, gone: Iterable[OomExit]) -> None:
        for each in gone:
            kill_id = each["id"]
            places = self._places(lambda backlog: backlog.take_exit(kill_id))  # noqa: B023 - called at once
            if self._handover.rename(each) and each["id"] not in self._left_out:
                self._stream.write(each, places)
