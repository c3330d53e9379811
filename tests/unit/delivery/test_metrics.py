# SPDX-License-Identifier: Apache-2.0
"""metrics.py: counts by labels, bounded for any names of containers."""

import re
import time
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.harness.events import incident, victim
from tests.harness.lines import wait_for
from tests.harness.records import complete
from tracer.base.errors import EXIT_USAGE, TracerError
from tracer.delivery.metrics import OTHER, OUTPUT_STAGES, SERIES_MAX, STAGES, Metrics, parse_endpoint
from tracer.delivery.outputs import OutputStatus
from tracer.pipeline.incidents import JoinedKill
from tracer.records.model import Lost

CONTAINER = 0
"""The text format sorts labels by name."""


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(lambda: 7, list, "bpf")


def shown(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    """The values of a metric by label values, as a reader of the text format parses them."""
    registry = prometheus_client.CollectorRegistry()
    registry.register(metrics)
    text = prometheus_client.generate_latest(registry).decode()
    return {
        tuple(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


def kill(**container: Any) -> Any:
    record: Any = complete(JoinedKill(victim(), incident(), 1, (), (), ()))
    record["time"] = "2026-11-24T03:51:53.674414000Z"
    record["container"] = {"id": "5aaf", "name": None, "image": None, **container}
    return record


def test_before_the_first_kill(metrics: Metrics) -> None:
    """Every scope starts at 0, so the first kill is an increase."""
    assert shown(metrics, "oomtrace_oom_kills_total") == {
        (scope,): 0 for scope in ("memcg", "host", "cpuset", "mempolicy", "host_or_nodes", "sysrq")
    }
    assert shown(metrics, "oomtrace_kernel_oom_kills_total") == {(): 7}


def test_places(metrics: Metrics) -> None:
    """Kills with the same labels are counted together; the time of the last one is the record's."""
    for name in ("a", "b", "a", 'evil"\n\\'):
        metrics.observe(kill(name=name))
    kills = {labels[CONTAINER]: value for labels, value in shown(metrics, "oomtrace_victim_oom_kills_total").items()}
    assert kills == {"a": 2, "b": 1, 'evil"\n\\': 1}
    last = shown(metrics, "oomtrace_victim_last_oom_kill_timestamp_seconds")
    assert set(last.values()) == {1795492313.674414}


def test_bounded(metrics: Metrics) -> None:
    """A stream of new names fills neither memory nor Prometheus: later ones are counted as other."""
    for number in range(SERIES_MAX + 50):
        metrics.observe(kill(name=f"c{number}"))
    metrics.observe(kill(name="c0"))
    kills = {labels[CONTAINER]: value for labels, value in shown(metrics, "oomtrace_victim_oom_kills_total").items()}
    assert len(kills) == SERIES_MAX + 1
    assert (kills[OTHER], kills["c0"]) == (50, 2)
    assert sum(shown(metrics, "oomtrace_oom_kills_total").values()) == SERIES_MAX + 51


def test_account(metrics: Metrics) -> None:
    """Lost events and missing kills."""
    lost: Any = {"type": "lost", "stage": "decode", "count": 3}
    gap: Any = {"type": "gap", "missing": 4}
    for record in (lost, lost, gap):
        metrics.observe(record)
    assert shown(metrics, "oomtrace_lost_total") == {**dict.fromkeys([(stage,) for stage in STAGES], 0), ("decode",): 6}
    assert shown(metrics, "oomtrace_gap_oom_kills_total") == {(): 4}
    assert shown(metrics, "oomtrace_records_total") == {("lost",): 2, ("gap",): 1}


def test_stages_from_0_on() -> None:
    """All stages of ``lost`` start at 0, so the first loss is an increase; counts of a removed output remain."""
    documented = re.findall(r"`(\w+)(?::URI)?`", Lost.__annotations__["stage"].__metadata__[0])
    assert sorted(documented) == sorted((*STAGES, *OUTPUT_STAGES))
    states = [state("file:/a"), state("https://b")]
    metrics = Metrics(lambda: 7, lambda: states, "bpf")
    stages = {*STAGES, *(f"{stage}:{each.uri}" for stage in OUTPUT_STAGES for each in states)}
    assert shown(metrics, "oomtrace_lost_total") == dict.fromkeys([(stage,) for stage in stages], 0)
    lost: Any = {"type": "lost", "stage": "output:https://b", "count": 3}
    metrics.observe(lost)
    states.pop()
    assert shown(metrics, "oomtrace_lost_total")[("output:https://b",)] == 3


def state(uri: str, queued: int = 0, spooled_bytes: int = 0, failing: bool = False) -> OutputStatus:
    return OutputStatus(uri, queued, spooled_bytes, 0, 0, 0, failing)


def test_file_follows_the_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without kills, the file still shows that an output fails and recovers, and otherwise takes no CPU time."""
    monkeypatch.setattr("tracer.delivery.metrics.WRITE_S", 0.05)
    monkeypatch.setattr("tracer.delivery.metrics.POLL_MAX_S", 0.4)
    looks = []

    def states() -> list[OutputStatus]:
        looks.append(time.monotonic())
        return [now[0]]

    now = [state("https://x", queued=1)]
    metrics, path = Metrics(lambda: 7, states, "bpf"), tmp_path / "x.prom"
    metrics.publish([parse_endpoint(f"file:{path}")])

    def has(name: str, value: int) -> bool:
        return f'oomtrace_output_{name}{{output="https://x"}} {value}.0' in path.read_text()

    stop: Any = {"type": "stop"}
    metrics.observe(stop)
    wait_for(lambda: has("queued", 1))
    now[0] = state("https://x", spooled_bytes=900, failing=True)
    wait_for(lambda: has("failing", 1))
    time.sleep(1)
    now[0] = state("https://x")
    wait_for(lambda: has("failing", 0) and has("queued", 0) and has("spooled_bytes", 0))
    time.sleep(0.5)
    before, written = len(looks), path.stat().st_mtime_ns
    time.sleep(1)
    assert (len(looks), path.stat().st_mtime_ns) == (before, written), "there is nothing to look for"
    metrics.observe(stop)
    wait_for(lambda: path.stat().st_mtime_ns != written)


def test_file_stays_fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without events, the age of the file shows that oomtrace runs."""
    for name, value in (("WRITE_S", 0.05), ("POLL_MAX_S", 0.1), ("POLL_IDLE_S", 0.1), ("REFRESH_S", 0.5)):
        monkeypatch.setattr(f"tracer.delivery.metrics.{name}", value)
    path = tmp_path / "x.prom"
    Metrics(lambda: 7, list, "bpf").publish([parse_endpoint(f"file:{path}")])
    for _ in range(3):
        written = path.stat().st_mtime_ns
        wait_for(lambda written=written: path.stat().st_mtime_ns != written)  # type: ignore[misc]


def test_file_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A failed write is reported once, and retried without further events."""
    monkeypatch.setattr("tracer.delivery.metrics.WRITE_S", 0.05)
    folder = tmp_path / "a"
    folder.mkdir()
    metrics = Metrics(lambda: 7, lambda: [state("file:/x")], "bpf")
    metrics.publish([parse_endpoint(f"file:{folder}/x.prom")])
    folder.rename(tmp_path / "b")
    stop: Any = {"type": "stop"}
    metrics.observe(stop)
    time.sleep(0.5)
    folder.mkdir()
    wait_for((folder / "x.prom").exists)
    assert 'type="stop"' in (folder / "x.prom").read_text()
    assert capfd.readouterr().err.count("cannot write") == 1


@pytest.mark.parametrize(
    "text", ["", "9814x", "::", "localhost:", "localhost:0", "a:65536", "file:", "file:/x", "file:x.prom"]
)
def test_no_place(text: str) -> None:
    """Invalid endpoints are usage errors."""
    with pytest.raises(TracerError) as caught:
        parse_endpoint(text)
    assert caught.value.exit_code == EXIT_USAGE


def test_place() -> None:
    """Both kinds of endpoints."""
    assert parse_endpoint("[::1]:9814")[:2] == ("::1", 9814)
    assert parse_endpoint("file:/var/lib/x.prom").path == "/var/lib/x.prom"
