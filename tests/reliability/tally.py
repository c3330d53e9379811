# SPDX-License-Identifier: Apache-2.0
"""Kills made and records written: the account of one fault."""

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
    """Numbers of one test, as docs/reliability.md shows them."""

    fault: str
    times: int
    kills: int
    """As the kernel counts them, in /proc/vmstat."""
    records: int
    """Of kills, in all outputs' files of this test."""
    from_log: int
    """Of these, from the kernel log."""
    doubled: int
    lost: int
    """Kills that have no record, as the stream tells them: in gap records."""

    @classmethod
    def of(cls, fault: str, times: int, kills: int, records: Sequence[Record]) -> "Tally":
        found = [record for record in records if record["type"] == "oom_kill"]
        victims = Counter(record["victim"]["tid"] for record in found)  # no test makes so many that one comes again
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
        """For the table in the documentation."""
        RESULTS.mkdir(parents=True, exist_ok=True)
        path = RESULTS / f"{self.fault.replace(' ', '-').replace('/', '-')}.json"
        path.write_text(json.dumps({**asdict(self), "kernel": KERNEL}) + "\n")
        return self

    def check(self) -> None:
        """Every kill has one record, and no kill has two."""
        assert (self.records, self.doubled, self.lost) == (self.kills, 0, 0), self

    def check_told(self) -> None:
        """Every kill has one record, or is told to be missing."""
        assert (self.records + self.lost, self.doubled) == (self.kills, 0), self


def stored() -> list[dict[str, object]]:
    """What the last runs of the tests wrote."""
    return [json.loads(path.read_text()) for path in sorted(Path(RESULTS).glob("*.json"))]
