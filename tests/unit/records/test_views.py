# SPDX-License-Identifier: Apache-2.0
"""Every view of a kill shows each name under its own title."""

import re
from typing import Any

import orjson
import prometheus_client
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.harness.events import incident, victim
from tests.harness.records import complete
from tracer.delivery.metrics import Metrics
from tracer.pipeline.incidents import JoinedKill
from tracer.report.incidents import Collection, ReportedIncident, Workload, workloads
from tracer.report.markdown import render_markdown
from tracer.report.page import render_page
from tracer.watch.detail import detail_lines

NAMES = {"container": "the-pod/the-container", "image": "the-image", "node": "the-node", "namespace": "the-namespace"}


@pytest.fixture
def record() -> Any:
    """A kill whose names say what they are the names of."""
    made: Any = complete(JoinedKill(victim(), incident(), 1, (), (), ()))
    made["time"] = "2026-11-24T03:51:53.674414000Z"
    made["host"] = {**made["host"], "name": "the-node"}
    made["container"] = {"id": "5aaf", "name": "the-container", "image": "the-image"}
    made["kubernetes"] = {
        "pod_name": "the-pod",
        "namespace": "the-namespace",
        "pod_uid": "the-uid",
        "container_name": "the-container",
        "qos_class": None,
    }
    made["systemd"] = {"unit": "the-unit", "slice": None}
    return made


def test_ticket(record: Any) -> None:
    """In Markdown."""
    found, _ = gathered(record)
    shown = dict(re.findall(r"^- (\w+): `(.*)`$", render_markdown(found, (), 1, ()), re.MULTILINE))
    assert {name: shown.get(name) for name in NAMES} == NAMES


def test_watch(record: Any) -> None:
    """In the terminal."""
    found, _ = gathered(record)
    shown = {line.label: line.text for line in detail_lines(found[0])}
    assert {name: shown.get(name) for name in NAMES} == NAMES


def test_page(record: Any) -> None:
    """In the page's rows; its script goes by the names of the columns, too."""
    (text,) = re.findall(
        r'<script[^>]* id="index"[^>]*>(.*?)</script>', render_page(gathered(record)[0], ()), re.DOTALL
    )
    index = orjson.loads(text)
    (row,) = index["rows"]
    shown = dict(zip(index["columns"], row, strict=True))
    assert {name: index["names"][name][shown[name]] for name in NAMES} == NAMES
    assert (shown["comm"], shown["rss"]) == (record["victim"]["comm"], record["victim"]["rss_bytes"])
    assert index["names"]["scope"][shown["scope"]] == record["incident"]["scope"]


def test_workload(record: Any) -> None:
    """In the table of workloads."""
    (workload,) = gathered(record)[1]
    assert (workload.name, workload.node) == ("the-namespace/the-pod/the-container", "the-node")


def test_metrics(record: Any) -> None:
    """In the labels, also where a scrape's own labels take the names of some."""
    metrics = Metrics(lambda: None, list, "bpf")
    metrics.observe(record)
    registry = prometheus_client.CollectorRegistry()
    registry.register(metrics)
    families = text_string_to_metric_families(prometheus_client.generate_latest(registry).decode())
    samples = {sample.name: sample.labels for family in families for sample in family.samples}
    expected = {
        "scope": record["incident"]["scope"],
        "level": record["limit"]["level"],
        "namespace": "the-namespace",
        "pod": "the-pod",
        "container": "the-container",
        "image": "the-image",
        "unit": "",
        "victim_namespace": "the-namespace",
        "victim_pod": "the-pod",
        "victim_container": "the-container",
    }
    assert samples["oomtrace_victim_oom_kills_total"] == expected
    assert samples["oomtrace_victim_last_oom_kill_timestamp_seconds"] == expected


def gathered(record: Any) -> tuple[list[ReportedIncident], list[Workload]]:
    collection = Collection()
    collection.add(record)
    found = collection.incidents()
    return found, workloads(found)
