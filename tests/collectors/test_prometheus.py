# SPDX-License-Identifier: Apache-2.0
"""Prometheus scrapes the counts, node_exporter reads them from a file; alerts and dashboard ask for what is there."""

import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.cgroups import Cgroup
from tests.kernel.environment import wait_until
from tests.reliability.runs import Runs

from .configuration import CONFIGURATIONS, adapted
from .conftest import Kill, Start
from .program import accepts, free_port
from .unpacked import unpacked

SCRAPED_S = 30.0


def ask(port: int, query: str) -> list[dict[str, Any]]:
    """What Prometheus answers to an instant query: metrics with their values."""
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
    """Names with their labels, and values, of the text format."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(number) for name, _, number in (line.rpartition(" ") for line in lines)}


def test_scraped(runs: Runs, kill: Kill, cgroup: Cgroup, start_program: Start, tmp_path: Path) -> None:
    """Prometheus has as many kills as there are records, by place; it is killed and restarted in between."""
    shown, own, exported = free_port(), free_port(), tmp_path / "oomtrace.prom"
    shutil.copy(CONFIGURATIONS / "prometheus" / "oomtrace.rules.yml", tmp_path)
    places = {"127.0.0.1:9814": f"127.0.0.1:{shown}", "interval: 15s": "interval: 1s"}
    config = adapted("prometheus/prometheus.yml", places, tmp_path)
    flags = [f"--config.file={config}", f"--storage.tsdb.path={tmp_path}/data", f"--web.listen-address=127.0.0.1:{own}"]
    program = start_program("prometheus", [*unpacked("prometheus", "prometheus"), "prometheus", *flags], accepts(own))
    runs.start("--metrics", f"127.0.0.1:{shown}", "--metrics", f"file:{exported}", *only(cgroup))

    wait_until("it is scraped", lambda: value(own, 'oomtrace_oom_kills_total{scope="memcg"}') >= 0, SCRAPED_S)
    kill(5)
    program.restart()
    kill(7)
    wait_until("all are told", lambda: len(told(runs)) == 12)
    wait_until("all are counted", lambda: value(own, "sum(oomtrace_oom_kills_total)") == len(told(runs)), SCRAPED_S)
    assert value(own, "sum(oomtrace_victim_oom_kills_total)") == len(told(runs))
    assert value(own, 'oomtrace_records_total{type="oom_kill"}') == len(told(runs))
    assert value(own, "oomtrace_kernel_oom_kills_total") >= len(told(runs))
    assert value(own, "time() - max(oomtrace_victim_last_oom_kill_timestamp_seconds)") < 120
    assert value(own, "oomtrace_build_info") == 1
    assert value(own, f'oomtrace_output_failing{{output="file:{runs.output}"}}') == 0
    wait_until("the alert fires", lambda: ask(own, 'ALERTS{alertname="OOMKill"}'), 90)

    wait_until("the file has them, too", lambda: kills_in(samples(exported.read_text())) == len(told(runs)), SCRAPED_S)
    assert exported.stat().st_mode & 0o777 == 0o644
    assert kills_in(samples(get(shown))) == len(told(runs))
    names = {re.split("[{ ]", name, maxsplit=1)[0] for name in samples(get(shown))}
    runs.stop()
    check_names(names)


def only(cgroup: Cgroup) -> tuple[str, str]:
    """Others may kill meanwhile, and go on while it is counted."""
    return "--only", f"cgroup=*/{cgroup.path.name}/*"


def told(runs: Runs) -> list[str]:
    return [record["id"] for record in runs.of_type("oom_kill")]


def kills_in(found: dict[str, float]) -> float:
    return sum(number for name, number in found.items() if name.startswith("oomtrace_oom_kills_total"))


def check_names(names: set[str]) -> None:
    """Alerts and dashboard ask for no other metrics than those that there are."""
    for file in ("prometheus/oomtrace.rules.yml", "grafana/oomtrace.json"):
        asked = set(re.findall(r"\boomtrace_[a-z_]+\b(?=[{\[) ])", (CONFIGURATIONS / file).read_text()))
        assert asked, file
        assert asked <= names, file


def test_node_exporter(runs: Runs, kill: Kill, cgroup: Cgroup, start_program: Start, tmp_path: Path) -> None:
    """node_exporter shows the file's counts as its own."""
    port, folder = free_port(), tmp_path / "textfile"
    folder.mkdir(mode=0o755)
    runs.start("--metrics", f"file:{folder}/oomtrace.prom", *only(cgroup))
    flags = [f"--web.listen-address=127.0.0.1:{port}", f"--collector.textfile.directory={folder}"]
    command = [*unpacked("node-exporter", "prometheus-node-exporter"), "prometheus-node-exporter"]
    start_program(
        "node_exporter", [*command, "--collector.disable-defaults", "--collector.textfile", *flags], accepts(port)
    )
    kill(3)
    wait_until("all are told", lambda: len(told(runs)) == 3)
    wait_until("node_exporter has them", lambda: kills_in(samples(get(port))) == len(told(runs)), SCRAPED_S)
    assert samples(get(port))["node_textfile_scrape_error"] == 0


@pytest.mark.parametrize(
    "arguments", [("check", "rules", "oomtrace.rules.yml"), ("test", "rules", "oomtrace.rules.test.yml")]
)
def test_rules(arguments: tuple[str, ...]) -> None:
    """promtool finds the alerts right, and they fire when they should."""
    command = [*unpacked("prometheus", "prometheus"), "promtool", *arguments]
    finished = subprocess.run(command, cwd=CONFIGURATIONS / "prometheus", capture_output=True, text=True, timeout=60)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "SUCCESS" in finished.stdout


def test_configuration() -> None:
    """promtool finds the scrape configuration right."""
    command = [*unpacked("prometheus", "prometheus"), "promtool", "check", "config", "prometheus.yml"]
    finished = subprocess.run(command, cwd=CONFIGURATIONS / "prometheus", capture_output=True, text=True, timeout=60)
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_address_in_use(runs: Runs, start_program: Start, tmp_path: Path) -> None:
    """One line says what is wrong, and the tracer does not start without what it was told to show."""
    port = free_port()
    start_program("other", ["python3", "-m", "http.server", "--bind", "127.0.0.1", str(port)], accepts(port))
    process = runs.spawn("--metrics", f"127.0.0.1:{port}")
    assert process.wait(60) == 1
    assert f"cannot show metrics at 127.0.0.1:{port} (Address already in use): use HOST:PORT" in runs.said()
