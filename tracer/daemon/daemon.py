# SPDX-License-Identifier: Apache-2.0
"""The daemon: the only place that composes the stages.

    kernel -> bpf programs -> ring buffer -> engine (bytes) -> wire (events) -> pipeline -> stream

Started by ``oomtrace run``, with its options as JSON in OOMTRACE_OPTIONS: the command line's process is replaced by
this one, so that what it imported (typer) weighs on nobody.
"""

import os
import sys
import time
from collections.abc import Iterable

from tracer.accounting import backfill
from tracer.accounting.audit import Audit
from tracer.accounting.ledger import open_ledger
from tracer.base.clock import boottime_ns
from tracer.base.errors import TracerError
from tracer.base.hung_disk import HUNG_AFTER_S, DiskWorker
from tracer.base.log import warn
from tracer.capture import capture, kernel_features, wire
from tracer.capture.kill_buffers import KillRings, decoded
from tracer.capture.pins import PinnedCapture
from tracer.capture.programs import open_ring
from tracer.capture.ring_buffers import Rings, untold
from tracer.capture.ringbuf import Ring
from tracer.capture.ringbuf_retention import Place
from tracer.config import reload
from tracer.config.options import ENVIRONMENT, RESTART_REQUIRED, Options, from_json
from tracer.daemon import state_dir
from tracer.daemon.event_loop import RELOAD, STOPS, Waiting
from tracer.daemon.sd_notify import Notifier
from tracer.delivery.outputs import Outputs
from tracer.identity import enrich
from tracer.identity.metadata_cache import MetadataCache
from tracer.linux import malloc_trim, privileges, procfs
from tracer.linux.gfp_flags import GfpNames
from tracer.pipeline.oom_kill import Records
from tracer.pipeline.pipeline import Pipeline
from tracer.pipeline.sigkill import Sigkills
from tracer.pipeline.stream import Stream
from tracer.reading.sources import Reading
from tracer.records import host
from tracer.records.filter import Filter
from tracer.records.model import Sigkill
from tracer.redaction.cmdline import Redactor

END_IS_NEAR_NS = 500_000
"""A victim's incident ends microseconds after the kill; so long is looked for it without a pause."""
SAVE_S = 0.05
"""How long to wait for the ledger's disk; what it takes longer for is asked again after SETTLE_NS."""
SETTLE_NS = 100_000_000
"""How soon it is asked whether the outputs have taken what they were given."""


class Daemon:
    """Reads events and writes records until told to stop."""

    def __init__(self, options: Options) -> None:
        self._reading = Reading(privileges.reader_capabilities(options.network), network=options.network)
        self._notifier = Notifier()
        self._host = host.read_host(options.labels)
        self._options, self._rereading = options, reload.ConfigReloader()
        self._outputs = Outputs(options.outputs)
        self._capture = capture.start_capture(options.engine, options.pins, options.sigkill)
        kept = state_dir.open_if_possible(options.state)
        boot = (self._host["boot_id"] or "0").split("-")[0]
        self._backfill = backfill.open_if_possible(boot) if options.backfill else None
        privileges.drop_capabilities()  # of this thread, and so before there are others
        self._disk = DiskWorker()
        self._reading.begin(options.runtime_roots, kept.hung if kept else None, self._host["boot_id"], self._disk)
        self._reading.processes.seed_cmdlines(self._capture.unseeded_cmdlines)
        self._rings = Rings(self._capture.attached.maps)
        self._names = MetadataCache(self._reading.runtimes)
        self._sigkills = Sigkills(self._capture.source, boot, options.sigkill)
        ledger = self._ledger = open_ledger(kept.ledger if kept else None, self._host["boot_id"])
        self._audit = Audit(ledger, procfs.read_oom_kill_count)
        is_first = not (ledger.is_damaged or self._capture.adopted) and (kept or options.backfill)
        if ledger.is_new and not is_first:
            self._audit.begin()  # what was before is told already, or nobody's
        outputs = self._outputs.start(kept.folder if kept else None, self._disk)
        self._stream = Stream(outputs, self._host, options.max_record_bytes, self._rings.backlogs)
        if self._capture.adopted:
            self._lacks_since(untold(self._capture.attached.maps, self._capture.attached_ns).since_ns)
        records = Records(
            self._capture.source, boot, GfpNames(kernel_features.find_tracefs()), self._capture.has_scores
        )
        self._pipeline = Pipeline(
            records,
            self._names,
            _redact(options),
            self._reading.interfaces,
            self._audit,
            self._rings.kills.backlogs,
            self._stream,
            Filter(options.include, options.exclude),
            self._reading.processes,
        )
        self._reading.processes.wait_for_seed()
        if options.metrics:
            from tracer.delivery.metrics import Metrics, parse_endpoint  # needs prometheus_client, and takes 13 MB

            metrics = Metrics(procfs.read_oom_kill_count, self._outputs.statuses, self._capture.source)
            metrics.publish(map(parse_endpoint, options.metrics))
            self._stream.observe = metrics.observe

    def run(self) -> None:
        """Capture, until SIGTERM or SIGINT; then write what is left and a ``stop`` record."""
        maps = self._capture.attached.maps
        waiting = Waiting((maps["events"], maps["briefs"], maps["sigkills"]), (maps["cgroups"],))
        malloc_trim.trim_heap()
        self._stream.write(self._capture.start(self._stream.base(), self._options.sigkill))
        self._expect(None)
        self._drain_previous_captures()
        self._notifier.ready()
        self._audit.start(time.monotonic_ns())
        caught = b""
        while not STOPS.intersection(caught):
            caught = waiting.wait(self._timeout_s())
            if RELOAD in caught:
                self._reload()
            self._step()
        self._notifier.stopping()
        self._finish()

    def _step(self) -> None:
        """Do all that there is to do now."""
        self._drain()
        self._drain_sigkills()
        self._notifier.alive(time.monotonic_ns())
        self._pipeline.tell_exits()
        if self._audit.kills_are_missing(time.monotonic_ns()):
            self._pipeline.explain(self._backfill, self._drain)
        self._settle()

    def _reload(self) -> None:
        """Have the configuration read again, or use what was read; go on in what has the names of the outputs now."""
        self._notifier.reloading()
        try:
            wanted = self._rereading.options(self._options)
            if wanted is not None:
                self._apply(wanted)
        except TracerError as error:
            warn(str(error))
        except Exception as error:  # whatever it is: who mistypes a file does not end the capture
            warn(f"cannot use the configuration: {error!r}; it goes on as before")
        self._stream.reopen()
        if not self._rereading.is_busy:
            self._notifier.ready()

    def _apply(self, wanted: Options) -> None:
        """Raises TracerError where an output cannot be opened; then all stays as it was."""
        old = self._options
        redact, passes = _redact(wanted), Filter(wanted.include, wanted.exclude)
        if wanted.outputs != old.outputs:
            self._stream.exchange(self._outputs.reconfigure(wanted.outputs))
        self._host = host.read_host(wanted.labels)
        self._stream.configure(self._host, wanted.max_record_bytes)
        self._pipeline.redact, self._pipeline.wanted = redact, passes
        later = [name for field, name in RESTART_REQUIRED.items() if getattr(wanted, field) != getattr(old, field)]
        kept = {field: getattr(old, field) for field in ("arguments", *RESTART_REQUIRED)}
        self._options = wanted._replace(**kept)
        warn("the configuration was read" + (f"; {', '.join(later)} will change at the next start" if later else ""))

    def _finish(self) -> None:
        attached = self._capture.attached
        if not self._capture.pinned:
            attached.detach()
        self._drain()
        self._drain_sigkills()
        self._write_sigkills([] if self._capture.pinned else self._sigkills.end())
        if not self._capture.pinned:  # else what it lacks is read by the next run
            self._pipeline.end()
        self._pipeline.tell_exits(all_of_them=True)
        for _ in range(10):  # the kernel counts a kill before it tells of it
            if not self._audit.missing():
                break
            time.sleep(0.05)
            self._drain()
        else:
            self._pipeline.explain(self._backfill, self._drain)
        self._settle()
        unread, told = self._reading.unread + self._names.timeouts, self._pipeline.kills
        self._stream.stop(
            procfs.read_oom_kill_count(), records=told, filtered=self._pipeline.filtered, metadata_errors=unread
        )
        self._stream.close()
        self._stream.release()
        self._save(HUNG_AFTER_S)
        self._release()
        state_dir.unlock_all()
        if self._capture.pinned and sys.stderr.isatty():
            print("oomtrace: the capture goes on in the kernel; to end it: oomtrace detach", file=sys.stderr)

    def _timeout_s(self) -> float | None:
        """How long to wait for the next event; None: for ever."""
        now_ns, patience_ns = time.monotonic_ns(), self._pipeline.patience_ns()
        dues = self._pipeline.next_ns(), self._sigkills.next_ns(), self._notifier.next_ns(), self._audit.next_ns()
        waits = [max(0, due_ns - now_ns) for due_ns in dues if due_ns is not None]
        is_settled = self._ledger.is_saved and not self._stream.waits()
        settle_ns = SETTLE_NS if not is_settled or any(backlog.waits() for backlog in self._rings.backlogs) else None
        waits += [wait_ns for wait_ns in (patience_ns, settle_ns) if wait_ns is not None]
        return min(waits) / 1e9 if waits else None

    def _drain(self) -> None:
        """Handle what is there, and what is about to come: to sleep and wake again would take longer."""
        until_ns = time.monotonic_ns() + END_IS_NEAR_NS
        while True:
            for event, place in self._rings.kills.events(self._pipeline.lose, self._let_go):
                self._sigkills.note(event)
                self._pipeline.feed(event, place)
            self._pipeline.flush()
            for event, _ in self._read(self._rings.cgroups):
                if isinstance(event, wire.CgroupEvent):
                    self._expect(event.path.decode("utf-8", "backslashreplace"))
            self._rings.cgroups.release(self._rings.cgroups.position)
            if self._pipeline.patience_ns() is None or time.monotonic_ns() > until_ns:
                return

    def _let_go(self) -> None:
        """Between kills, of which there are many: what is written need not be read again."""
        self._stream.release()
        self._rings.kills.release(self._pipeline.incident_is_open, is_noted=self._save())
        self._notifier.alive(time.monotonic_ns())

    def _drain_sigkills(self, inherited: Ring | None = None) -> None:
        for event, position in self._read(inherited or self._rings.sigkills):
            if isinstance(event, wire.SigkillEvent):
                known = None if inherited else position
                self._write_sigkills(self._sigkills.feed(event, known, time.monotonic_ns()))
                if not inherited:
                    self._drain()  # kills of the OOM killer come first
        self._write_sigkills(self._sigkills.due(time.monotonic_ns()))

    def _write_sigkills(self, told: Iterable[tuple[Sigkill, int | None]]) -> None:
        for record, position in told:
            try:
                enrich.enrich_sigkill(record, self._names)
                if self._pipeline.wanted.matches(record):
                    at = [] if position is None else [Place(self._rings.sigkill_backlog, position)]
                    self._stream.write(record, at)
            except Exception as error:
                self._pipeline.lose("record", error)

    def _read(self, ring: Ring) -> Iterable[tuple[wire.Event, int]]:
        return decoded(((data, at) for at, data in ring.read()), wire.decode_event, self._pipeline.lose)

    def _drain_previous_captures(self) -> None:
        """They go once all is taken: a run that is killed meanwhile leaves them to the next one."""
        for previous in self._capture.previous_captures:
            self._drain_previous(previous)
        if self._capture.previous_captures:
            self._drain()  # what both saw is known as long as the older one is there
            self._settle()
            for previous in self._capture.previous_captures:
                self._stream.once_taken(previous.remove)
                self._stream.once_taken(previous.close)
            self._stream.flush()
            self._settle()

    def _drain_previous(self, previous: PinnedCapture) -> None:
        """Tell what a capture saw that another version of oomtrace had left, and whose place is taken now."""
        lost = untold(previous.maps, previous.about.get("since_ns", 0))
        for stage, count in lost.counts.items():
            if count:
                self._lacks_since(lost.since_ns)
                self._stream.lose(stage, count)
        if previous.about["layout"] == wire.EVENT_LAYOUT:
            events = [event for event, _ in KillRings(previous.maps).events(self._pipeline.lose)]
            for event in events:
                self._sigkills.note(event)
            self._pipeline.inherit(events)
            self._drain_sigkills(open_ring(previous.maps["sigkills"]))
        else:
            self._stream.lose("upgrade", len(open_ring(previous.maps["events"]).read()))
            warn(f"events that version {previous.about['version']} left cannot be read; they are counted")

    def _lacks_since(self, since_ns: int) -> None:
        """What the next record of a loss tells may have been lost since then (CLOCK_BOOTTIME)."""
        began_ns = time.time_ns() - boottime_ns() + since_ns
        self._stream.whole_until_ns = min(self._stream.whole_until_ns, began_ns)

    def _settle(self) -> None:
        """Tell what was lost, and let the kernel have back the room of what was written."""
        losses = self._rings.lost()
        for loss in losses:
            name = f"{self._ledger.boot}-{self._capture.attached_ns:x}-{loss.stage}-{loss.first:x}-{loss.end:x}"
            self._stream.lose(loss.stage, loss.end - loss.first, name, is_again=loss.is_old)
        if self._rings.has_unseen_cgroups():
            self._expect(None)
        self._stream.settle()
        for loss in losses:
            self._stream.once_taken(loss.told)
        self._release()

    def _release(self) -> None:
        told = self._sigkills.first_needed(self._rings.sigkills.position)
        self._rings.release(self._pipeline.incident_is_open, told, is_noted=self._save())

    def _save(self, timeout_s: float = SAVE_S) -> bool:
        """Bring onto the disk which kills have a record; False: it is not there, as the disk or an output hangs."""
        if not self._ledger.is_saved:
            self._disk.submit(self._ledger.save)
            self._disk.wait_idle(timeout_s)
        return self._ledger.is_saved

    def _expect(self, path: str | None) -> None:
        """A cgroup is there, or None for all that are: its container's names and addresses may soon be asked for."""
        self._names.prefetch(path)
        if self._reading.interfaces is not None:
            self._reading.interfaces.prefetch(path)


def _redact(options: Options) -> enrich.Redact:
    redactor = Redactor(options.redact, options.redact_defaults)
    return redactor.redact if options.cmdline else lambda _cmdline: None


def main() -> int:
    """Run with the options of the environment; the exit code."""
    try:
        os.environ.pop("PYTHONPATH", None)  # this Python's: the one that has bcc may be another
        privileges.raise_priority()
        options = from_json(os.environ.pop(ENVIRONMENT, "{}"))
        Daemon(options).run()
    except TracerError as error:
        print(f"oomtrace: {error}", file=sys.stderr)
        return error.exit_code
    return 0
