# SPDX-License-Identifier: Apache-2.0
"""The daemon's loop: reads events, feeds the pipeline, releases what all outputs have acknowledged.

    kernel -> BPF programs -> ring buffer -> engine (bytes) -> wire (events) -> pipeline -> stream

``oomtrace run`` replaces its process by this one, with the options as JSON in OOMTRACE_OPTIONS: what the command line
imports (typer) takes no memory here.
"""

import os
import sys
import time

from tracer.base.errors import TracerError
from tracer.base.hung_disk import HUNG_AFTER_S
from tracer.base.log import warn
from tracer.capture import ring_buffers, wire
from tracer.capture.pins import PinnedCapture
from tracer.config import reload
from tracer.config.options import ENVIRONMENT, RESTART_REQUIRED, Options, from_json
from tracer.daemon import state_dir
from tracer.daemon.event_loop import RELOAD, STOPS, EventPoll
from tracer.daemon.startup import Assembled, assemble, realtime_ns, record_filter, redaction
from tracer.linux import malloc_trim, privileges, procfs
from tracer.records import host

BUSY_POLL_NS = 500_000
"""The end of a victim's incident follows microseconds after the kill: busy-poll for it this long."""
SAVE_S = 0.05
"""How long to wait for the ledger's disk; a slower one is asked again after ACKNOWLEDGE_NS."""
ACKNOWLEDGE_NS = 100_000_000
"""How often outputs are asked what they have acknowledged, while events wait for that."""


class Daemon:
    """Reads events and writes records until SIGTERM or SIGINT."""

    def __init__(self, assembled: Assembled) -> None:
        running, self._rings, self._audit, self._stream, self._pipeline = assembled
        attached, self._disk, self._names, self._ledger, _ = running
        opened, self._capture, _, self._kernel_log = attached
        self._options, self._reading, self._notifier, _, self._outputs = opened
        self._rereading = reload.ConfigReloader()
        self._capture_id = f"{self._ledger.boot}-{self._capture.attached_ns:x}"

    def run(self) -> None:
        """Trace until SIGTERM or SIGINT; then write what is left and a ``stop`` record."""
        maps = self._capture.attached.maps
        waiting = EventPoll((maps["events"], maps["briefs"], maps["sigkills"]), (maps["cgroups"],))
        malloc_trim.trim_heap()
        self._stream.write(self._capture.start(self._stream.base_fields(), self._options.sigkill))
        self._pipeline.prepare(None)
        self._take_over()
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
        """Handle everything that is there now."""
        self._handle_events()
        self._notifier.keep_alive(time.monotonic_ns())
        self._pipeline.flush(time.monotonic_ns())
        if self._audit.kills_are_missing(time.monotonic_ns()):
            self._backfill_gaps()
        self._settle()

    def _handle_events(self) -> None:
        """OOM kills come before each SIGKILL: they identify the SIGKILLs that are the OOM killer's."""
        self._handle_kills()
        for event, token in self._rings.sigkills():
            self._pipeline.feed(event, time.monotonic_ns(), token)
            self._handle_kills()

    def _handle_kills(self) -> None:
        """Handle the OOM kills that are there, and busy-poll for the end of an open incident.

        Sleeping and waking again would take longer.
        """
        until_ns = time.monotonic_ns() + BUSY_POLL_NS
        while True:
            for batch in self._rings.kills.batches():
                for event, token in batch:
                    self._pipeline.feed(event, time.monotonic_ns(), token)
                self._release_kills()
            self._pipeline.flush_incident(time.monotonic_ns())
            for new_cgroup in self._rings.cgroups():
                self._pipeline.feed(new_cgroup, time.monotonic_ns())
            if not self._pipeline.awaits_end or time.monotonic_ns() > until_ns:
                return

    def _release_kills(self) -> None:
        """Between batches of a storm: free room in the ring buffers, and notify the watchdog."""
        self._stream.poll_outputs()
        self._rings.kills.release(self._stream.acknowledged, is_saved=self._save())
        self._notifier.keep_alive(time.monotonic_ns())

    def _backfill_gaps(self) -> None:
        """The log is read before the ring buffers, so a kill of this moment that is in both has its record already."""
        logged = self._kernel_log.find_kills(self._audit.since_ns) if self._kernel_log else []
        self._handle_kills()
        self._pipeline.backfill_gaps(logged, time.monotonic_ns())

    def _reload(self) -> None:
        """Request a read of the configuration, or apply what was read; reopen the outputs' files by name."""
        self._notifier.reloading()
        try:
            options = self._rereading.options(self._options)
            if options is not None:
                self._configure(options)
        except TracerError as error:
            warn(str(error))
        except Exception as error:  # of any kind: an error in a file must not end the capture
            warn(f"cannot use the configuration: {error!r}; the previous one stays in effect")
        self._stream.reopen()
        if not self._rereading.is_busy:
            self._notifier.ready()

    def _configure(self, options: Options) -> None:
        """Raises TracerError if an output cannot be opened or a field is unknown; then nothing has changed."""
        old = self._options
        redact, passes = redaction(options), record_filter(options)
        if options.outputs != old.outputs:
            self._stream.replace_outputs(self._outputs.reconfigure(options.outputs))
        self._stream.configure(host.read_host(options.labels), options.max_record_bytes)
        self._pipeline.configure(redact, passes)
        later = [name for field, name in RESTART_REQUIRED.items() if getattr(options, field) != getattr(old, field)]
        kept = {field: getattr(old, field) for field in ("arguments", *RESTART_REQUIRED)}
        self._options = options._replace(**kept)
        warn(
            "the configuration was reloaded" + (f"; {', '.join(later)} will change at the next start" if later else "")
        )

    def _finish(self) -> None:
        goes_on = self._capture.pinned
        if not goes_on:
            self._capture.attached.detach()
        self._handle_events()
        self._pipeline.flush(time.monotonic_ns())
        self._pipeline.end(time.monotonic_ns(), capture_goes_on=goes_on)
        for _ in range(10):  # the kernel counts a kill before its event is sent
            if not self._audit.missing():
                break
            time.sleep(0.05)
            self._handle_kills()
        else:
            self._backfill_gaps()
        self._settle()
        unread, kills = self._reading.unread + self._names.timeouts, self._pipeline.kills
        self._stream.write_stop(
            procfs.read_oom_kill_count(), records=kills, filtered=self._pipeline.filtered, metadata_errors=unread
        )
        self._stream.close()
        self._stream.poll_outputs()
        self._save(HUNG_AFTER_S)
        self._release()
        state_dir.unlock_all()
        if goes_on and sys.stderr.isatty():
            print("oomtrace: the capture continues in the kernel; to end it: oomtrace detach", file=sys.stderr)

    def _timeout_s(self) -> float | None:
        """How long to wait for the next event; None: without a timeout."""
        now_ns = time.monotonic_ns()
        deadlines = [self._pipeline.deadline_ns(), self._notifier.deadline_ns(), self._audit.deadline_ns()]
        awaits_outputs = self._stream.has_actions() or self._rings.awaits_outputs(self._stream.acknowledged)
        if awaits_outputs or not self._ledger.is_saved:
            deadlines.append(now_ns + ACKNOWLEDGE_NS)
        return min((max(0, each - now_ns) / 1e9 for each in deadlines if each is not None), default=None)

    def _take_over(self) -> None:
        """Read the previous captures, and remove them once all outputs have acknowledged their records.

        If this run is killed before, the next one reads them.
        """
        previous_captures = self._capture.previous_captures
        for previous in previous_captures:
            self._read_previous(previous)
        if previous_captures:
            self._handle_kills()  # kills that both saw are recognized as long as the previous capture exists
            self._settle()
            for previous in previous_captures:
                self._stream.once_acknowledged(previous.remove)
                self._stream.once_acknowledged(previous.close)
            self._stream.wait_for_outputs()
            self._settle()

    def _read_previous(self, previous: PinnedCapture) -> None:
        """Write the records of a previous capture: of another version, replaced by this one."""
        unreported = ring_buffers.unreported(previous.maps, previous.info.get("since_ns", 0))
        for stage, count in unreported.counts.items():
            if count:
                lossless_until_ns = realtime_ns(unreported.lossless_until_ns)
                self._stream.add_loss(stage, count, lossless_until_ns=lossless_until_ns)
        if previous.info["layout"] == wire.EVENT_LAYOUT:
            self._pipeline.feed_previous(ring_buffers.previous_events(previous.maps), time.monotonic_ns())
            self._pipeline.flush(time.monotonic_ns())
        else:
            self._stream.add_loss("upgrade", ring_buffers.unread_events(previous.maps))
            warn(f"cannot decode the events of version {previous.info['version']}; they are reported as lost")

    def _settle(self) -> None:
        """Report losses, and release events whose records all outputs have acknowledged."""
        for loss in self._rings.losses():
            self._pipeline.report_loss(loss, self._capture_id)
        if self._rings.has_unseen_cgroups():
            self._pipeline.prepare(None)
        self._stream.report_losses()
        self._release()

    def _release(self) -> None:
        self._rings.release(self._stream.acknowledged, is_saved=self._save())

    def _save(self, timeout_s: float = SAVE_S) -> bool:
        """Save the ledger; False: it is not on disk yet, as the disk hangs or a record is not acknowledged."""
        if not self._ledger.is_saved:
            self._disk.submit(self._ledger.save)
            self._disk.wait_idle(timeout_s)
        return self._ledger.is_saved


def main() -> int:
    """Run with the options from the environment; returns the exit code."""
    try:
        os.environ.pop("PYTHONPATH", None)  # meant for this Python; the bcc child may use another one
        privileges.raise_priority()
        options = from_json(os.environ.pop(ENVIRONMENT, "{}"))
        Daemon(assemble(options)).run()
    except TracerError as error:
        print(f"oomtrace: {error}", file=sys.stderr)
        return error.exit_code
    return 0
