# SPDX-License-Identifier: Apache-2.0
"""The start of the daemon, in steps that each need the result of the one before.

    open_outputs -> attach_capture -> drop_privileges -> start_threads -> build_pipeline

Readers are forked before there are threads and descriptors of BPF maps.  Outputs, BPF programs and the kernel log are
opened with all capabilities, and capabilities are dropped per thread: so before any thread is started that stays.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

from tracer.accounting import backfill
from tracer.accounting.audit import Audit
from tracer.accounting.ledger import Ledger, open_ledger
from tracer.base.clock import boottime_ns
from tracer.base.hung_disk import DiskWorker
from tracer.capture import kernel_features, ring_buffers
from tracer.capture.capture import Capture, start_capture
from tracer.capture.ring_buffers import Rings
from tracer.config.options import Options
from tracer.daemon import state_dir
from tracer.daemon.sd_notify import Notifier
from tracer.daemon.state_dir import StateDir
from tracer.delivery.output import Output
from tracer.delivery.outputs import Outputs
from tracer.identity import enrich
from tracer.identity.metadata_cache import MetadataCache
from tracer.linux import privileges, procfs
from tracer.linux.gfp_flags import GfpNames
from tracer.pipeline.enrichment import Enrichment
from tracer.pipeline.oom_exit import PendingExits
from tracer.pipeline.oom_kill import RecordBuilder
from tracer.pipeline.pipeline import Pipeline
from tracer.pipeline.sigkill import SigkillBuilder
from tracer.pipeline.stream import Stream
from tracer.reading.sources import Reading
from tracer.records import host
from tracer.records.filter import Filter
from tracer.records.model import Host, Record
from tracer.redaction.cmdline import Redactor


class Opened(NamedTuple):
    """Readers are forked, outputs are open."""

    options: Options
    reading: Reading
    notifier: Notifier
    host: Host
    outputs: Outputs

    @property
    def boot(self) -> str:
        """This boot's prefix in the ids of records."""
        return (self.host["boot_id"] or "0").split("-")[0]


class Attached(NamedTuple):
    """The BPF programs run; state directory and kernel log are open, unless they cannot be used."""

    opened: Opened
    capture: Capture
    state: StateDir | None
    kernel_log: backfill.Backfill | None


class Unprivileged(NamedTuple):
    """This thread, and those that it starts, have only the capabilities that the daemon keeps."""

    attached: Attached


class Running(NamedTuple):
    """The threads of outputs, of the state's disk and of reading run."""

    attached: Attached
    disk: DiskWorker
    names: MetadataCache
    ledger: Ledger
    outputs: list[Output]


class Assembled(NamedTuple):
    """All that the daemon's loop needs."""

    running: Running
    rings: Rings
    audit: Audit
    stream: Stream
    pipeline: Pipeline


def open_outputs(options: Options) -> Opened:
    """Fork the readers, then open the outputs.

    Raises TracerError if an output cannot be opened, or a package that the options need is missing.
    """
    reading = Reading(privileges.reader_capabilities(options.network), network=options.network)
    return Opened(options, reading, Notifier(), host.read_host(options.labels), Outputs(options.outputs))


def attach_capture(opened: Opened) -> Attached:
    """Load and attach the BPF programs; open the state directory and the kernel log.

    Raises TracerError if this kernel cannot be traced, or another oomtrace has the same pins or state directory.
    """
    options = opened.options
    capture = start_capture(options.engine, options.pins, options.sigkill)
    state = state_dir.open_if_usable(options.state)
    kernel_log = backfill.open_backfill(opened.boot) if options.backfill else None
    return Attached(opened, capture, state, kernel_log)


def drop_privileges(attached: Attached) -> Unprivileged:
    """Drop the capabilities of this thread, before others are started."""
    privileges.drop_capabilities()
    return Unprivileged(attached)


def start_threads(unprivileged: Unprivileged) -> Running:
    """Start the threads of the readers, the ledger's disk and the outputs."""
    attached = unprivileged.attached
    (options, reading, _, this_host, outputs), state = attached.opened, attached.state
    disk = DiskWorker()
    reading.begin(options.runtime_roots, state.hung if state else None, this_host["boot_id"], disk)
    reading.processes.seed_cmdlines(attached.capture.unseeded_cmdlines)
    ledger = open_ledger(state.ledger if state else None, this_host["boot_id"])
    return Running(
        attached, disk, MetadataCache(reading.runtimes), ledger, outputs.start(state.folder if state else None, disk)
    )


def build_pipeline(running: Running) -> Assembled:
    """Build the pipeline from ring buffers to outputs, and serve metrics.

    Raises TracerError if the metrics cannot be served.
    """
    attached, _, names, ledger, outputs = running
    opened, capture, state, _ = attached
    options, reading = opened.options, opened.reading
    rings = Rings(capture.attached.maps)
    audit = Audit(ledger, procfs.read_oom_kill_count)
    is_first_run = not (ledger.is_damaged or capture.adopted) and (state is not None or options.backfill)
    if ledger.is_new and not is_first_run:
        audit.start_from_now()  # earlier kills have a record already, or no run of oomtrace is responsible for them
    lossless_until_ns = None
    if capture.adopted:
        unreported = ring_buffers.unreported(capture.attached.maps, capture.attached_ns)
        lossless_until_ns = realtime_ns(unreported.lossless_until_ns)
    show_metrics, observe = _metrics(running)
    stream = Stream(outputs, opened.host, options.max_record_bytes, lossless_until_ns, observe)
    pipeline = Pipeline(
        RecordBuilder(capture.source, opened.boot, GfpNames(kernel_features.find_tracefs()), capture.has_scores),
        SigkillBuilder(capture.source, opened.boot, options.sigkill),
        PendingExits(names, reading.processes.lives),
        Enrichment(names, reading.processes, reading.interfaces, redaction(options)),
        audit,
        stream,
        record_filter(options),
    )
    reading.processes.wait_for_seed()
    show_metrics()
    return Assembled(running, rings, audit, stream, pipeline)


def assemble(options: Options) -> Assembled:
    """All steps in their order.  Raises TracerError if one of them fails."""
    return build_pipeline(start_threads(drop_privileges(attach_capture(open_outputs(options)))))


def _metrics(running: Running) -> tuple[Callable[[], None], Callable[[Record], None]]:
    """A function that begins to serve metrics, and one that counts records for them."""
    opened, capture, _, _ = running.attached
    if not opened.options.metrics:
        return (lambda: None), (lambda record: None)
    from tracer.delivery.metrics import Metrics, parse_endpoint  # needs prometheus_client, and takes 13 MB

    metrics = Metrics(procfs.read_oom_kill_count, opened.outputs.statuses, capture.source)
    return (lambda: metrics.publish(map(parse_endpoint, opened.options.metrics))), metrics.observe


def redaction(options: Options) -> enrich.Redact:
    """How command lines are shown."""
    redactor = Redactor(options.redact, options.redact_defaults)
    return redactor.redact if options.cmdline else lambda _cmdline: None


def record_filter(options: Options) -> Filter:
    """Which kills have a record.  Raises TracerError if a field is unknown."""
    return Filter(options.include, options.exclude)


def realtime_ns(boottime: int) -> int:
    """CLOCK_BOOTTIME -> CLOCK_REALTIME, as the clocks are now."""
    return time.time_ns() - boottime_ns() + boottime
