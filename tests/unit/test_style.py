# SPDX-License-Identifier: Apache-2.0
"""style.py: the same record under other names."""

import orjson

from tracer import line
from tracer.incident import Kill
from tracer.style import STYLES

from .events import incident, victim
from .records import complete


def test_flat() -> None:
    """One level; labels and lists as they are."""
    record = complete(Kill(victim(), incident(), 1, (), (), ()))
    found = orjson.loads(line.encode(record, style=STYLES["flat"]))
    assert found["victim.rss_bytes"] == record["victim"]["rss_bytes"]
    assert found["host.labels"] == {}
    assert (found["type"], found["id"]) == ("oom_kill", record["id"])
    assert not [name for name, value in found.items() if isinstance(value, dict) and not name.endswith("labels")]
