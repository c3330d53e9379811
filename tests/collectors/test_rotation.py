# SPDX-License-Identifier: Apache-2.0
"""A file that the daemon rotates and compresses, while the daemon is killed during a storm."""

import gzip
import json
import random
import time
from pathlib import Path

from tests.harness.cgroups import Cgroup
from tests.harness.daemon import Daemon
from tests.harness.environment import wait_until
from tests.harness.oracles import Record
from tests.kernel.conftest import Eat

from .delivery import key, killed, once

DEATHS = 6
KILLS = 150


def records_in(path: Path) -> list[Record]:
    """Records of the file and its rotated files, in the order of their names."""
    found = []
    for part in [*sorted(path.parent.glob(f"{path.name}.0*")), path]:
        data = gzip.decompress(part.read_bytes()) if part.suffix == ".gz" else part.read_bytes()
        found += [json.loads(line) for line in data.splitlines()]
    return found


def test_killed_while_it_rotates(daemon: Daemon, cgroup: Cgroup, eat: Eat, tmp_path: Path) -> None:
    """Every kill has one record in the file and its rotated files, although the daemon is killed repeatedly."""
    path = tmp_path / "oomtrace.jsonl"
    output = ["--output", f"file:{path}?rotate-bytes=8K&compress=gzip"]
    generator = random.Random(3)
    group = cgroup.child("storm", 8)
    daemon.start(*output)
    eater = eat(16, group, children=KILLS, wait_ms=30, life=600)
    for _ in range(DEATHS):
        time.sleep(generator.uniform(0.1, 0.8))
        daemon.kill()
        assert daemon.start(*output)["adopted"]
    wait_until("all are killed", eater.ended, 120)
    victims = set(eater.children(KILLS))
    wait_until("all but two are compressed", lambda: len(list(tmp_path.glob("oomtrace.jsonl.0*[0-9]"))) <= 1)
    daemon.stop()
    assert group.oom_kills() == KILLS
    records = records_in(path)
    assert victims <= killed(records)
    kills = [key(record) for record in records if record["type"] == "oom_kill"]
    assert len(kills) == len(set(kills)), "a kill is recorded twice"
    written = [key(record) for record in once(daemon.records()) if record["type"] == "oom_kill"]
    assert kills == written, "the other file, in the order of the kills"
