# SPDX-License-Identifier: Apache-2.0
"""In: names of the Vagrantfile's machines.  Out: results of all scenarios in each, and the table in docs/vagrant.md.

python3 -m vagrant.machines [MACHINE]...      default: all; brings one up, runs the scenarios, destroys it, and the next
python3 -m vagrant.machines --table           only write the table, of all results in build/vagrant/results

Exit status: 0 all scenarios as expected, 1 not, 2 a machine did not come up.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
HERE = PROJECT / "vagrant"
RESULTS = PROJECT / "build" / "vagrant" / "results"
PAGE = PROJECT / "docs" / "vagrant.md"
BEGIN, END = "<!-- vagrant-table -->", "<!-- /vagrant-table -->"
NOT_APPLICABLE = "–"
UP_S = 1800
SCENARIOS_S = 3600


def names() -> list[str]:
    """The machines, as the Vagrantfile has them."""
    return re.findall(r'^  "([\w.-]+)"\s*=> \{', (HERE / "Vagrantfile").read_text(), re.MULTILINE)


def vagrant(*arguments: str, timeout: float) -> int:
    """Exit status of a vagrant command."""
    return subprocess.run(["vagrant", *arguments], cwd=HERE, timeout=timeout).returncode


def said(*arguments: str) -> str:
    """Output of a vagrant command; CalledProcessError when it fails."""
    return subprocess.run(
        ["vagrant", *arguments], cwd=HERE, timeout=300, check=True, capture_output=True, text=True
    ).stdout


@contextmanager
def destroyed(name: str) -> Iterator[None]:
    """Whatever happens, the machine does not stay."""
    try:
        yield
    finally:
        vagrant("destroy", "--force", name, timeout=300)


def test(name: str) -> int:
    """All scenarios in a new machine; its results are written.  The exit status, as above."""
    began = time.monotonic()
    with destroyed(name):
        if vagrant("up", name, timeout=UP_S):
            print(f"{name}: vagrant up failed", file=sys.stderr)
            return 2
        up = time.monotonic() - began
        status = vagrant("ssh", name, "-c", "sudo oom-scenario --results /tmp/results.json all", timeout=SCENARIOS_S)
        results = json.loads(said("ssh", name, "-c", "cat /tmp/results.json"))
    results["up_seconds"] = round(up)
    results["seconds"] = round(time.monotonic() - began)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")
    return 1 if status else 0


def render(machines: Mapping[str, Mapping[str, Any]]) -> str:
    """The table, and below it why scenarios failed or do not apply."""
    headings = [f"{name}<br>{result['kernel']}<br>cgroup v{result['cgroup']}" for name, result in machines.items()]
    lines = [f"| scenario | {' | '.join(headings)} |", "|---" * (len(machines) + 1) + "|"]
    reasons: dict[str, list[str]] = {}
    for scenario in sorted({scenario for result in machines.values() for scenario in result["scenarios"]}):
        cells = []
        for result in machines.values():
            one = result["scenarios"].get(scenario, {"result": ""})
            if one["result"] == "not applicable":
                cells.append(NOT_APPLICABLE)
                reasons.setdefault(one["detail"], []).append(scenario)
            else:
                cells.append(one["result"])
        lines.append(f"| `{scenario}` | {' | '.join(cells)} |")
    seconds = " | ".join(f"{result['seconds']} s" for result in machines.values())
    lines.append(f"| time from `vagrant up` to `destroy` | {seconds} |")
    failures = [
        f"- {name}, {scenario}: {one['detail']}"
        for name, result in machines.items()
        for scenario, one in result["scenarios"].items()
        if one["result"] == "no"
    ]
    if failures:
        lines += ["", "Not as expected:", "", *failures]
    if reasons:
        lines += ["", f"Not applicable ({NOT_APPLICABLE}):", ""]
        lines += [f"- {', '.join(dict.fromkeys(each))}: {reason}" for reason, each in reasons.items()]
    return "\n".join(lines)


def write_table() -> None:
    """Into the page, between its markers."""
    found = {name: RESULTS / f"{name}.json" for name in names()}
    machines = {name: json.loads(path.read_text()) for name, path in found.items() if path.exists()}
    head, _, rest = PAGE.read_text().partition(BEGIN)
    tail = rest.partition(END)[2]
    PAGE.write_text(f"{head}{BEGIN}\n\n{render(machines)}\n\n{END}{tail}")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python3 -m vagrant.machines", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", action="store_true")
    parser.add_argument("machines", nargs="*", metavar="MACHINE", help=f"of {', '.join(names())}")
    options = parser.parse_args()
    if unknown := [name for name in options.machines if name not in names()]:
        parser.error(f"no such machine: {', '.join(unknown)}")
    worst = 0
    if not options.table:
        boxes = PROJECT / "build" / "vagrant"
        chosen = options.machines or names()
        if "OOMTRACE_BOX_DIR" not in os.environ and all((boxes / f"{name}.box").exists() for name in chosen):
            os.environ["OOMTRACE_BOX_DIR"] = str(boxes)
        for name in chosen:
            try:
                worst = max(worst, test(name))
            except (OSError, ValueError, subprocess.SubprocessError) as error:
                print(f"{name}: {error}", file=sys.stderr)
                worst = 2
    write_table()
    return worst


if __name__ == "__main__":
    sys.exit(main())
