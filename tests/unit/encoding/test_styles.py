# SPDX-License-Identifier: Apache-2.0
"""styles.py: the same record with other names and structure."""

import orjson

from tests.harness.events import incident, victim
from tests.harness.records import complete
from tracer.encoding import encoder
from tracer.encoding.styles import STYLES
from tracer.pipeline.incidents import JoinedKill


def test_flat() -> None:
    """One level; labels and lists unchanged."""
    record = complete(JoinedKill(victim(), incident(), 1, (), (), ()))
    found = orjson.loads(encoder.encode(record, style=STYLES["flat"]))
    assert found["victim.rss_bytes"] == record["victim"]["rss_bytes"]
    assert found["host.labels"] == {}
    assert (found["type"], found["id"]) == ("oom_kill", record["id"])
    assert not [name for name, value in found.items() if isinstance(value, dict) and not name.endswith("labels")]
