# SPDX-License-Identifier: Apache-2.0
"""Real kills with a real daemon: the incidents that the fleet replays, and their cost."""

import os
from dataclasses import dataclass
from pathlib import Path

from tests.bench.process import cpu_s, memory_mb
from tests.harness.cgroups import Hierarchy
from tests.harness.daemon import Daemon
from tests.harness.eater import Eater
from tests.harness.environment import wait_until
from tests.harness.oracles import Record

LIMIT_MIB = 16


@dataclass(frozen=True)
class Kills:
    """``incidents``: pairs of an oom_kill record and its oom_exit record."""

    incidents: list[list[Record]]
    cpu_ms: float
    """CPU time of the daemon per kill."""
    rss_mb: float
    """RSS of the daemon afterwards, in units of 1,000,000 bytes."""
    threads: int


def make(count: int, folder: Path, uri: str) -> Kills:
    """Make this many kills, one after the other, with a daemon that delivers to this output and into a file."""
    group = Hierarchy.find().make(f"oomtrace-fleet-{os.getpid()}")
    daemon = Daemon(folder)
    eaters: list[Eater] = []
    try:
        daemon.start("--output", uri)
        limited = group.child("limited", LIMIT_MIB)
        warm = Eater(2 * LIMIT_MIB, [limited], children=2)
        eaters.append(warm)
        wait_until("the warm-up", warm.ended)
        wait_until("the records of the warm-up", lambda: len(daemon.of_type("oom_exit")) >= 2)
        before_s = cpu_s(daemon.process.pid)
        eater = Eater(2 * LIMIT_MIB, [limited], children=count, extra=["java", "-Xmx512m", "-jar", "/srv/app.jar"])
        eaters.append(eater)
        wait_until("all are killed", eater.ended, 120)
        pids = set(eater.children(count))
        wait_until("all records", lambda: pids <= {record["pid"] for record in daemon.of_type("oom_exit")}, 60)
        used_s = cpu_s(daemon.process.pid) - before_s
        exits = {record["id"]: record for record in daemon.of_type("oom_exit")}
        incidents = [
            [kill, exits[kill["id"]]]
            for kill in daemon.of_type("oom_kill")
            if kill["victim"]["pid"] in pids and (kill["limit"] or {}).get("limit_bytes") is not None
        ]
        rss_mb = memory_mb(daemon.process.pid, "VmRSS")
        threads = len(os.listdir(f"/proc/{daemon.process.pid}/task"))
        daemon.stop()
    finally:
        for eater in eaters:
            eater.close()
        daemon.close()
        group.remove()
    return Kills(incidents, 1000 * used_s / count, rss_mb, threads)
