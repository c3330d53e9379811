# SPDX-License-Identifier: Apache-2.0
"""Writes the table of faults in docs/reliability.md, from the tallies in build/reliability.

python3 -m tests.reliability.table          rewrite the part between the two markers
"""

import sys

from tests.harness.environment import ROOT

from .tally import stored

PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- reliability-table -->", "<!-- /reliability-table -->"
HEAD = (
    "| fault | times | kills (kernel) | records | from the kernel log | doubled | reported as lost | Linux |\n"
    "|---|---|---|---|---|---|---|---|"
)


def render() -> str:
    """The table, sorted by fault."""
    rows = [
        f"| {row['fault']} | {row['times']} | {row['kills']} | {row['records']} | {row['from_log']} | {row['doubled']} "
        f"| {row['lost']} | {str(row['kernel']).partition('-')[0]} |"
        for row in stored()
    ]
    return "\n".join([HEAD, *rows])


def main() -> int:
    if not stored():
        print("table: no results; run: make test-reliability", file=sys.stderr)
        return 2
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{render()}\n{END}{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
