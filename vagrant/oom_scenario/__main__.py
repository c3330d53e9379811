# SPDX-License-Identifier: Apache-2.0
"""Run scenarios that make OOM kills, and compare the records that oomtrace writes with what the scenarios expect.

oom-scenario --list
oom-scenario NAME... | all [--results FILE]

Exit status: 0 all as expected (or not applicable here), 1 something was not, 2 wrong usage.  Needs root, systemd and a
running oomtrace.service; kills processes, so only run it on a machine that nobody needs.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from .run import SCENARIOS, Failure, NotApplicable, run


def introduction(path: Path) -> list[str]:
    """The comment at the head of a scenario: what it does, and what to expect."""
    lines = []
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return [line for line in lines if line and not line.startswith(("SPDX-", "shellcheck "))]


def attempt(path: Path) -> dict[str, Any]:
    """Run one scenario, tell what happens, and return its result."""
    print(f"== {path.stem}", *introduction(path), sep="\n   ", flush=True)
    began = time.monotonic()
    try:
        kills = run(path)
        result, detail = "yes", f"{kills} kill{'' if kills == 1 else 's'}"
    except NotApplicable as reason:
        result, detail = "not applicable", str(reason)
    except (Failure, ValueError, KeyError, OSError, subprocess.SubprocessError) as error:
        result, detail = "no", str(error) or repr(error)
    seconds = round(time.monotonic() - began)
    shown = {"yes": "as expected", "no": "NOT as expected"}.get(result, result)
    print(f"   -> {shown}, {seconds} s: " + detail.replace("\n", "\n      "), flush=True)
    return {"result": result, "detail": detail, "seconds": seconds}


def main() -> int:
    scenarios = {path.stem: path for path in sorted(SCENARIOS.glob("*.sh")) if path.stem != "lib"}
    parser = argparse.ArgumentParser(
        prog="oom-scenario", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--list", action="store_true", help="name all scenarios, with what they do")
    parser.add_argument("--results", type=Path, metavar="FILE", help="write the results there, as JSON")
    parser.add_argument("names", nargs="*", metavar="NAME", help="or all")
    options = parser.parse_args()
    if options.list:
        for name, path in scenarios.items():
            print(f"{name:20} {introduction(path)[0]}")
        return 0
    names = list(scenarios) if options.names == ["all"] else options.names
    if not names:
        parser.error("name a scenario, or all")
    if unknown := [name for name in names if name not in scenarios]:
        parser.error(f"no such scenario: {', '.join(unknown)}; there are {', '.join(scenarios)}")
    if os.geteuid():
        parser.error("needs root")
    results = {name: attempt(scenarios[name]) for name in names}
    if options.results:
        cgroup = 1 if Path("/sys/fs/cgroup/memory").is_dir() else 2
        options.results.write_text(json.dumps({"kernel": os.uname().release, "cgroup": cgroup, "scenarios": results}))
    failed = [name for name, result in results.items() if result["result"] == "no"]
    if len(names) > 1:
        print(f"\n{len(names) - len(failed)} of {len(names)} as expected, or not applicable")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
