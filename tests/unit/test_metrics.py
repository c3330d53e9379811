# SPDX-License-Identifier: Apache-2.0
"""metrics.py: counts by place, bounded, whatever containers are called."""

from typing import Any

import prometheus_client
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tracer.errors import EXIT_USAGE, TracerError
from tracer.incident import Kill
from tracer.metrics import OTHER, SERIES_MAX, Metrics, parse

from .events import incident, victim
from .records import complete

CONTAINER = 0
"""The text format sorts labels by their names."""


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(lambda: 7, list, "bpf")


def shown(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    """A metric's values by those of its labels, as a reader of the text format has them."""
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
    record: Any = complete(Kill(victim(), incident(), 1, (), (), ()))
    record["time"] = "2026-11-24T03:51:53.674414000Z"
    record["container"] = {"id": "5aaf", "name": None, "image": None, **container}
    return record


def test_before_the_first_kill(metrics: Metrics) -> None:
    """Every scope is there at 0, so that the first kill is an increase."""
    assert shown(metrics, "oomtrace_oom_kills_total") == {
        (scope,): 0 for scope in ("memcg", "host", "cpuset", "mempolicy", "sysrq")
    }
    assert shown(metrics, "oomtrace_kernel_oom_kills_total") == {(): 7}


def test_places(metrics: Metrics) -> None:
    """A place is counted as long as it is the same; when it was last is the record's time."""
    for name in ("a", "b", "a", 'evil"\n\\'):
        metrics.observe(kill(name=name))
    kills = {labels[CONTAINER]: value for labels, value in shown(metrics, "oomtrace_victim_oom_kills_total").items()}
    assert kills == {"a": 2, "b": 1, 'evil"\n\\': 1}
    last = shown(metrics, "oomtrace_victim_last_oom_kill_timestamp_seconds")
    assert set(last.values()) == {1795492313.674414}


def test_bounded(metrics: Metrics) -> None:
    """Who makes ever new names fills neither the memory nor Prometheus: from then on they are others."""
    for number in range(SERIES_MAX + 50):
        metrics.observe(kill(name=f"c{number}"))
    metrics.observe(kill(name="c0"))
    kills = {labels[CONTAINER]: value for labels, value in shown(metrics, "oomtrace_victim_oom_kills_total").items()}
    assert len(kills) == SERIES_MAX + 1
    assert (kills[OTHER], kills["c0"]) == (50, 2)
    assert sum(shown(metrics, "oomtrace_oom_kills_total").values()) == SERIES_MAX + 51


def test_account(metrics: Metrics) -> None:
    """What was lost, and what is missing."""
    lost: Any = {"type": "lost", "stage": "decode", "count": 3}
    gap: Any = {"type": "gap", "missing": 4}
    for record in (lost, lost, gap):
        metrics.observe(record)
    assert shown(metrics, "oomtrace_lost_total") == {("decode",): 6}
    assert shown(metrics, "oomtrace_gap_oom_kills_total") == {(): 4}
    assert shown(metrics, "oomtrace_records_total") == {("lost",): 2, ("gap",): 1}


@pytest.mark.parametrize(
    "text", ["", "9814", ":9814", "localhost:", "localhost:0", "a:65536", "file:", "file:/x", "file:x.prom"]
)
def test_no_place(text: str) -> None:
    """Wrong usage."""
    with pytest.raises(TracerError) as caught:
        parse(text)
    assert caught.value.exit_code == EXIT_USAGE


def test_place() -> None:
    """Both kinds."""
    assert parse("[::1]:9814")[:2] == ("::1", 9814)
    assert parse("file:/var/lib/x.prom").path == "/var/lib/x.prom"
