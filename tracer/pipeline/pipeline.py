# SPDX-License-Identifier: Apache-2.0
"""Events in, records out: joined, built, completed, noted in the ledger, filtered, written to the stream.

Every record takes the same way, which ends in ``_write``.  The tokens of an event go with its record, and are
given up exactly once: to the stream with the record, or here if there is no record.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from tracer.accounting import backfill
from tracer.accounting.audit import Audit
from tracer.base.log import warn
from tracer.capture import wire
from tracer.capture.kill_buffers import Event
from tracer.capture.ring_buffers import Loss
from tracer.capture.ringbuf_retention import Token, release_all
from tracer.identity import enrich
from tracer.pipeline.deduplication import PreviousKills
from tracer.pipeline.enrichment import Enrichment
from tracer.pipeline.incidents import Incidents, Joined, JoinedKill
from tracer.pipeline.oom_exit import PendingExits
from tracer.pipeline.oom_kill import RecordBuilder
from tracer.pipeline.sigkill import SigkillBuilder
from tracer.pipeline.stream import Stream
from tracer.records.filter import ExcludedIds, Filter
from tracer.records.model import Gap, OomExit, OomKill, Sigkill

PipelineRecord = OomKill | OomExit | Sigkill | Gap
"""The records built here; the stream builds `lost` records, as outputs lose lines, too."""

Tokens = tuple[Token, ...]
"""Tokens of one record's events; none if the events are of a previous capture or the kernel log."""


class Pipeline:
    """Times (``now_ns``, deadlines) are of CLOCK_MONOTONIC."""

    def __init__(
        self,
        records: RecordBuilder,
        sigkills: SigkillBuilder,
        exits: PendingExits,
        enrichment: Enrichment,
        audit: Audit,
        stream: Stream,
        record_filter: Filter,
    ) -> None:
        self._records = records
        self._sigkills = sigkills
        self._exits = exits
        self._enrichment = enrichment
        self._audit = audit
        self._stream = stream
        self._filter = record_filter
        self._incidents = Incidents()
        self._previous_kills = PreviousKills()
        self.kills = 0
        """oom_kill records that were written."""
        self.filtered = 0
        """oom_kill records that the filter excluded."""
        self._excluded = ExcludedIds()

    @property
    def awaits_end(self) -> bool:
        """Whether a victim waits for the end of its incident, which comes within microseconds."""
        return self._incidents.deadline_ns() is not None

    def deadline_ns(self) -> int | None:
        """When ``flush_incident`` and ``flush`` have to be called; None: nothing waits."""
        deadlines = self._incidents.deadline_ns(), self._sigkills.deadline_ns(), self._exits.deadline_ns()
        return min((each for each in deadlines if each is not None), default=None)

    def configure(self, redact: enrich.Redact, record_filter: Filter) -> None:
        """Use this redaction and this filter from now on."""
        self._enrichment.configure(redact)
        self._filter = record_filter

    def feed(self, event: Event, now_ns: int, token: Token | None = None) -> None:
        """Take an event of the running capture: kills in their order, and before later SIGKILLs.

        ``token`` keeps the event in its ring buffer; None: it is in none.
        """
        tokens = () if token is None else (token,)
        match event:
            case wire.DecodeError():
                release_all(tokens)
                self._count_loss("decode", event)
            case wire.CgroupEvent():
                release_all(tokens)
                self.prepare(event.path.decode("utf-8", "backslashreplace"))
            case wire.SigkillEvent():
                self._take_sigkill(event, tokens, now_ns)
            case _:
                self._sigkills.note_oom_event(event)
                self._take(self._incidents.feed(event, now_ns, token), now_ns)

    def feed_previous(self, events: Iterable[Event], now_ns: int) -> None:
        """Take all events of a previous capture: kills in their order, then SIGKILLs.

        Its maps stay until the records are acknowledged, so no token keeps these events.
        """
        incidents = Incidents()
        for event in events:
            match event:
                case wire.DecodeError():
                    self._count_loss("decode", event)
                case wire.SigkillEvent():
                    self._take(incidents.end(), now_ns, is_previous=True)
                    self._take_sigkill(event, (), now_ns, is_previous=True)
                case _:
                    self._sigkills.note_oom_event(event)
                    self._take(incidents.feed(event, now_ns), now_ns, is_previous=True)
        self._take(incidents.end(), now_ns, is_previous=True)

    def prepare(self, cgroup: str | None) -> None:
        """Read in advance the names of the container in a new cgroup; None: of all cgroups."""
        self._enrichment.prepare(cgroup)

    def report_loss(self, loss: Loss, capture_id: str) -> None:
        """Report a loss in the next `lost` record, with an id that is the same in all runs."""
        name = f"{capture_id}-{loss.stage}-{loss.first:x}-{loss.end:x}"
        self._stream.add_loss(
            loss.stage, loss.events, name, may_be_reported=loss.may_be_reported, once_acknowledged=loss.mark_reported
        )

    def flush_incident(self, now_ns: int) -> None:
        """Write the kills of an incident whose deadline has passed."""
        self._take(self._incidents.flush(now_ns), now_ns)

    def flush(self, now_ns: int) -> None:
        """Write the SIGKILLs and exits that have waited long enough."""
        self._write_all(self._sigkills.take_due(now_ns))
        self._write_all(self._exits.take_due(now_ns))

    def end(self, now_ns: int, *, capture_goes_on: bool) -> None:
        """Write what waits.  If the capture goes on, incomplete incidents are left to the next run."""
        if not capture_goes_on:
            self._write_all(self._sigkills.take_all())
            self._take(self._incidents.end(), now_ns)
        self._write_all(self._exits.take_all())

    def backfill_gaps(self, logged: Iterable[backfill.LoggedKill], now_ns: int) -> None:
        """Write the kills that have no record, from the kernel log, and a gap for those that are not there either.

        ``logged`` was read from the log before the ring buffers were read last, so that a kill of this moment is known.
        """
        missing, noted = self._audit.certainly_missing(), []
        if not missing or self.awaits_end:
            self._audit.rearm(now_ns)
            return
        for record, killed_ns in backfill.select_unrecorded(logged, self._audit.kill_times(), missing):
            incident = record["incident"]
            with self._losing(()):
                self._enrichment.complete_logged_kill(record)
                self._write(record, ())
                noted.append((killed_ns, record["victim"], incident["id"] if incident["group_kill"] else None))
        # If the ledger on disk had these kills before the outputs acknowledge them, a SIGKILL now would lose them.
        release_hold = self._audit.hold()
        for each in noted:
            self._audit.note_kill(*each)
        is_first, gap = self._audit.may_repeat_gap, self._audit.close_gap()
        if gap is not None:
            self._write(gap, (), may_be_written=is_first)
        self._stream.once_acknowledged(release_hold)

    def _take(self, joined: Iterable[Joined], now_ns: int, *, is_previous: bool = False) -> None:
        for item, tokens in joined:
            self._audit.rearm(now_ns)
            with self._losing(tokens):
                match item:
                    case JoinedKill():
                        self._take_kill(item, tokens, is_previous)
                    case wire.ExitEvent():
                        self._take_exit(item, tokens, now_ns, is_previous)
                    case wire.KilledAgainEvent():
                        self._audit.note_repeated_kill(item.header.time_ns, item.tid)
                        release_all(tokens)

    def _take_kill(self, kill: JoinedKill, tokens: Tokens, is_previous: bool) -> None:
        record, victim = self._records.oom_kill(kill), kill.victim
        killed_ns = victim.header.time_ns
        if is_previous:
            self._previous_kills.add_kill(record, killed_ns)
        elif old_id := self._previous_kills.find_duplicate(record, killed_ns):
            self._exits.rename_victim(old_id, record["id"])
            release_all(tokens)
            return
        self._enrichment.complete_kill(record, victim)
        self._exits.add_victim(record, victim.init_pid, victim.init_started_ns)
        # Noted before it is written: the event stays in the ring buffer until the ledger is on disk.
        in_group = record["incident"]["id"] if victim.flags & wire.VICTIM_GROUP else None
        self._audit.note_kill(killed_ns, record["victim"], in_group, victim.header.incident_ns)
        self._write(record, tokens)

    def _take_exit(self, event: wire.ExitEvent, tokens: Tokens, now_ns: int, is_previous: bool) -> None:
        record = self._records.oom_exit(event)
        if is_previous:
            self._previous_kills.add_exit(record)
        for complete, its_tokens in self._exits.add_exit(record, now_ns, tokens):
            self._write(complete, its_tokens)

    def _take_sigkill(
        self, event: wire.SigkillEvent, tokens: Tokens, now_ns: int, *, is_previous: bool = False
    ) -> None:
        with self._losing(tokens):
            for record, its_tokens in self._sigkills.feed(event, now_ns, tokens, is_previous=is_previous):
                self._write(record, its_tokens)

    def _write_all(self, built: Iterable[tuple[Sigkill | OomExit, Tokens]]) -> None:
        for record, tokens in built:
            with self._losing(tokens):
                self._write(record, tokens)

    def _write(self, record: PipelineRecord, tokens: Tokens, *, may_be_written: bool = False) -> None:
        """Complete, filter and write a record.

        ``may_be_written``: an earlier run may have written it.  The same is true of a record without tokens, and of
        one whose events precede this run.
        """
        if not self._is_included(record):
            release_all(tokens)
            return
        if record["type"] != "gap":
            may_be_written = not tokens or any(token.precedes_run for token in tokens)
        is_new = self._stream.write(record, tokens, may_be_written=may_be_written)
        if record["type"] == "oom_kill":
            self.kills += is_new

    def _is_included(self, record: PipelineRecord) -> bool:
        """Whether the record is written.  Completes a SIGKILL and an exit first, as the answer depends on it."""
        match record["type"]:
            case "oom_kill":
                if not self._filter.matches(record):
                    self.filtered += 1
                    self._excluded.add(record["id"])
                    return False
            case "oom_exit":
                return self._previous_kills.adopt_exit(record) and record["id"] not in self._excluded
            case "sigkill":
                self._enrichment.complete_sigkill(record)
                return self._filter.matches(record)
        return True

    @contextmanager
    def _losing(self, tokens: Tokens) -> Iterator[None]:
        """Count a record as lost that raises any exception: kept, its events would fail again at every start.

        The body must give the tokens up last.
        """
        try:
            yield
        except Exception as error:
            release_all(tokens)
            self._count_loss("record", error)

    def _count_loss(self, stage: str, error: Exception) -> None:
        """Count an event or record that cannot be processed; the first of a stage is reported on stderr as well."""
        if not self._stream.lost_at(stage):
            warn(f"cannot process an event ({stage}): {error!r}; it is counted as lost, as are later ones")
        self._stream.add_loss(stage)
