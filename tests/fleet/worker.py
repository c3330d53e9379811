# SPDX-License-Identifier: Apache-2.0
"""Nodes of the fleet in one process: python -m tests.fleet.worker, with a Task as JSON on standard input.

Prints ``ready``, ``TYPE ID UNIX_NS`` of every record when it is queued, and ``delivered``, one per line.
"""

import json
import random
import resource
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from tracer.delivery.output import Output
from tracer.delivery.sinks.open import open_sink, parse_destination
from tracer.delivery.spool import Spool
from tracer.encoding import encoder

from .nodes import BURSTS, Node

DRAIN_TIMEOUT_S = 180.0


@dataclass(frozen=True)
class Task:
    """The work of these nodes; rates are totals of all."""

    first: int
    nodes: int
    uri: str
    """``{node}`` is replaced by the node's name."""
    folder: str
    templates: str
    """File of incidents, as JSON."""
    begin_s: float
    """Unix time at which all workers start."""
    seconds: float
    kills_per_s: float
    burst_at_s: float
    """From ``begin_s`` on, as the next two."""
    burst_s: float
    burst_kills: int
    """Kills of the burst per node."""

    def schedule(self) -> list[tuple[float, int, bool]]:
        """Schedule: time, node, and whether the kill is one of the burst."""
        chance = random.Random(self.first)
        base = [
            (chance.uniform(0, self.seconds), chance.randrange(self.nodes), False)
            for _ in range(round(self.kills_per_s * self.seconds))
        ]
        burst = [
            (self.burst_at_s + chance.uniform(0, self.burst_s), node, True)
            for node in range(self.nodes)
            for _ in range(self.burst_kills)
        ]
        return sorted(base + burst)


def main() -> int:
    task = Task(**json.load(sys.stdin))
    templates = json.loads(Path(task.templates).read_text())
    nodes = [Node(task.first + number, templates) for number in range(task.nodes)]
    outputs = []
    for node in nodes:
        target = parse_destination(task.uri.format(node=node.name))
        outputs.append(Output(open_sink(target), Spool(task.folder, target.uri)))
    print("ready", flush=True)
    time.sleep(max(0.0, task.begin_s - time.time()))
    begin_cpu_s = _cpu_s()
    put = [0] * len(nodes)
    for at_s, number, is_burst in task.schedule():
        time.sleep(max(0.0, task.begin_s + at_s - time.time()))
        for record in nodes[number].incident(BURSTS if is_burst else None):
            outputs[number].put(encoder.encode(record))  # type: ignore[arg-type]
            put[number] += 1
            print(record["type"], record["id"], time.time_ns(), int(is_burst))
    until_s = time.monotonic() + DRAIN_TIMEOUT_S
    while time.monotonic() < until_s and not all(
        _is_done(output, count) for output, count in zip(outputs, put, strict=True)
    ):
        time.sleep(0.05)
    used_s = _cpu_s() - begin_cpu_s
    for output in outputs:
        output.close(5)
    left = sum(not _is_done(output, count) for output, count in zip(outputs, put, strict=True))
    print("delivered", sum(put), left, used_s, flush=True)
    return 0


def _is_done(output: Output, count: int) -> bool:
    return output.acknowledged == count and output._lines.is_spool_empty


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def as_json(task: Task) -> str:
    return json.dumps(asdict(task))


if __name__ == "__main__":
    sys.exit(main())
