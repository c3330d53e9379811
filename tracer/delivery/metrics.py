# SPDX-License-Identifier: Apache-2.0
"""Counts for Prometheus: over HTTP, or in a file for node_exporter's textfile collector; needs prometheus_client.

Series are bounded: what comes after the first SERIES_MAX different places is counted as ``other``.
"""

import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from tracer import __version__
from tracer.base import threads
from tracer.base.errors import EXIT_USAGE, TracerError
from tracer.base.extras import install_hint
from tracer.base.log import warn
from tracer.delivery.metrics_access import Access
from tracer.delivery.metrics_server import MetricsServer, Request, Response
from tracer.delivery.outputs import OutputStatus
from tracer.records.model import Record
from tracer.records.owner import owner_of

SERIES_MAX = 1000
SCOPES = ("memcg", "host", "cpuset", "mempolicy", "host_or_nodes", "sysrq")
STAGES = ("ring_buffer", "sigkill", "decode", "record", "upgrade")
OUTPUT_STAGES = ("output", "spool", "rejected")
"""Where something may get lost (`stage` of ``lost`` records), the second each with an output's URI."""
OTHER = "other"
WRITE_S = 1.0
"""The file is written anew at most so often."""
FRESH_S = 60.0
"""And at least so often: a reader sees by its time that oomtrace runs."""
LOOK_MAX_S, LOOK_IDLE_S = 8.0, 60.0
"""How rarely outputs are looked at in the end, while one has lines that wait; and when none has."""
FILE_MODE = 0o644
"""node_exporter is another user."""
LOOPBACK = "127.0.0.1"
"""Where a port alone is: whoever means all addresses says so."""
HINT = "use HOST:PORT (127.0.0.1:9814, [::1]:9814), PORT for 127.0.0.1 alone, or file:/FOLDER/NAME.prom"


class Endpoint(NamedTuple):
    """An address where counts are shown."""

    host: str
    port: int
    path: str | None
    access: Access | None = None
    """What is asked of clients; None: of a file."""

    @property
    def description(self) -> str:
        """For people."""
        return f"{_address(self.host, self.port)} ({self.access.description()})" if self.access else f"file:{self.path}"


def parse_endpoint(text: str) -> Endpoint:
    """``HOST:PORT``, with options, or ``PORT``, or ``file:PATH``.

    Raises TracerError (exit code 2).
    """
    if text.startswith("file:"):
        path = text.removeprefix("file:")
        if not (path.startswith("/") and path.endswith(".prom")):
            raise TracerError(f"metrics {text!r}: node_exporter reads files called *.prom", HINT, EXIT_USAGE)
        return Endpoint("", 0, path)
    address, _, query = text.partition("?")
    host, _, port = address.rpartition(":")
    if not (port.isascii() and port.isdecimal() and len(port) < 6 and 0 < int(port) < 65536):
        raise TracerError(f"metrics {address!r} is no address", HINT, EXIT_USAGE)
    host = host.removeprefix("[").removesuffix("]") or LOOPBACK
    return Endpoint(host, int(port), None, Access(_address(host, int(port)), query))


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class VictimLabels(NamedTuple):
    """Where a victim was; what is unknown or does not apply is empty."""

    scope: str
    level: str
    namespace: str
    pod: str
    container: str
    image: str
    unit: str

    def labels(self) -> dict[str, str]:
        """Label -> value.

        A scrape's target may have labels namespace, pod and container of its own, and Prometheus then renames ours to
        exported_*, unless honor_labels is set.  Under victim_* they are found in any case.
        """
        return {
            **self._asdict(),
            "victim_namespace": self.namespace,
            "victim_pod": self.pod,
            "victim_container": self.container,
        }


class Metrics:
    """Sees every record that is written; shows from threads of its own."""

    def __init__(
        self, kernel_oom_kills: Callable[[], int | None], outputs: Callable[[], Iterable[OutputStatus]], source: str
    ) -> None:
        """Raises TracerError where prometheus_client is missing."""
        try:
            import prometheus_client
        except ImportError as error:
            raise TracerError("metrics need prometheus_client", install_hint("metrics")) from error
        self._client = prometheus_client
        self._kernel_oom_kills = kernel_oom_kills
        self._outputs = outputs
        self._source = source
        self._kills: Counter[VictimLabels] = Counter()
        self._last: dict[VictimLabels, float] = {}
        self._records: Counter[str] = Counter()
        self._lost: Counter[str] = Counter()
        self._missing = 0
        self._began_s = time.time()
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._registry = prometheus_client.CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def publish(self, endpoints: Iterable[Endpoint]) -> None:
        """Begin.

        Raises TracerError where an address is taken, or a file cannot be written.
        """
        for endpoint in endpoints:
            try:
                if endpoint.access is not None:
                    self._serve(endpoint, endpoint.access)
                elif endpoint.path is not None:
                    self._write(endpoint.path)
                    threads.start_required("metrics", self._keep, endpoint.path)
            except OSError as error:
                where = endpoint.path or f"{endpoint.host}:{endpoint.port}"
                # create_server() adds to the text what is said here already; getaddrinfo() has numbers of its own.
                why = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
                raise TracerError(f"cannot show metrics at {where} ({why})", HINT) from error

    def _serve(self, endpoint: Endpoint, access: Access) -> None:
        """Raises TracerError and OSError as ``show``."""
        access.check()
        if access.shows_secret:
            what = f"metrics {endpoint.description}: the secret is sent unencrypted"
            warn(f"{what}; set cert-file and key-file")
        contexts = access.contexts()

        def wrap(accepted: socket.socket) -> socket.socket:
            if contexts is None:
                return accepted
            return contexts.current().wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)

        told = ""

        def answer(request: Request) -> Response:
            nonlocal told
            try:
                refusal = access.refusal(request)
            except TracerError as error:
                if str(error) != told:  # not for each request, of which anybody may send many
                    told = str(error)
                    warn(told)
                return Response("500 Internal Server Error", [], b"")
            return refusal or self._answer(request)

        MetricsServer(endpoint.host, endpoint.port, answer, wrap).start()

    def _answer(self, request: Request) -> Response:
        """As prometheus_client does: in the format and compression that the request accepts."""
        head: list[Any] = []
        environ = {
            "REQUEST_METHOD": request.method,
            "PATH_INFO": request.path,
            "QUERY_STRING": request.query,
            **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in request.headers.items()},
        }
        body = self._client.make_wsgi_app(self._registry)(environ, lambda *status: head.extend(status))
        return Response(head[0], head[1], b"".join(body))

    def observe(self, record: Record) -> None:
        """A record was written."""
        with self._lock:
            self._records[record["type"]] += 1
            if record["type"] == "oom_kill":
                victim = self._bounded(victim_labels(record))
                self._kills[victim] += 1
                self._last[victim] = max(self._last.get(victim, 0.0), _seconds(record["time"]))
            elif record["type"] == "lost":
                self._lost[record["stage"]] += record["count"]
            elif record["type"] == "gap":
                self._missing += record["missing"]
        self._news.set()

    def collect(self) -> Iterator[Any]:
        """All metrics, as prometheus_client wants them of a collector."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

        with self._lock:
            kills, last = dict(self._kills), dict(self._last)
            records, told, missing = dict(self._records), dict(self._lost), self._missing
        states = list(self._outputs())
        yield InfoMetricFamily("oomtrace_build", "Which oomtrace.", {"version": __version__, "source": self._source})
        yield GaugeMetricFamily("oomtrace_start_time_seconds", "When it started.", self._began_s)
        # From 0 on: Prometheus cannot see an increase to a value that it sees first.
        stages = [*STAGES, *(f"{stage}:{state.uri}" for state in states for stage in OUTPUT_STAGES)]
        lost = dict.fromkeys(stages, 0) | told
        totals = dict.fromkeys(SCOPES, 0)
        for victim, count in kills.items():
            totals[victim.scope] = totals.get(victim.scope, 0) + count
        yield _family(CounterMetricFamily, "oomtrace_oom_kills", "OOM kills that were told.", ("scope",),
                      {(scope,): count for scope, count in totals.items()})  # fmt: skip
        yield _by_victim(CounterMetricFamily, "oomtrace_victim_oom_kills", "The same by where the victim was.", kills)
        yield _by_victim(GaugeMetricFamily, "oomtrace_victim_last_oom_kill_timestamp_seconds", "The last there.", last)
        yield _family(CounterMetricFamily, "oomtrace_records", "Records written.", ("type",), _single(records))
        yield _family(CounterMetricFamily, "oomtrace_lost", "Events and lines lost.", ("stage",), _single(lost))
        yield CounterMetricFamily("oomtrace_gap_oom_kills", "Kills that the kernel counts and nobody saw.", missing)
        refused = CounterMetricFamily(
            "oomtrace_threads_refused", "Threads that could not be started.", threads.start_failures
        )
        yield refused
        counted = self._kernel_oom_kills()
        if counted is not None:
            yield CounterMetricFamily("oomtrace_kernel_oom_kills", "The kernel's own count since boot.", counted)
        for name, words, kind in _OUTPUT_METRICS:
            family = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
            values = {(state.uri,): float(getattr(state, name)) for state in states}
            yield _family(family, f"oomtrace_output_{name}", words, ("output",), values)

    def _bounded(self, victim: VictimLabels) -> VictimLabels:
        if victim in self._kills or len(self._kills) < SERIES_MAX:
            return victim
        return VictimLabels(victim.scope, *[OTHER] * (len(VictimLabels._fields) - 1))

    def _keep(self, path: str) -> None:
        """Outputs change when nothing is written, too: lines wait, and leave; it fails, and works again."""
        written: list[OutputStatus] | None = None
        failing, wait_s = False, WRITE_S
        written_s = -FRESH_S
        while True:
            is_news = self._news.wait(wait_s)
            self._news.clear()
            states = list(self._outputs())
            is_idle = not any(state.queued or state.spooled_bytes or state.failing for state in states)
            if not is_news and states == written and time.monotonic() - written_s < FRESH_S:
                wait_s = LOOK_IDLE_S if is_idle else min(2 * wait_s, LOOK_MAX_S)
                continue
            try:
                self._write(path)
            except OSError as error:
                if not failing:
                    warn(f"cannot write {path} ({error.strerror}); it is tried again")
                failing, written = True, None
            else:
                failing, written, written_s = False, states, time.monotonic()
            wait_s = WRITE_S
            time.sleep(WRITE_S)

    def _write(self, path: str) -> None:
        """Raises OSError."""
        text = self._client.generate_latest(self._registry)
        scratch = f"{path}.{os.getpid()}"  # not *.prom: half of it is read by nobody
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(scratch, flags, FILE_MODE), "wb") as file:
            os.fchmod(file.fileno(), FILE_MODE)
            file.write(text)
        os.replace(scratch, path)


_OUTPUT_METRICS = (
    ("queued", "Lines in memory.", "gauge"),
    ("spooled_bytes", "Lines on disk.", "gauge"),
    ("dropped", "Lines that had no room.", "counter"),
    ("rejected", "Lines that the other side refuses.", "counter"),
    ("damaged", "Lines that could not be read from disk.", "counter"),
    ("failing", "1 while it delivers nothing.", "gauge"),
)


def victim_labels(record: Any) -> VictimLabels:
    owner = owner_of(record)  # so that nobody adds to the counts of others
    parts: tuple[Any, ...] = (record["limit"], owner.kubernetes, owner.container, owner.systemd)
    limit, pod, container, unit = (each or {} for each in parts)
    return VictimLabels(
        scope=record["incident"]["scope"] or "",
        level=limit.get("level") or "",
        namespace=pod.get("namespace") or "",
        pod=pod.get("pod_name") or pod.get("pod_uid") or "",
        container=pod.get("container_name") or container.get("name") or container.get("id") or "",
        image=container.get("image") or "",
        unit="" if container else unit.get("unit") or "",  # a container's own scope has a name that nobody knows
    )


def _seconds(text: str | None) -> float:
    """Of RFC 3339 in UTC; 0: unknown."""
    return datetime.fromisoformat(f"{text[:26]}+00:00").timestamp() if text else 0.0


def _single(values: dict[str, int]) -> dict[tuple[str, ...], int]:
    return {(name,): value for name, value in values.items()}


def _by_victim(kind: Any, name: str, words: str, values: Mapping[VictimLabels, float]) -> Any:
    labels = tuple(VictimLabels(*VictimLabels._fields).labels())
    return _family(
        kind, name, words, labels, {tuple(victim.labels().values()): value for victim, value in values.items()}
    )


def _family(kind: Any, name: str, words: str, labels: tuple[str, ...], values: Any) -> Any:
    family = kind(name, words, labels=labels)
    for each, value in values.items():
        family.add_metric(each, value)
    return family
