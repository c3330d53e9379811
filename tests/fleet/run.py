# SPDX-License-Identifier: Apache-2.0
"""One run of the fleet: nodes, broker, subscriber and store, and the outcome."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.bench.process import cpu_s, memory_mb
from tests.harness.environment import ROOT, attempts
from tests.harness.oracles import Record

from .store import Loader, Postgres
from .worker import Task, as_json

CONFIGURATION = ROOT / "deploy" / "collectors" / "mosquitto" / "oomtrace.conf"
TOPIC = "oom-kills"
NODES_A_PROCESS = 125
"""The client library uses select(2), whose descriptors are limited to 1023."""
READER = "reader"


@dataclass(frozen=True)
class FleetPlan:
    nodes: int
    seconds: float
    kills_per_s: float
    """Rate of all nodes, without the burst."""
    burst_kills: int
    """Kills of the burst per node."""
    burst_s: float
    restarts: bool
    """Whether the broker restarts in the middle of the burst."""

    @property
    def burst_at_s(self) -> float:
        return self.seconds / 3


class Sent(NamedTuple):
    type: str
    id: str
    at_s: float
    is_burst: bool


@dataclass(frozen=True)
class FleetOutcome:
    sent: list[Sent]
    received: list[tuple[float, float, bytes]]
    """Time received from the broker, time stored, and the line; including duplicates."""
    undelivered: int
    """Outputs with undelivered lines at the end of the run."""
    nodes_cpu_s: float
    broker_cpu_s: float
    broker_mb: float
    broker_down_s: float

    def keys(self) -> Counter[tuple[str, str]]:
        """How often each record was received."""
        counted: Counter[tuple[str, str]] = Counter()
        for _, _, line in self.received:
            record = json.loads(line)
            counted[record["type"], record["id"]] += 1
        return counted

    def lost(self) -> int:
        return len({(each.type, each.id) for each in self.sent} - self.keys().keys())

    def doubled(self) -> int:
        return sum(count - 1 for count in self.keys().values())

    def latencies_s(self, *, burst: bool, stored: bool) -> list[float]:
        """Latencies from the output's queue to the subscriber, or the store, sorted."""
        first: dict[tuple[str, str], float] = {}
        for at_s, stored_s, line in self.received:
            record = json.loads(line)
            first.setdefault((record["type"], record["id"]), stored_s if stored else at_s)
        return sorted(
            first[each.type, each.id] - each.at_s
            for each in self.sent
            if each.is_burst is burst and (each.type, each.id) in first
        )


class MosquittoBroker:
    """mosquitto with the configuration of deploy/, which persists sessions and their queued messages."""

    def __init__(self, folder: Path, port: int) -> None:
        text = CONFIGURATION.read_text()
        kept = [line for line in text.splitlines() if not line.startswith(("listener", "certfile", "keyfile"))]
        made = "\n".join(kept).replace("allow_anonymous false", "allow_anonymous true")
        for file in ("password_file", "acl_file"):
            made = "\n".join(line for line in made.splitlines() if not line.startswith(file))
        made = made.replace("/var/lib/mosquitto/", f"{folder}/broker/")
        (folder / "broker").mkdir()
        self._path = folder / "mosquitto.conf"
        self._path.write_text(f"{made}\nlistener {port} 127.0.0.1\nuser root\nlog_dest stderr\nlog_type error\n")
        self._port, self._log = port, folder / "mosquitto.log"
        self._used_s = 0.0
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(["mosquitto", "-c", self._path], stderr=log)
        for _ in attempts(30, 0.05):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 1):
                return
        raise TimeoutError("mosquitto does not listen")

    def cpu_s(self) -> float:
        """CPU time of all its processes so far."""
        return self._used_s + cpu_s(self.process.pid)

    def stop(self) -> None:
        """Stop it as for an upgrade: it saves queued messages of its subscribers."""
        self._used_s = self.cpu_s()
        self.process.terminate()
        self.process.wait(60)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@contextlib.contextmanager
def subscribed(port: int, folder: Path, postgres: Postgres) -> Iterator[Loader]:
    """A subscriber with a persistent session, and the loader behind it; its lines are stored in ``records.jsonl``."""
    options = ["-V", "5", "-c", "-x", "3600", "-i", READER, "-q", "1", "-t", TOPIC, "-F", "%U\t%p"]
    command = ["stdbuf", "-oL", "mosquitto_sub", "-h", "127.0.0.1", "-p", str(port), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as subscriber:
        assert subscriber.stdout is not None
        loader = Loader(subscriber.stdout, postgres, folder / "records.jsonl")
        loader.start()
        yield loader
        subscriber.terminate()
        loader.join(10)


def run(plan: FleetPlan, incidents: Sequence[Sequence[Record]], folder: Path, postgres: Postgres) -> FleetOutcome:
    """Run the plan; ``folder`` is an empty temporary directory."""
    port = free_port()
    broker = MosquittoBroker(folder, port)
    templates = folder / "templates.json"
    templates.write_text(json.dumps(list(incidents)))
    workers: list[subprocess.Popen[bytes]] = []
    try:
        with subscribed(port, folder, postgres) as loader:
            begin_s = time.time() + 3 + plan.nodes / 50
            for number, first in enumerate(range(0, plan.nodes, NODES_A_PROCESS)):
                nodes = min(NODES_A_PROCESS, plan.nodes - first)
                uri = f"mqtt://127.0.0.1:{port}/{TOPIC}?client-id={{node}}&name={{node}}&timeout=10"
                task = Task(
                    first, nodes, uri, str(folder / f"state{number}"), str(templates), begin_s, plan.seconds,
                    plan.kills_per_s * nodes / plan.nodes, plan.burst_at_s, plan.burst_s, plan.burst_kills,
                )  # fmt: skip
                workers.append(_start(task, folder / f"sent{number}"))
            down_s = _restart_in_burst(plan, broker, begin_s)
            for worker in workers:
                worker.wait(plan.seconds + 300)
            sent, undelivered, used_s = _read([folder / f"sent{number}" for number in range(len(workers))])
            expected = {(each.type, each.id) for each in sent}
            for _ in attempts(60, 0.5):
                if len(loader.received) >= len(expected):
                    break
            time.sleep(1)  # for duplicates
            outcome = FleetOutcome(
                sent, list(loader.received), undelivered, used_s, broker.cpu_s(),
                memory_mb(broker.process.pid, "VmRSS"), down_s,
            )  # fmt: skip
    finally:
        for worker in workers:
            if worker.poll() is None:
                worker.kill()
        broker.stop()
    return outcome


def _start(task: Task, sent: Path) -> "subprocess.Popen[bytes]":
    with sent.open("wb") as out, sent.with_suffix(".log").open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "tests.fleet.worker"], cwd=ROOT, stdin=subprocess.PIPE, stdout=out, stderr=log,
            env={**os.environ, "PYTHONUNBUFFERED": ""},
        )  # fmt: skip
    assert worker.stdin is not None
    worker.stdin.write(as_json(task).encode())
    worker.stdin.close()
    return worker


def _restart_in_burst(plan: FleetPlan, broker: MosquittoBroker, begin_s: float) -> float:
    """Restart the broker in the burst; its downtime."""
    if not plan.restarts:
        return 0.0
    time.sleep(max(0.0, begin_s + plan.burst_at_s + plan.burst_s / 2 - time.time()))
    stopped_s = time.monotonic()
    broker.stop()
    time.sleep(2)
    broker.start()
    return time.monotonic() - stopped_s


def _read(files: Sequence[Path]) -> tuple[list[Sent], int, float]:
    """Records sent, number of outputs with undelivered lines, and CPU time of all nodes."""
    sent, undelivered, used_s = [], 0, 0.0
    for file in files:
        lines = [line.split() for line in file.read_text().splitlines()]
        assert lines, file.with_suffix(".log").read_text()
        assert lines[-1][0] == "delivered", file.with_suffix(".log").read_text()
        undelivered += int(lines[-1][2])
        used_s += float(lines[-1][3])
        sent += [Sent(kind, id_, int(at_ns) / 1e9, is_burst == "1") for kind, id_, at_ns, is_burst in lines[1:-1]]
    return sent, undelivered, used_s
