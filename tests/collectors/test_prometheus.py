# SPDX-License-Identifier: Apache-2.0
"""Prometheus scrapes the metrics, node_exporter reads them from a file; alerts and dashboard use existing metrics."""

import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.harness.cgroups import Cgroup
from tests.harness.daemon import Daemon
from tests.harness.environment import TIMEOUT_SCALE, wait_until

from .certificates import Certificates
from .configuration import CONFIGURATIONS, adapted
from .conftest import Kill, Start
from .program import accepts, free_port
from .unpacked import unpacked

SCRAPED_S = 30.0 * TIMEOUT_SCALE
DASHBOARD = CONFIGURATIONS / "grafana" / "oomtrace.json"
TARGET = {"namespace": "monitoring", "pod": "oomtrace-x2", "container": "oomtrace"}
"""Labels of a target discovered in Kubernetes."""


def ask(port: int, query: str) -> list[dict[str, Any]]:
    """Result of an instant query: metrics with their values."""
    address = f"http://127.0.0.1:{port}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    with urllib.request.urlopen(address, timeout=10) as answer:
        reply = json.load(answer)
    assert reply["status"] == "success", reply
    result: list[dict[str, Any]] = reply["data"]["result"]
    return result


def value(port: int, query: str) -> float:
    found = ask(port, query)
    return float(found[0]["value"][1]) if found else -1.0


def get(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def samples(text: str) -> dict[str, float]:
    """Samples of the text format: name with labels -> value."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(number) for name, _, number in (line.rpartition(" ") for line in lines)}


def test_scraped(daemon: Daemon, kill: Kill, cgroup: Cgroup, start_program: Start, tmp_path: Path) -> None:
    """Prometheus, killed and restarted in between, has as many kills per victim as there are records."""
    shown, own, exported = free_port(), free_port(), tmp_path / "oomtrace.prom"
    shutil.copy(CONFIGURATIONS / "prometheus" / "oomtrace.rules.yml", tmp_path)
    places = {"127.0.0.1:9814": f"127.0.0.1:{shown}", "interval: 15s": "interval: 1s"}
    config = adapted("prometheus/prometheus.yml", places, tmp_path)
    targets = [{"targets": [f"127.0.0.1:{shown}"], "labels": TARGET}]
    pods = {f"honest-{honor}": {"honor_labels": honor, "static_configs": targets} for honor in (True, False)}
    jobs = yaml.safe_load(config.read_text())
    jobs["scrape_configs"] += [{"job_name": name, **job} for name, job in pods.items()]
    config.write_text(yaml.safe_dump(jobs))
    flags = [f"--config.file={config}", f"--storage.tsdb.path={tmp_path}/data", f"--web.listen-address=127.0.0.1:{own}"]
    program = start_program("prometheus", [*unpacked("prometheus", "prometheus"), "prometheus", *flags], accepts(own))
    daemon.start("--metrics", f"127.0.0.1:{shown}", "--metrics", f"file:{exported}", *only(cgroup))

    wait_until("the first scrape", lambda: value(own, 'oomtrace_oom_kills_total{scope="memcg"}') >= 0, SCRAPED_S)
    kill(5)
    program.restart()
    kill(7)
    wait_until("all records", lambda: len(kill_ids(daemon)) == 12)

    def has(query: str, number: float) -> bool:
        return value(own, query) == number

    for job in ("oomtrace", *pods):
        of = f'job="{job}"'
        counted = f"sum(oomtrace_oom_kills_total{{{of}}})"
        wait_until("all kills", partial(has, counted, len(kill_ids(daemon))), SCRAPED_S)
        assert value(own, f"sum(oomtrace_victim_oom_kills_total{{{of}}})") == len(kill_ids(daemon))
        assert value(own, f'oomtrace_records_total{{{of},type="oom_kill"}}') == len(kill_ids(daemon))
        assert value(own, f"oomtrace_kernel_oom_kills_total{{{of}}}") >= len(kill_ids(daemon))
        assert value(own, f"time() - max(oomtrace_victim_last_oom_kill_timestamp_seconds{{{of}}})") < 120
        assert value(own, f"oomtrace_build_info{{{of}}}") == 1
        assert value(own, f'oomtrace_output_failing{{{of},output="file:{daemon.output}"}}') == 0
        for found in ask(own, f"oomtrace_victim_oom_kills_total{{{of}}}"):
            assert "victim_pod" not in found["metric"], "the victims are in no pod; the target's labels are not theirs"
    wait_until("the alert fires", lambda: ask(own, 'ALERTS{alertname="OOMKill"}'), 90 * TIMEOUT_SCALE)

    wait_until(
        "all kills in the file", lambda: kills_in(samples(exported.read_text())) == len(kill_ids(daemon)), SCRAPED_S
    )
    assert exported.stat().st_mode & 0o777 == 0o644
    assert kills_in(samples(get(shown))) == len(kill_ids(daemon))
    names = {re.split("[{ ]", name, maxsplit=1)[0] for name in samples(get(shown))}
    daemon.stop()
    check_names(names)


def test_tls(
    daemon: Daemon, kill: Kill, cgroup: Cgroup, start_program: Start, certificates: Certificates, tmp_path: Path
) -> None:
    """Scrapes need TLS with a client certificate, and a token or a password."""
    shown, own, token = free_port(), free_port(), tmp_path / "token"
    token.write_text("geheim-5aaf\n")
    token.chmod(0o600)
    places = {
        "/etc/prometheus/oomtrace-ca.pem": str(certificates.authority),
        "/etc/prometheus/client.pem": str(certificates.client),
        "/etc/prometheus/client.key": str(certificates.client_key),
        "/etc/prometheus/oomtrace-token": str(token),
        "localhost:9814": f"localhost:{shown}",
        "interval: 15s": "interval: 1s",
    }
    jobs = yaml.safe_load(adapted("prometheus/prometheus-tls.yml", places, tmp_path).read_text())
    right = jobs["scrape_configs"][0]
    authority = {"ca_file": str(certificates.authority)}
    without: dict[str, dict[str, Any]] = {
        "without-token": {"authorization": {}},
        "wrong-token": {"authorization": {"credentials": "wrong"}},
        "without-certificate": {"tls_config": authority},
        "without-tls": {"scheme": "http", "tls_config": {}},
    }
    jobs["scrape_configs"] += [{**right, **other, "job_name": name} for name, other in without.items()]
    config = tmp_path / "prometheus.yml"
    config.write_text(yaml.safe_dump(jobs))
    flags = [f"--config.file={config}", f"--storage.tsdb.path={tmp_path}/data", f"--web.listen-address=127.0.0.1:{own}"]
    start_program("prometheus", [*unpacked("prometheus", "prometheus"), "prometheus", *flags], accepts(own))
    tls = f"cert-file={certificates.server}&key-file={certificates.server_key}&client-ca-file={certificates.authority}"
    secret = f"token-file={token}&user=prometheus&password-file={token}"
    daemon.start("--metrics", f"{shown}?{tls}&{secret}", *only(cgroup))
    kill(3)
    wait_until("all records", lambda: len(kill_ids(daemon)) == 3)
    for job in ("oomtrace", "oomtrace-basic-auth"):
        counted = f'sum(oomtrace_oom_kills_total{{job="{job}"}})'
        wait_until(f"the kills of {job}", partial(lambda query: value(own, query) == 3, counted), SCRAPED_S)
    for job in without:
        wait_until(
            f"a failed scrape of {job}", partial(lambda job: value(own, f'up{{job="{job}"}}') == 0, job), SCRAPED_S
        )
        assert ask(own, f'oomtrace_build_info{{job="{job}"}}') == []
    daemon.stop()


def only(cgroup: Cgroup) -> tuple[str, str]:
    """Count only kills below this test's cgroup."""
    return "--only", f"cgroup=*/{cgroup.path.name}/*"


def kill_ids(daemon: Daemon) -> list[str]:
    return [record["id"] for record in daemon.of_type("oom_kill")]


def kills_in(found: dict[str, float]) -> float:
    return sum(number for name, number in found.items() if name.startswith("oomtrace_oom_kills_total"))


def check_names(names: set[str]) -> None:
    """Alerts and dashboard use existing metrics only."""
    for file in ("prometheus/oomtrace.rules.yml", "grafana/oomtrace.json"):
        asked = set(re.findall(r"\boomtrace_[a-z_]+\b(?=[{\[) ])", (CONFIGURATIONS / file).read_text()))
        assert asked, file
        assert asked <= names, file


def test_node_exporter(daemon: Daemon, kill: Kill, cgroup: Cgroup, start_program: Start, tmp_path: Path) -> None:
    """node_exporter exports the metrics of the file."""
    port, folder = free_port(), tmp_path / "textfile"
    folder.mkdir(mode=0o755)
    daemon.start("--metrics", f"file:{folder}/oomtrace.prom", *only(cgroup))
    flags = [f"--web.listen-address=127.0.0.1:{port}", f"--collector.textfile.directory={folder}"]
    command = [*unpacked("node-exporter", "prometheus-node-exporter"), "prometheus-node-exporter"]
    start_program(
        "node_exporter", [*command, "--collector.disable-defaults", "--collector.textfile", *flags], accepts(port)
    )
    kill(3)
    wait_until("all records", lambda: len(kill_ids(daemon)) == 3)
    wait_until("the kills in node_exporter", lambda: kills_in(samples(get(port))) == len(kill_ids(daemon)), SCRAPED_S)
    assert samples(get(port))["node_textfile_scrape_error"] == 0


PLACE = {"namespace": "shop", "pod": "cart-7f", "container": "cart"}
LABELLED = {
    "scraped": {**PLACE, "job": "oomtrace"},
    "pod": {**TARGET, **{f"exported_{name}": value for name, value in PLACE.items()}, "job": "monitoring/oomtrace"},
    "textfile": {**PLACE, "job": "node"},
}
"""Labels of a victim in Prometheus, by the way that they are collected."""
SERIES = {
    'oomtrace_oom_kills_total{instance="n1",scope="host"}': "0x30 2x90",
    'oomtrace_oom_kills_total{instance="n2",scope="host"}': "_x40 3x80",
    'oomtrace_oom_kills_total{instance="n3",scope="host"}': "0x120",
    'oomtrace_oom_kills_total{instance="n1",scope="memcg"}': "0x67 4x90",
    'oomtrace_gap_oom_kills_total{instance="n1"}': "_x20 7x100",
    'oomtrace_victim_oom_kills_total{instance="n1",PLACE}': "_x66 1 4x80",
    'oomtrace_victim_last_oom_kill_timestamp_seconds{instance="n1",PLACE}': "_x66 4000x80",
    'oomtrace_output_queued{instance="n1",output="file:/x"}': "5x120",
    'oomtrace_output_spooled_bytes{instance="n1",output="file:/x"}': "900x120",
    'oomtrace_lost_total{instance="n1",stage="decode"}': "0x68 3x90",
}
AT = '{victim_container="cart", victim_namespace="shop", victim_pod="cart-7f"}'
SHOWN = {
    "OOM kills by scope": {'{scope="host"}': 0, '{scope="memcg"}': 4},
    "Hosts that ran out of memory": {"{}": 2},
    "Kills without a record": {"{}": 7},
    "Most killed": {AT: 4},
    "Last kill": {AT.replace("{", '{instance="n1", '): 4000000},
    "Kills per hour by container, pod or unit": {AT: 4},
    "Lines waiting in memory": {'oomtrace_output_queued{instance="n1", output="file:/x"}': 5},
    "Bytes waiting on disk": {'oomtrace_output_spooled_bytes{instance="n1", output="file:/x"}': 900},
    "Lost": {'{instance="n1", stage="decode"}': 3},
}
"""Values of each panel at minute 70, over the last hour."""
VARIABLES = {"$instance": "n.*", "$namespace": "shop", "$__rate_interval": "5m", "$__range": "1h"}


@pytest.mark.parametrize("way", LABELLED)
def test_dashboard(way: str, tmp_path: Path) -> None:
    """Each panel's query is right, also for series that start with their first kill."""
    queries = {panel["title"]: panel["targets"][0]["expr"] for panel in json.loads(DASHBOARD.read_text())["panels"]}
    assert queries.keys() == SHOWN.keys()
    victim = {**LABELLED[way], **{f"victim_{name}": value for name, value in PLACE.items()}}
    labels = ",".join(f'{name}="{value}"' for name, value in victim.items())
    expressions = []
    for title, query in queries.items():
        for name, text in VARIABLES.items():
            query = query.replace(name, text)
        samples = [{"labels": each, "value": number} for each, number in SHOWN[title].items()]
        expressions.append({"expr": query, "eval_time": "70m", "exp_samples": samples})
    series = [{"series": name.replace("PLACE", labels), "values": values} for name, values in SERIES.items()]
    tests = {"tests": [{"interval": "1m", "input_series": series, "promql_expr_test": expressions}]}
    (tmp_path / "dashboard.test.yml").write_text(yaml.safe_dump(tests))
    command = [*unpacked("prometheus", "prometheus"), "promtool", "test", "rules", "dashboard.test.yml"]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert finished.returncode == 0, finished.stdout + finished.stderr


@pytest.mark.parametrize(
    "arguments", [("check", "rules", "oomtrace.rules.yml"), ("test", "rules", "oomtrace.rules.test.yml")]
)
def test_rules(arguments: tuple[str, ...]) -> None:
    """promtool accepts the alerts, and they fire when they should."""
    command = [*unpacked("prometheus", "prometheus"), "promtool", *arguments]
    finished = subprocess.run(command, cwd=CONFIGURATIONS / "prometheus", capture_output=True, text=True, timeout=60)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "SUCCESS" in finished.stdout


def test_configuration() -> None:
    """promtool accepts the scrape configuration."""
    command = [*unpacked("prometheus", "prometheus"), "promtool", "check", "config", "prometheus.yml"]
    finished = subprocess.run(command, cwd=CONFIGURATIONS / "prometheus", capture_output=True, text=True, timeout=60)
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_address_in_use(daemon: Daemon, start_program: Start, tmp_path: Path) -> None:
    """If the metrics address is in use, the daemon prints an error and exits."""
    port = free_port()
    start_program("other", ["python3", "-m", "http.server", "--bind", "127.0.0.1", str(port)], accepts(port))
    process = daemon.spawn("--metrics", f"127.0.0.1:{port}")
    assert process.wait(60) == 1
    assert f"cannot publish metrics at 127.0.0.1:{port} (Address already in use): use HOST:PORT" in daemon.stderr()
