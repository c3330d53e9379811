# SPDX-License-Identifier: Apache-2.0
"""A small fleet (tests/fleet): 50 nodes, a burst during which the broker restarts, and a store."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fleet import kills
from tests.fleet.run import FleetPlan, run
from tests.fleet.store import Postgres

PLAN = FleetPlan(nodes=50, seconds=10, kills_per_s=10, burst_kills=4, burst_s=3, restarts=True)


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[Postgres]:
    for parent in tmp_path.parents:  # the server's user needs access
        if parent.is_relative_to("/tmp") and parent != Path("/tmp"):
            parent.chmod(0o755)
    server = Postgres(tmp_path)
    yield server
    server.close()


def test_fleet(postgres: Postgres, tmp_path: Path) -> None:
    """No record is lost when the broker restarts in a burst; the store has each once, and finds the culprit."""
    made = kills.make(5, tmp_path, f"file:{tmp_path}/other.jsonl")
    assert made.incidents
    (tmp_path / "run").mkdir()
    outcome = run(PLAN, made.incidents, tmp_path / "run", postgres)
    assert outcome.undelivered == 0
    assert outcome.broker_down_s > 2
    assert outcome.lost() == 0
    ids = {(each.type, each.id) for each in outcome.sent}
    assert len(ids) == 2 * (10 * 10 + 50 * 4)
    assert postgres.ask("SELECT count(*) FROM oom_record")[1] == [(len(ids),)]
    records = {line for _, _, line in outcome.received}
    assert len(records) == len(ids)
    found = Counter(
        (record["kubernetes"]["namespace"], record["kubernetes"]["pod_name"].rsplit("-", 2)[0])
        for record in map(json.loads, records)
        if record["type"] == "oom_kill" and record["limit"] is not None
    )
    (_, columns, rows), *_ = postgres.answers()
    assert columns == ["namespace", "deployment", "level", "limit_mib", "kills", "hosts", "median_rss_mib"]
    assert rows[0][:4] == ("shop", "checkout", "container", 512)
    limited = [row for row in rows if row[2] is not None]
    assert [(row[0], row[1], row[4]) for row in limited] == [
        (*name, count) for name, count in sorted(found.items(), key=lambda item: (-item[1], item[0][1]))
    ][: len(limited)]
