# SPDX-License-Identifier: Apache-2.0
"""In: a scenario's script.  Out: whether oomtrace recorded what the script expects, and nothing else."""

import json
import os
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from .expectation import differences, missing_sigkills, needs_exit, parse
from .journal import Journal

SCENARIOS = Path(__file__).resolve().parents[1] / "scenarios"
NOT_APPLICABLE = 77
SCENARIO_S = 600
RECORD_S = 60
"""For a record to come; an emulated machine that just ran out of memory is slow."""


class Failure(Exception):
    """The scenario did not do what it should; the message says what."""


class NotApplicable(Exception):
    """It cannot be done on this machine; the message says why."""


def kernel_count() -> int:
    """OOM kills since boot, by the kernel's own count."""
    vmstat = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    return int(vmstat["oom_kill"])


def run(path: Path) -> int:
    """Run one scenario; how many kills were recorded, all as expected.  Raises Failure and NotApplicable."""
    if subprocess.run(["systemctl", "--quiet", "is-active", "oomtrace.service"]).returncode:
        raise Failure("oomtrace.service does not run")
    with tempfile.TemporaryDirectory(prefix="oom-scenario-") as name, Journal() as journal:
        folder = Path(name)
        try:
            before = kernel_count()
            start(path, folder)
            if not (folder / "expected").exists():
                raise Failure("the scenario does not say what to expect")
            expected = parse((folder / "expected").read_text())
            kills, sigkills, counted = collect(journal, needs_exit(expected))
            problems = differences(expected, kills) + missing_sigkills(expected, sigkills)
            # The kernel counts the first victim of a group kill twice.
            groups = {kill["incident"]["id"] for kill in kills if kill["incident"]["group_kill"]}
            if counted - before != len(kills) + len(groups):
                problems.append(f"the kernel counted {counted - before} kills, {len(kills)} were recorded")
            if problems:
                raise Failure("\n".join(problems))
            return len(kills)
        finally:
            clean_up(folder)


def start(path: Path, folder: Path) -> None:
    """Run the script to its end."""
    script = subprocess.Popen(
        ["/bin/sh", path],
        cwd=SCENARIOS,
        env={**os.environ, "SCENARIO_DIR": str(folder)},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        status = script.wait(SCENARIO_S)
    except subprocess.TimeoutExpired:
        os.killpg(script.pid, signal.SIGKILL)
        script.wait()
        raise Failure(f"the scenario took more than {SCENARIO_S} s") from None
    if status == NOT_APPLICABLE:
        raise NotApplicable((folder / "not_applicable").read_text().strip())
    if status:
        said = folder / "failed"
        raise Failure(said.read_text().strip() if said.exists() else f"the scenario ended with status {status}")


def clean_up(folder: Path) -> None:
    """What the script asked for with `finally`, last things first."""
    commands = folder / "finally"
    for command in reversed(commands.read_text().splitlines() if commands.exists() else []):
        subprocess.run(["/bin/sh", "-c", command], capture_output=True)


def collect(journal: Journal, exits: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]], int]:
    """All kills so far, with their exits if asked for; all sigkill records so far; the kernel's count of OOM kills.

    Records come in the order of the kills, so one more kill tells that none is on its way.  And that oomtrace
    works, where no record is what was expected.
    """
    counted = kernel_count()
    unit = f"oom-last-{os.getpid()}.service"
    options = [
        "--quiet",
        "--wait",
        "--collect",
        f"--unit={unit}",
        "--property=MemoryMax=10M",
        "--property=MemorySwapMax=0",
    ]
    subprocess.run(["systemd-run", *options, "--property=OOMPolicy=continue", "oom-hog", "1000"], capture_output=True)
    kills: dict[str, dict[str, Any]] = {}
    sigkills = []
    last = False
    gone = 0
    for record in journal.records(RECORD_S):
        if record["type"] == "oom_kill" and record["systemd"] and record["systemd"]["unit"] == unit:
            last = True
        elif record["type"] == "oom_kill":
            kills[record["id"]] = record
        elif record["type"] == "oom_exit" and record["id"] in kills:
            kills[record["id"]]["exit"] = record
            gone += 1
        elif record["type"] == "sigkill":
            sigkills.append(record)
        elif record["type"] == "start":
            raise Failure("oomtrace was started anew")
        elif record["type"] == "lost":
            raise Failure(f"lost: {json.dumps(record)}")
        if last and (not exits or gone == len(kills)):
            break
    if not last:
        raise Failure(f"oomtrace does not record: no word of {unit}, which was killed")
    return list(kills.values()), sigkills, counted
