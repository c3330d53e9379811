# SPDX-License-Identifier: Apache-2.0
"""Measure a fleet: ``python -m tests.fleet [--nodes 1000] [--seconds 60]``, as root.

The results are printed as JSON; the records stay in build/fleet/records.jsonl, and
``python -m tests.fleet.clickhouse`` (needs chdb) runs the same queries on them.
"""

import argparse
import gzip
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import zstandard

from tests.harness.environment import ROOT
from tests.harness.mounts import mount_missing

from . import kills
from .run import TOPIC, FleetOutcome, FleetPlan, MosquittoBroker, free_port, run
from .store import Postgres

BUILD = ROOT / "build" / "fleet"
KILLS = 200
BATCH = 100
"""Records compressed together, as in a batch of Kafka."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.fleet")
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--kills-per-s", type=float, default=10)
    parser.add_argument("--burst-kills", type=int, default=5)
    options = parser.parse_args()
    mount_missing()
    BUILD.mkdir(parents=True, exist_ok=True)
    burst = FleetPlan(options.nodes, options.seconds, options.kills_per_s, options.burst_kills, 10, restarts=True)
    flood = FleetPlan(options.nodes, 1, 0, 20, 1, restarts=False)
    measured: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        file_only, by_network = _cost(folder)
        measured["cost of a node"] = {
            "CPU ms per kill, into a file": round(file_only.cpu_ms, 2),
            "CPU ms per kill, into a file and by MQTT": round(by_network.cpu_ms, 2),
            "RSS MB, into a file": round(file_only.rss_mb, 1),
            "RSS MB, into a file and by MQTT": round(by_network.rss_mb, 1),
            "threads": by_network.threads,
        }
        for name, plan in (("burst with a restart", burst), ("flood", flood)):
            here = folder / name.replace(" ", "-")
            here.mkdir(mode=0o755)
            folder.chmod(0o755)
            postgres = Postgres(here)
            outcome = run(plan, by_network.incidents, here, postgres)
            measured[name] = {**vars(plan), **_summary(outcome, postgres)}
            if plan is burst:
                measured["bytes per kill"] = _sizes([line for _, _, line in outcome.received])
                measured["answers"] = [
                    {"question": question, "columns": columns, "rows": [[str(value) for value in row] for row in rows]}
                    for question, columns, rows in postgres.answers()
                ]
                shutil.copyfile(here / "records.jsonl", BUILD / "records.jsonl")
                measured["store"] = _fill(postgres, BUILD / "records.jsonl")
            postgres.close()
    text = json.dumps(measured, indent=1)
    (BUILD / "measured.json").write_text(text)
    print(text)
    return 0


def _cost(folder: Path) -> tuple[kills.Kills, kills.Kills]:
    """Cost of the daemon, without and with an output over the network."""
    made = []
    for name in ("file", "mqtt"):
        here = folder / name
        here.mkdir()
        port = free_port()
        broker = MosquittoBroker(here, port)
        uri = f"mqtt://127.0.0.1:{port}/{TOPIC}?wait=no" if name == "mqtt" else f"file:{here}/other.jsonl"
        made.append(kills.make(KILLS, here, uri))
        broker.stop()
    return made[0], made[1]


def _summary(outcome: FleetOutcome, postgres: Postgres) -> dict[str, Any]:
    first_s = min(each.at_s for each in outcome.sent)
    last_s = max(at_s for at_s, _, _ in outcome.received)
    stored_s = max(at_s for _, at_s, _ in outcome.received)
    records = len(outcome.sent)
    (_, ((in_store,),)) = postgres.ask("SELECT count(*) FROM oom_record")
    times = {}
    for words, is_burst in (("otherwise", False), ("in the burst", True)):
        for where, is_stored in (("subscriber", False), ("store", True)):
            values = outcome.latencies_s(burst=is_burst, stored=is_stored)
            if len(values) > 1:
                cuts = statistics.quantiles(values, n=100)
                times[f"{words}, to the {where}"] = [
                    round(1000 * value, 1) for value in (cuts[49], cuts[98], values[-1])
                ]
    return {
        "records sent": records,
        "records received": len(outcome.received),
        "in the store": in_store,
        "lost": outcome.lost(),
        "doubled": outcome.doubled(),
        "outputs not done": outcome.undelivered,
        "broker down s": round(outcome.broker_down_s, 1),
        "ms, p50 p99 max": times,
        "records/s to the subscriber": round(records / (last_s - first_s)),
        "records/s to the store": round(records / (stored_s - first_s)),
        "nodes' CPU ms per record": round(1000 * outcome.nodes_cpu_s / records, 3),
        "broker CPU ms per record": round(1000 * outcome.broker_cpu_s / records, 3),
        "broker RSS MB": round(outcome.broker_mb, 1),
        "bytes of the table": postgres.table_bytes(),
    }


def _sizes(lines: Sequence[bytes]) -> dict[str, float]:
    """Bytes per kill: an oom_kill record and its oom_exit record."""
    unique = list(dict.fromkeys(lines))
    kills_ = sum(json.loads(line)["type"] == "oom_kill" for line in unique)
    batches = [b"".join(unique[first : first + BATCH]) for first in range(0, len(unique), BATCH)]
    zstd = zstandard.ZstdCompressor()
    sizes = {
        "raw": sum(map(len, unique)),
        "gzip, each alone": sum(len(gzip.compress(line)) for line in unique),
        "zstd, each alone": sum(len(zstd.compress(line)) for line in unique),
        f"gzip, {BATCH} together": sum(len(gzip.compress(batch)) for batch in batches),
        f"zstd, {BATCH} together": sum(len(zstd.compress(batch)) for batch in batches),
    }
    return {name: round(size / kills_) for name, size in sizes.items()}


def _fill(postgres: Postgres, records: Path) -> dict[str, Any]:
    """How fast the idle store takes all records."""
    lines = records.read_text().splitlines()
    with postgres.connect() as connection:
        connection.execute("TRUNCATE oom_record")
        begin_s = time.monotonic()
        with connection.cursor() as cursor, cursor.copy("COPY oom_line FROM STDIN") as copy:
            for line in lines:
                copy.write_row([line])
        connection.commit()
        used_s = time.monotonic() - begin_s
    return {"PostgreSQL, records/s, alone": round(len(lines) / used_s)}


if __name__ == "__main__":
    for program in ("mosquitto", "mosquitto_sub"):
        if shutil.which(program) is None:
            sys.exit(f"no {program}: apt install mosquitto mosquitto-clients postgresql")
    subprocess.run(["runuser", "-u", "postgres", "--", "true"], check=True)
    sys.exit(main())
