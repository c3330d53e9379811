# SPDX-License-Identifier: Apache-2.0
"""Metrics for Prometheus: over HTTP, or in a file for node_exporter's textfile collector.  Needs prometheus_client.

The number of series is bounded: kills after the first SERIES_MAX label combinations are counted as ``other``.
"""

import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
"""Values of ``stage`` in ``lost`` records; those of outputs are followed by ``:URI``."""
OTHER = "other"
WRITE_S = 1.0
"""Shortest interval between writes of the file."""
REFRESH_S = 60.0
"""Longest interval: the age of the file shows whether oomtrace runs."""
POLL_MAX_S, POLL_IDLE_S = 8.0, 60.0
"""Longest interval between checks of the outputs: while an output has undelivered lines, and while none has."""
FILE_MODE = 0o644
"""node_exporter runs as another user."""
LOOPBACK = "127.0.0.1"
"""Default host: other addresses must be configured explicitly."""
HINT = "use HOST:PORT (127.0.0.1:9814, [::1]:9814), PORT for 127.0.0.1 only, or file:/DIRECTORY/NAME.prom"


class Endpoint(NamedTuple):
    """An address, or a file, for metrics."""

    host: str
    port: int
    path: str | None
    access: Access | None = None
    """Access control of an address; None for a file."""

    @property
    def description(self) -> str:
        """Address and access control, or path, without secrets."""
        return f"{_address(self.host, self.port)} ({self.access.description()})" if self.access else f"file:{self.path}"


def parse_endpoint(text: str) -> Endpoint:
    """Parse ``HOST:PORT[?OPTIONS]``, ``PORT``, or ``file:PATH``.

    Raises TracerError (exit code 2).
    """
    if text.startswith("file:"):
        path = text.removeprefix("file:")
        if not (path.startswith("/") and path.endswith(".prom")):
            raise TracerError(f"metrics {text!r}: node_exporter reads *.prom files only", HINT, EXIT_USAGE)
        return Endpoint("", 0, path)
    address, _, query = text.partition("?")
    host, _, port = address.rpartition(":")
    if not (port.isascii() and port.isdecimal() and len(port) < 6 and 0 < int(port) < 65536):
        raise TracerError(f"metrics {address!r}: invalid address", HINT, EXIT_USAGE)
    host = host.removeprefix("[").removesuffix("]") or LOOPBACK
    return Endpoint(host, int(port), None, Access(_address(host, int(port)), query))


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class VictimLabels(NamedTuple):
    """Labels of a victim's series; a label that is unknown or does not apply is empty."""

    scope: str
    level: str
    namespace: str
    pod: str
    container: str
    image: str
    unit: str

    def labels(self) -> dict[str, str]:
        """All labels by name.

        A target that Prometheus discovers in Kubernetes may have labels namespace, pod and container of its own.
        Prometheus then renames the metric's labels to exported_*, unless honor_labels is set.  The victim_* labels keep
        their names in any case.
        """
        return {
            **self._asdict(),
            "victim_namespace": self.namespace,
            "victim_pod": self.pod,
            "victim_container": self.container,
        }


class Metrics:
    """Counts every record that is written, and publishes the counts from its own threads."""

    def __init__(
        self, kernel_oom_kills: Callable[[], int | None], outputs: Callable[[], Iterable[OutputStatus]], source: str
    ) -> None:
        """Raises TracerError if prometheus_client is missing."""
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
        self._changed = threading.Event()
        self._registry = prometheus_client.CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def publish(self, endpoints: Iterable[Endpoint]) -> None:
        """Begin to publish.

        Raises TracerError if an address is in use, or a file cannot be written.
        """
        for endpoint in endpoints:
            try:
                if endpoint.access is not None:
                    self._serve(endpoint, endpoint.access)
                elif endpoint.path is not None:
                    self._write(endpoint.path)
                    threads.start_required("metrics", self._keep_file_current, endpoint.path)
            except OSError as error:
                where = endpoint.path or f"{endpoint.host}:{endpoint.port}"
                # create_server() adds the address to the text; getaddrinfo() has error numbers of its own.
                reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
                raise TracerError(f"cannot publish metrics at {where} ({reason})", HINT) from error

    def _serve(self, endpoint: Endpoint, access: Access) -> None:
        """Raises TracerError and OSError."""
        access.check()
        if access.sends_secret_unencrypted:
            what = f"metrics {endpoint.description}: the secret is sent unencrypted"
            warn(f"{what}; set cert-file and key-file")
        context = access.tls_context()

        def wrap(accepted: socket.socket) -> socket.socket:
            if context is None:
                return accepted
            return context.current().wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)

        last_warning = ""

        def respond(request: Request) -> Response:
            nonlocal last_warning
            try:
                refusal = access.refusal(request)
            except TracerError as error:
                if str(error) != last_warning:  # not per request: any client may send many
                    last_warning = str(error)
                    warn(last_warning)
                return Response("500 Internal Server Error", [], b"")
            return refusal or self._respond(request)

        MetricsServer(endpoint.host, endpoint.port, respond, wrap).start()

    def _respond(self, request: Request) -> Response:
        """The metrics in a format and compression that the request accepts, chosen by prometheus_client."""
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
        """Count a record."""
        with self._lock:
            self._records[record["type"]] += 1
            if record["type"] == "oom_kill":
                labels = self._bounded(victim_labels(record))
                self._kills[labels] += 1
                self._last[labels] = max(self._last.get(labels, 0.0), _unix_s(record["time"]))
            elif record["type"] == "lost":
                self._lost[record["stage"]] += record["count"]
            elif record["type"] == "gap":
                self._missing += record["missing"]
        self._changed.set()

    def collect(self) -> Iterator[Any]:
        """All metrics: prometheus_client's interface of a collector."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

        with self._lock:
            kills, last = dict(self._kills), dict(self._last)
            records, counted_lost, missing = dict(self._records), dict(self._lost), self._missing
        statuses = list(self._outputs())
        yield InfoMetricFamily(
            "oomtrace_build", "Version of oomtrace.", {"version": __version__, "source": self._source}
        )
        yield GaugeMetricFamily("oomtrace_start_time_seconds", "Start time of oomtrace.", self._began_s)
        # Series begin at 0: Prometheus sees no increase to the first value of a series.
        stages = [*STAGES, *(f"{stage}:{status.uri}" for status in statuses for stage in OUTPUT_STAGES)]
        lost = dict.fromkeys(stages, 0) | counted_lost
        totals = dict.fromkeys(SCOPES, 0)
        for victim, count in kills.items():
            totals[victim.scope] = totals.get(victim.scope, 0) + count
        yield _family(CounterMetricFamily, "oomtrace_oom_kills", "Recorded OOM kills.", ("scope",),
                      {(scope,): count for scope, count in totals.items()})  # fmt: skip
        yield _by_victim(CounterMetricFamily, "oomtrace_victim_oom_kills", "Recorded OOM kills by victim.", kills)
        yield _by_victim(
            GaugeMetricFamily, "oomtrace_victim_last_oom_kill_timestamp_seconds", "Time of the latest.", last
        )
        yield _family(CounterMetricFamily, "oomtrace_records", "Records written.", ("type",), _single(records))
        yield _family(CounterMetricFamily, "oomtrace_lost", "Lost events and lines.", ("stage",), _single(lost))
        yield CounterMetricFamily("oomtrace_gap_oom_kills", "Kills counted by the kernel that have no record.", missing)
        refused = CounterMetricFamily(
            "oomtrace_threads_refused", "Threads that failed to start.", threads.start_failures
        )
        yield refused
        kernel_kills = self._kernel_oom_kills()
        if kernel_kills is not None:
            yield CounterMetricFamily("oomtrace_kernel_oom_kills", "The kernel's own count since boot.", kernel_kills)
        yield from _output_families(statuses)

    def _bounded(self, labels: VictimLabels) -> VictimLabels:
        if labels in self._kills or len(self._kills) < SERIES_MAX:
            return labels
        return VictimLabels(labels.scope, *[OTHER] * (len(VictimLabels._fields) - 1))

    def _keep_file_current(self, path: str) -> None:
        """Write the file after records, and when the status of an output changes, which needs no record."""
        written: list[OutputStatus] | None = None
        failing, wait_s = False, WRITE_S
        written_s = -REFRESH_S
        while True:
            has_records = self._changed.wait(wait_s)
            self._changed.clear()
            statuses = list(self._outputs())
            is_idle = not any(status.queued or status.spooled_bytes or status.failing for status in statuses)
            if not has_records and statuses == written and time.monotonic() - written_s < REFRESH_S:
                wait_s = POLL_IDLE_S if is_idle else min(2 * wait_s, POLL_MAX_S)
                continue
            try:
                self._write(path)
            except OSError as error:
                if not failing:
                    warn(f"cannot write {path} ({error.strerror}); retrying")
                failing, written = True, None
            else:
                failing, written, written_s = False, statuses, time.monotonic()
            wait_s = WRITE_S
            time.sleep(WRITE_S)

    def _write(self, path: str) -> None:
        """Raises OSError."""
        text = self._client.generate_latest(self._registry)
        scratch = f"{path}.{os.getpid()}"  # not *.prom: node_exporter must not read an incomplete file
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(scratch, flags, FILE_MODE), "wb") as file:
            os.fchmod(file.fileno(), FILE_MODE)
            file.write(text)
        os.replace(scratch, path)


_OUTPUT_METRICS = (
    ("queued", "Lines in memory.", "gauge"),
    ("spooled_bytes", "Lines on disk.", "gauge"),
    ("dropped", "Lines dropped because memory and disk were full.", "counter"),
    ("rejected", "Lines rejected by the server.", "counter"),
    ("damaged", "Lines that could not be read from disk.", "counter"),
    ("failing", "1 while the output cannot deliver.", "gauge"),
)


def _output_families(statuses: Sequence[OutputStatus]) -> Iterator[Any]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    for name, text, kind in _OUTPUT_METRICS:
        family = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
        values = {(status.uri,): float(getattr(status, name)) for status in statuses}
        yield _family(family, f"oomtrace_output_{name}", text, ("output",), values)


def victim_labels(record: Any) -> VictimLabels:
    """Labels of an ``oom_kill`` record."""
    owner = owner_of(record)  # a container must not add to the counts of another one
    parts: tuple[Any, ...] = (record["limit"], owner.kubernetes, owner.container, owner.systemd)
    limit, pod, container, unit = (each or {} for each in parts)
    return VictimLabels(
        scope=record["incident"]["scope"] or "",
        level=limit.get("level") or "",
        namespace=pod.get("namespace") or "",
        pod=pod.get("pod_name") or pod.get("pod_uid") or "",
        container=pod.get("container_name") or container.get("name") or container.get("id") or "",
        image=container.get("image") or "",
        unit="" if container else unit.get("unit") or "",  # the name of a container's scope says nothing
    )


def _unix_s(text: str | None) -> float:
    """Unix time of an RFC 3339 time in UTC; 0 if unknown."""
    return datetime.fromisoformat(f"{text[:26]}+00:00").timestamp() if text else 0.0


def _single(values: dict[str, int]) -> dict[tuple[str, ...], int]:
    return {(name,): value for name, value in values.items()}


def _by_victim(kind: Any, name: str, text: str, values: Mapping[VictimLabels, float]) -> Any:
    names = tuple(VictimLabels(*VictimLabels._fields).labels())
    return _family(
        kind, name, text, names, {tuple(labels.labels().values()): value for labels, value in values.items()}
    )


def _family(kind: Any, name: str, text: str, labels: tuple[str, ...], values: Any) -> Any:
    family = kind(name, text, labels=labels)
    for each, value in values.items():
        family.add_metric(each, value)
    return family
