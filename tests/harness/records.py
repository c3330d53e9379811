# SPDX-License-Identifier: Apache-2.0
"""Makes complete records of kills, as the daemon does."""

import json
import re
from pathlib import Path
from typing import Any

from tracer.identity.enrich import enrich_oom_kill
from tracer.linux.gfp_flags import GfpNames
from tracer.pipeline.incidents import JoinedKill
from tracer.pipeline.oom_kill import RecordBuilder
from tracer.records.model import Host, OomKill, Record

from .schema import validate

ROOT = Path(__file__).resolve().parents[2]
HOST: Host = {
    "name": "node-1",
    "boot_id": "6a4ce4a0-ba47-11ea-b2a7-0cc47ac5979e",
    "kernel": "6.1.0-56-cloud-amd64",
    "labels": {},
}
RECORDS = RecordBuilder("bpf", "6a4ce4a0", GfpNames(None), scores=True)
BLIND = RecordBuilder("bpf_tracepoints", "6a4ce4a0", GfpNames(None), scores=False)
"""Builder of records without kprobes."""


def complete(kill: JoinedKill, records: RecordBuilder = RECORDS) -> OomKill:
    """The record that the daemon would write, checked against the JSON Schema."""
    record = records.oom_kill(kill)
    enrich_oom_kill(record, kill.victim.started_ns)
    written: Record = record
    written["host"] = HOST
    validate(record)
    return record


def shown() -> Any:
    """The example record of docs/record.md."""
    (found,) = re.findall(r"```json\n(.*?)```", (ROOT / "docs" / "record.md").read_text(), re.DOTALL)
    return json.loads(found)
