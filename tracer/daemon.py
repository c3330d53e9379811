# SPDX-License-Identifier: Apache-2.0
"""The daemon: the only place that composes the stages.

    kernel -> bpf programs -> ring buffer -> engine (bytes) -> wire (events) -> incident, record -> enrich -> sinks

Started by ``oomtrace run``, with its options as JSON in OOMTRACE_OPTIONS: the command line's process is replaced by
this one, so that what it imported (typer) weighs on nobody.
"""

import ctypes
import gc
import os
import select
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple

import orjson

from tracer import __version__, enrich, exits, features, host, line, privileges, process, record, sinks, source, wire
from tracer.clock import rfc3339
from tracer.engine import COUNTER_LOST, COUNTER_UNSEEN_CGROUPS, Counters, open_ring
from tracer.errors import TracerError
from tracer.event import Base, Lost, OomKill, Record, Start, Stop
from tracer.gfp import GfpNames
from tracer.incident import Incidents, Kill
from tracer.names import Names
from tracer.notify import Notifier
from tracer.redact import Redactor
from tracer.runtimes import Runtimes

if TYPE_CHECKING:
    from tracer.interfaces import Interfaces

OPTIONS = "OOMTRACE_OPTIONS"

EngineOption = Literal["auto", "core", "bcc"]

STOPS = frozenset({signal.SIGTERM, signal.SIGINT})

END_IS_NEAR_NS = 500_000
"""A victim's incident ends microseconds after the kill; so long is looked for it without a pause."""


class Options(NamedTuple):
    engine: EngineOption = "auto"
    outputs: tuple[str, ...] = ("stdout",)
    max_record_bytes: int = line.MAX_BYTES
    runtime_roots: tuple[tuple[str, str], ...] = ()
    cmdline: bool = True
    redact_defaults: bool = True
    redact: tuple[str, ...] = ()
    network: bool = False


class Daemon:
    """Reads events and writes records until told to stop."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._notifier = Notifier()
        self._host = host.read_host()
        self._sinks = [sinks.open_sink(uri) for uri in options.outputs]
        self._incidents = Incidents()
        self._seq = 0
        self._kills = 0
        self._lost: Counter[str] = Counter()
        self._reported: Counter[str] = Counter()
        self._complete_until_ns = time.time_ns()
        self._runtimes = Runtimes(options.runtime_roots)
        redactor = Redactor(options.redact, options.redact_defaults)
        self._redact: enrich.Redact = redactor.redact if options.cmdline else lambda _cmdline: None
        self._capture = source.attach(options.engine)
        _drop_privileges(options.network)
        self._interfaces = _open_interfaces() if options.network else None
        self._counters = Counters(self._capture.attached.maps)
        self._rings = [open_ring(self._capture.attached.maps[name]) for name in ("events", "cgroups")]
        boot = (self._host["boot_id"] or "0").split("-")[0]
        gfp = GfpNames(features.tracefs())
        self._names = Names(self._runtimes)
        self._unseen_cgroups = 0
        self._exits = exits.Exits(self._names)
        self._records = record.Records(self._capture.source, boot, gfp, self._capture.scores)

    def run(self) -> None:
        """Capture, until SIGTERM or SIGINT; then write what is left and a ``stop`` record."""
        attached = self._capture.attached
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        poll = select.epoll()
        # Edge-triggered: events stay in the ring buffer when they are read, and so it stays readable.
        poll.register(attached.maps["events"], select.EPOLLIN | select.EPOLLET)
        poll.register(attached.maps["cgroups"], select.EPOLLIN)
        poll.register(wake_read, select.EPOLLIN)
        _give_back_memory()
        self._emit(self._start())
        self._expect(None)
        self._notifier.ready()
        caught = b""
        while not STOPS.intersection(caught):
            ready = {descriptor for descriptor, _ in poll.poll(self._timeout_s())}
            caught = os.read(wake_read, 64) if wake_read in ready else b""
            if signal.SIGHUP in caught:
                self._reload()
            self._drain()
            self._notifier.alive(time.monotonic_ns())
            for gone in self._exits.due(time.monotonic_ns()):
                self._emit(gone)
            self._account()
        self._notifier.stopping()
        attached.detach()
        self._handle_events()
        self._emit_joined(self._incidents.end())
        for gone in self._exits.end():
            self._emit(gone)
        self._account()
        self._emit(self._stop())
        for sink in self._sinks:
            sink.close()

    def _timeout_s(self) -> float | None:
        """How long to wait for the next event; None: for ever."""
        waits = []
        patience_ns, now_ns = self._incidents.patience_ns(), time.monotonic_ns()
        if patience_ns is not None:
            waits.append(patience_ns)
        for due_ns in (self._exits.next_ns(), self._notifier.next_ns()):
            if due_ns is not None:
                waits.append(max(0, due_ns - now_ns))
        return min(waits) / 1e9 if waits else None

    def _reload(self) -> None:
        """Open the outputs anew: a file may have been renamed, and a new one is wanted in its place."""
        self._notifier.reloading()
        for sink in self._sinks:
            try:
                sink.reopen()
            except TracerError as error:
                print(f"oomtrace: {error}; it goes on in the file that it has open", file=sys.stderr)
        self._notifier.ready()

    def _drain(self) -> None:
        """Handle what is there, and what is about to come: to sleep and wake again would take longer."""
        until_ns = time.monotonic_ns() + END_IS_NEAR_NS
        while True:
            self._handle_events()
            if self._incidents.patience_ns() is None or time.monotonic_ns() > until_ns:
                return

    def _handle_events(self) -> None:
        now_ns = time.monotonic_ns()
        for data in [data for ring in self._rings for _, data in ring.read()]:
            try:
                event = wire.decode(data)
            except wire.DecodeError as error:
                self._lost["decode"] += 1
                print(f"oomtrace: an event could not be decoded: {error}", file=sys.stderr)
                continue
            if isinstance(event, wire.CgroupEvent):
                self._expect(event.path.decode("utf-8", "backslashreplace"))
                continue
            self._emit_joined(self._incidents.feed(event, now_ns))
        self._emit_joined(self._incidents.flush(now_ns))
        for ring in self._rings:
            ring.release(ring.position)

    def _emit_joined(self, joined: Iterable[Kill | wire.ExitEvent]) -> None:
        for each in joined:
            if isinstance(each, wire.ExitEvent):
                gone = self._exits.exited(self._records.oom_exit(each), time.monotonic_ns())
                if gone is not None:
                    self._emit(gone)
                continue
            built: OomKill = self._records.oom_kill(each)
            known = each.victim.network_cookie, built["victim"]["cgroup"]
            interfaces = partial(self._interfaces.lookup, *known) if self._interfaces else None
            enrich.enrich(built, each.victim.started_ns, self._names, self._redact, interfaces)
            self._exits.killed(built, each.victim.init_pid, each.victim.init_started_ns)
            self._kills += 1
            self._emit(built)

    def _expect(self, path: str | None) -> None:
        """A cgroup is there, or None for all that are: its container's names and addresses may soon be asked for."""
        self._names.expect(path)
        if self._interfaces is not None:
            self._interfaces.expect(path)

    def _emit(self, written: Record) -> None:
        written["seq"], written["host"] = self._seq, self._host
        self._seq += 1
        encoded = line.encode(written, self._options.max_record_bytes)
        for sink in list(self._sinks):
            try:
                sink.write([encoded])
            except BrokenPipeError:
                print(f"oomtrace: the reader of {sink.uri} has left", file=sys.stderr)
                self._sinks.remove(sink)
            except OSError as error:
                stage = f"output:{sink.uri}"
                if stage not in self._lost:
                    print(f"oomtrace: cannot write to {sink.uri}: {error}; such losses are counted", file=sys.stderr)
                self._lost[stage] += written["type"] != "lost"  # or reporting a loss would be the next one
        if not self._sinks:
            raise TracerError("no output is left", "start it again with one that stays")

    def _account(self) -> None:
        """Report what was lost since the last time, in the stream itself."""
        self._lost["ring_buffer"] = self._counters.read(COUNTER_LOST)
        unseen = self._counters.read(COUNTER_UNSEEN_CGROUPS)
        if unseen != self._unseen_cgroups:
            self._unseen_cgroups = unseen
            self._expect(None)
        now_ns = time.time_ns()
        for stage in [stage for stage, count in self._lost.items() if count > self._reported[stage]]:
            count = self._lost[stage] - self._reported[stage]
            self._reported[stage] = self._lost[stage]
            lost: Lost = {**self._base(), "type": "lost", "stage": stage, "count": count,
                          "since": rfc3339(self._complete_until_ns)}  # fmt: skip
            self._emit(lost)
        self._complete_until_ns = now_ns

    def _base(self) -> Base:
        return {"schema": 1, "time": rfc3339(time.time_ns()), "seq": 0, "host": self._host}

    def _start(self) -> Start:
        attached = self._capture.attached
        return {
            **self._base(),
            "type": "start",
            "version": __version__,
            "source": self._capture.source,
            "engine": attached.engine,
            "hooks": list(dict.fromkeys(f"{hook.kind}:{hook.target}" for hook in attached.hooks)),
            "pinned": False,
            "adopted": False,
            "oom_kills": process.oom_kills(),
        }

    def _stop(self) -> Stop:
        return {
            **self._base(),
            "type": "stop",
            "oom_kills": process.oom_kills(),
            "records": self._kills,
            "lost": sum(self._lost.values()),
            "metadata_errors": self._runtimes.errors + self._names.timeouts,
        }


def _drop_privileges(network: bool) -> None:
    """Loading and attaching is done: from here on it reads what others wrote."""
    kept = [privileges.CAP_BPF, privileges.CAP_DAC_READ_SEARCH, privileges.CAP_SYS_PTRACE]
    if network:
        kept.append(privileges.CAP_SYS_ADMIN)  # to enter network namespaces
    try:
        privileges.keep(*kept)
    except OSError as error:
        print(f"oomtrace: it keeps capabilities that it does not need ({error})", file=sys.stderr)


def _open_interfaces() -> "Interfaces":
    from tracer.interfaces import Interfaces  # needs pyroute2, and takes 2 MB

    return Interfaces()


def _give_back_memory() -> None:
    """What starting took and running does not need: some MB of freed heap, which glibc keeps unless told."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def main() -> int:
    """Run with the options of the environment; the exit code."""
    try:
        os.environ.pop("PYTHONPATH", None)  # this Python's: the one that has bcc may be another
        options = Options(**orjson.loads(os.environ.pop(OPTIONS, "{}")))
        Daemon(options).run()
    except TracerError as error:
        print(f"oomtrace: {error}", file=sys.stderr)
        return error.exit_code
    return 0
