# SPDX-License-Identifier: Apache-2.0
"""The same queries in ClickHouse, by chdb (``pip install chdb``, 900 MB): python -m tests.fleet.clickhouse.

Reads build/fleet/records.jsonl of the last run of the fleet; prints results and times as JSON.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2]
RECORDS = FOLDER / "build" / "fleet" / "records.jsonl"
SQL = FOLDER / "deploy" / "fleet"


def main() -> int:
    from chdb.session import Session

    with tempfile.TemporaryDirectory() as folder:
        session = Session(folder)
        for statement in _statements("clickhouse.sql"):
            session.query(statement)
        begin_s = time.monotonic()
        # Twice, to simulate duplicate records.
        for _ in range(2):
            session.query(f"INSERT INTO oom_line SELECT line FROM file('{RECORDS}', LineAsString)")  # noqa: S608
        used_s = (time.monotonic() - begin_s) / 2
        session.query("OPTIMIZE TABLE oom_kill FINAL")
        sizes = "SELECT sum(rows), sum(data_compressed_bytes) FROM system.parts WHERE table = 'oom_kill' AND active"
        rows, compressed = map(int, str(session.query(sizes, "CSV")).split(","))
        answers = [
            json.loads(str(session.query(question, "JSONCompact")))["data"]
            for question in _statements("queries.clickhouse.sql")
        ]
        lines = sum(1 for _ in RECORDS.open("rb"))
        results = {
            "records/s": round(lines / used_s),
            "kills in the table, after all came twice": rows,
            "bytes per kill, compressed": round(compressed / rows),
            "answers": answers,
        }
        print(json.dumps(results, indent=1))
    return 0


def _statements(file: str) -> list[str]:
    lines = [line for line in (SQL / file).read_text().splitlines() if not line.startswith("--")]
    return [statement.strip() for statement in "\n".join(lines).split(";") if statement.strip()]


if __name__ == "__main__":
    sys.exit(main())
