# SPDX-License-Identifier: Apache-2.0
"""The tally of one fault: kills made and records written."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.harness.environment import KERNEL, ROOT
from tests.harness.oracles import Record

RESULTS = ROOT / "build" / "reliability"


@dataclass(frozen=True)
class Tally:
    """Numbers of one test, a row of the table in docs/reliability.md."""

    fault: str
    times: int
    kills: int
    """oom_kill of /proc/vmstat."""
    records: int
    """oom_kill records in the test's output."""
    from_log: int
    """Records made from the kernel log."""
    doubled: int
    lost: int
    """Kills without a record, from the gap records."""

    @classmethod
    def of(cls, fault: str, times: int, kills: int, records: Sequence[Record]) -> "Tally":
        found = [record for record in records if record["type"] == "oom_kill"]
        victims = Counter(record["victim"]["tid"] for record in found)  # no test makes enough kills for tids to recur
        return cls(
            fault,
            times,
            kills,
            len(found),
            sum(record["source"] == "kernel_log" for record in found),
            sum(victims.values()) - len(victims),
            sum(record["missing"] for record in records if record["type"] == "gap"),
        )

    def write(self) -> "Tally":
        """Store it for the table in the documentation."""
        RESULTS.mkdir(parents=True, exist_ok=True)
        path = RESULTS / f"{self.fault.replace(' ', '-').replace('/', '-')}.json"
        path.write_text(json.dumps({**asdict(self), "kernel": KERNEL}) + "\n")
        return self

    def check(self) -> None:
        """Check that every kill has one record."""
        assert (self.records, self.doubled, self.lost) == (self.kills, 0, 0), self

    def check_accounted(self) -> None:
        """Check that every kill has one record, or is counted in a gap record."""
        assert (self.records + self.lost, self.doubled) == (self.kills, 0), self


def stored() -> list[dict[str, object]]:
    """The stored tallies."""
    return [json.loads(path.read_text()) for path in sorted(Path(RESULTS).glob("*.json"))]
