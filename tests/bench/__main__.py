# SPDX-License-Identifier: Apache-2.0
"""Measures oomtrace and other tools: ``python -m tests.bench [--quick] [--no-vm]``, as root.

Writes tables to stdout and build/bench.md, figures to build/bench.json.  Exit status 1: a goal is missed.
"""

import argparse
import json
import os
import sys
from dataclasses import asdict

from tests.harness.environment import ROOT
from tests.harness.mounts import mount_missing
from tests.vm.debian import LabError
from tests.vm.vm import exit_on_signals

from . import guest, report, session
from .results import Results
from .running import BenchError

BUILD = ROOT / "build"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few kills, for a first impression")
    parser.add_argument("--no-vm", action="store_true", help="this machine's kernel only")
    parser.add_argument("--only-vm", action="store_true", help="the virtual machine only")
    options = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("tracing the kernel needs root")
    exit_on_signals()
    mount_missing()
    machines: dict[str, Results] = {}
    try:
        if not options.only_vm:
            machines["this machine"] = session.run(options.quick)
        if not options.no_vm:
            machines["virtual machine"] = guest.run(options.quick)
    except (BenchError, LabError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    judged = report.goals(machines, machines.get("this machine"))
    BUILD.mkdir(exist_ok=True)
    (BUILD / "bench.md").write_text(report.write(machines, judged, as_markdown=True))
    (BUILD / "bench.json").write_text(json.dumps({where: asdict(found) for where, found in machines.items()}, indent=1))
    print(report.write(machines, judged, as_markdown=False))
    return 0 if all(goal.met for goal in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
